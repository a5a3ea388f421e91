/** DPDK's ends of a pairing: testpmd over `net_vhost` on the host's side, over `net_virtio_user` on the guest's. */

import { setTimeout as sleep } from 'node:timers/promises';

import { ErrorCode, VirtioError } from 'virtio-pmd';
import type { CountingHostEnd, EndOptions, GuestEnd } from './ends.js';
import type { FrameRun } from './frames.js';
import { VIRTIO_LOG, virtioUserArguments, WIDE_VECTORS } from './paths.js';
import { Testpmd, type TestpmdOptions } from './testpmd.js';

const CONNECT_MS = 15_000;
/** One forwarding core, which polls every queue. The first frames of a mix are sent in several starts: nothing is flushed. */
export const parametersOf = ({ ringSize, queues, burst }: EndOptions): string[] => [
  '--nb-cores=1',
  ...[`--txd=${ringSize}`, `--rxd=${ringSize}`, `--burst=${burst}`],
  ...(queues > 1 ? [`--rxq=${queues}`, `--txq=${queues}`] : []),
  '--no-flush-rx',
];
export const lcoresOf = ({ cores }: EndOptions) => `${cores.guest},${cores.host}`;

export abstract class DpdkEnd {
  protected readonly testpmd: Testpmd;

  constructor(testpmd: Testpmd) {
    this.testpmd = testpmd;
  }

  get pid(): number {
    return this.testpmd.pid;
  }

  lastLines(): string {
    return this.testpmd.lastLines();
  }

  freeze(): void {
    this.testpmd.freeze();
  }

  thaw(): void {
    this.testpmd.thaw();
  }

  close(): Promise<void> {
    return this.testpmd.close();
  }

  /** Starts to forward, with these frames of its own first. */
  protected async startWith(frames: readonly FrameRun[]): Promise<void> {
    if (frames.length === 0) await this.testpmd.command('start');
    for (const [index, { bytes, bursts }] of frames.entries()) {
      if (index > 0) await this.testpmd.command('stop');
      await this.testpmd.command(`set txpkts ${bytes}`);
      await this.testpmd.command(`start tx_first ${bursts}`);
    }
  }

  /** Of all ports; testpmd's own figure between two looks at its counters: it takes the time where it takes the counters. */
  protected async receiveRate(milliseconds: number): Promise<number> {
    await this.testpmd.portStats();
    await sleep(milliseconds);
    const ports = await this.testpmd.portStats();
    return ports.reduce((sum, { rxPps }) => sum + rxPps, 0);
  }
}

/** `net_vhost`, listening. */
export class DpdkHost extends DpdkEnd implements CountingHostEnd {
  readonly #frames: readonly FrameRun[];

  private constructor(testpmd: Testpmd, frames: readonly FrameRun[]) {
    super(testpmd);
    this.#frames = frames;
  }

  static async start(options: EndOptions): Promise<DpdkHost> {
    const vdev = `net_vhost0,iface=${options.socket},queues=${options.queues},client=0`;
    const testpmd = await startChecked(
      {
        name: options.name,
        memory: options.memory,
        lcores: lcoresOf(options),
        mainLcore: options.cores.guest,
        vdevs: [vdev],
        parameters: parametersOf(options),
      },
      () => {},
    );
    return new DpdkHost(testpmd, options.frames);
  }

  async connected(): Promise<bigint> {
    await this.testpmd.waitForLog(/virtio is now ready for processing/, { timeoutMs: CONNECT_MS });
    const [, features] = await this.testpmd.waitForLog(/negotiated Virtio features: (0x[0-9a-f]+)/);
    return BigInt(features!);
  }

  async begin(): Promise<void> {
    await this.testpmd.command('set fwd mac');
    await this.startWith(this.#frames);
  }

  rate(milliseconds: number): Promise<number> {
    return this.receiveRate(milliseconds);
  }

  /** What comes back over the next `milliseconds`. */
  async received(milliseconds: number): Promise<{ packets: number; bytes: number }> {
    const [before] = await this.testpmd.portStats();
    await sleep(milliseconds);
    const [after] = await this.testpmd.portStats();
    return { packets: after!.rxPackets - before!.rxPackets, bytes: after!.rxBytes - before!.rxBytes };
  }
}

/** `net_virtio_user`, connecting. */
export class DpdkGuest extends DpdkEnd implements GuestEnd {
  static async start(options: EndOptions): Promise<DpdkGuest> {
    const device = { mac: '00:01:02:03:04:05', socket: options.socket };
    return new DpdkGuest(await startVirtioUser(options, [device], parametersOf(options)));
  }

  async begin(): Promise<void> {
    await this.testpmd.command('set fwd mac');
    await this.testpmd.command('start');
  }
}

/** A testpmd with a `net_virtio_user` port on each of these sockets, on the path that was asked for. */
export function startVirtioUser(
  options: EndOptions,
  devices: readonly { readonly mac: string; readonly socket: string }[],
  parameters: readonly string[],
): Promise<Testpmd> {
  const { path } = options;
  return startChecked(
    {
      name: options.name,
      memory: options.memory,
      lcores: lcoresOf(options),
      mainLcore: options.cores.host,
      vdevs: devices.map(
        ({ mac, socket }, index) =>
          `net_virtio_user${index},mac=${mac},path=${socket},queues=${options.queues},queue_size=${options.ringSize},${virtioUserArguments(path)}`,
      ),
      eal: [...VIRTIO_LOG, ...(path.vectorized && path.packed ? WIDE_VECTORS : [])],
      parameters,
    },
    (started) => checkPath(started, options),
  );
}

/** DPDK takes another path when this one cannot be had, and only its log tells. */
async function checkPath(testpmd: Testpmd, { path }: EndOptions): Promise<void> {
  await testpmd.waitForLog(/using .*Rx path on port/);
  await testpmd.waitForLog(/using .*Tx path on port/);
  const used = (testpmd.log.match(/using .* path(?= on port)/g) ?? []) as string[];
  if (used.includes(path.log.receive) && used.includes(path.log.send)) return;
  const reason = /disabled (?:split|packed) ring .*/.exec(testpmd.log)?.[0] ?? `it is ${used.join(', ')}`;
  throw new VirtioError(ErrorCode.UNSUPPORTED, `DPDK does not take ${path.name} here: ${reason}`, { value: used });
}

/** testpmd asks for commands with or without a port that works. */
function checkPort(testpmd: Testpmd): void {
  if (!/No probed ethernet devices|Start ports failed/.test(testpmd.log)) return;
  const reason =
    /^.*(?:failed to|connect error|backend set up fails).*$/m.exec(testpmd.log)?.[0] ?? 'its port does not start';
  throw new VirtioError(ErrorCode.UNSUPPORTED, `${testpmd.name}: ${reason}`, { value: testpmd.name });
}

/** Starts testpmd and closes it again when `check` does not like it. */
export async function startChecked(options: TestpmdOptions, check: (testpmd: Testpmd) => unknown): Promise<Testpmd> {
  const testpmd = await Testpmd.start(options);
  try {
    checkPort(testpmd);
    await check(testpmd);
    return testpmd;
  } catch (error) {
    await testpmd.close();
    throw error;
  }
}
