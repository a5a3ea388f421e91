/** The ends of a pairing with two ports: a testpmd of two `net_virtio_user` ports, and DPDK's way between them. */

import { DpdkEnd, lcoresOf, parametersOf, startChecked, startVirtioUser } from './dpdk-ends.js';
import { type CountingHostEnd, type EndOptions, type GuestEnd, socketsOf } from './ends.js';
import type { FrameRun } from './frames.js';

const macOf = (port: number): string => `02:00:00:00:01:0${port}`;
/** Each port sends half of the bursts first: together they are what one ring holds. */
const halved = (frames: readonly FrameRun[]): FrameRun[] =>
  frames.map(({ bytes, bursts }) => ({ bytes, bursts: Math.ceil(bursts / 2) }));
const BOTH_READY = /virtio is now ready for processing[\s\S]*virtio is now ready for processing/;
const CONNECT_MS = 15_000;

/** Two ports of one forwarding core; what one receives it sends back where it came from, by address. */
export class TwoPortGuest extends DpdkEnd implements GuestEnd {
  readonly #frames: readonly FrameRun[];

  private constructor(testpmd: TwoPortGuest['testpmd'], frames: readonly FrameRun[]) {
    super(testpmd);
    this.#frames = halved(frames);
  }

  static async start(options: EndOptions): Promise<TwoPortGuest> {
    const devices = socketsOf(options.socket).map((socket, port) => ({ mac: macOf(port), socket }));
    const peers = devices.map((_, port) => `--eth-peer=${port},${macOf(1 - port)}`);
    const parameters = [...parametersOf(options), '--port-topology=loop', ...peers];
    return new TwoPortGuest(await startVirtioUser(options, devices, parameters), options.frames);
  }

  async begin(): Promise<void> {
    await this.testpmd.command('set fwd macswap');
    await this.startWith(this.#frames);
  }
}

/** `io` between two `net_vhost` ports: the least that can be done between them, without a look at any packet. */
export class TwoPortDpdkHost extends DpdkEnd implements CountingHostEnd {
  static async start(options: EndOptions): Promise<TwoPortDpdkHost> {
    const { name, memory, cores, socket } = options;
    const vdevs = socketsOf(socket).map(
      (path, port) => `net_vhost${port},iface=${path},queues=${options.queues},client=0`,
    );
    // The guest's first frames are there before it begins: nothing is flushed.
    const parameters = parametersOf(options);
    const testpmd = await startChecked(
      { name, memory, lcores: lcoresOf(options), mainLcore: cores.guest, vdevs, parameters },
      () => {},
    );
    return new TwoPortDpdkHost(testpmd);
  }

  async connected(): Promise<bigint> {
    await this.testpmd.waitForLog(BOTH_READY, { timeoutMs: CONNECT_MS });
    const [, features] = await this.testpmd.waitForLog(/negotiated Virtio features: (0x[0-9a-f]+)/);
    return BigInt(features!);
  }

  async begin(): Promise<void> {
    await this.testpmd.command('set fwd io');
    await this.testpmd.command('start');
  }

  rate(milliseconds: number): Promise<number> {
    return this.receiveRate(milliseconds);
  }
}
