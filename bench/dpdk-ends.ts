/** DPDK's ends of a pairing: testpmd over `net_vhost` on the host's side, over `net_virtio_user` on the guest's. */

import { setTimeout as sleep } from 'node:timers/promises';

import { ErrorCode, VirtioError } from 'virtio-pmd';
import { type EndOptions, type GuestEnd, type HostEnd, RING_SIZE } from './ends.js';
import { VIRTIO_LOG, virtioUserArguments, WIDE_VECTORS } from './paths.js';
import { Testpmd, type TestpmdOptions } from './testpmd.js';

const CONNECT_MS = 15_000;
/** Bursts of the first frames: 32 bursts of 32 are the 1024 that the rings hold. */
const FIRST_BURSTS = RING_SIZE / 32;
export const PARAMETERS = ['--nb-cores=1', `--txd=${RING_SIZE}`, `--rxd=${RING_SIZE}`];
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

  /** Of all ports; testpmd's own figure between two looks at its counters: it takes the time where it takes the counters. */
  protected async receiveRate(milliseconds: number): Promise<number> {
    await this.testpmd.portStats();
    await sleep(milliseconds);
    const ports = await this.testpmd.portStats();
    return ports.reduce((sum, { rxPps }) => sum + rxPps, 0);
  }
}

/** `net_vhost`, listening. */
export class DpdkHost extends DpdkEnd implements HostEnd {
  readonly #size: number;

  private constructor(testpmd: Testpmd, size: number) {
    super(testpmd);
    this.#size = size;
  }

  static async start(options: EndOptions): Promise<DpdkHost> {
    const vdev = `net_vhost0,iface=${options.socket},queues=1,client=0`;
    const testpmd = await startChecked(
      {
        name: options.name,
        memory: options.memory,
        lcores: lcoresOf(options),
        mainLcore: options.cores.guest,
        vdevs: [vdev],
        parameters: PARAMETERS,
      },
      () => {},
    );
    return new DpdkHost(testpmd, options.size);
  }

  async connected(): Promise<bigint> {
    await this.testpmd.waitForLog(/virtio is now ready for processing/, { timeoutMs: CONNECT_MS });
    const [, features] = await this.testpmd.waitForLog(/negotiated Virtio features: (0x[0-9a-f]+)/);
    return BigInt(features!);
  }

  async begin(): Promise<void> {
    await this.testpmd.command('set fwd mac');
    await this.testpmd.command(`set txpkts ${this.#size}`);
    await this.testpmd.command(`start tx_first ${FIRST_BURSTS}`);
  }

  rate(milliseconds: number): Promise<number> {
    return this.receiveRate(milliseconds);
  }
}

/** `net_virtio_user`, connecting. */
export class DpdkGuest extends DpdkEnd implements GuestEnd {
  static async start(options: EndOptions): Promise<DpdkGuest> {
    const device = { mac: '00:01:02:03:04:05', socket: options.socket };
    return new DpdkGuest(await startVirtioUser(options, [device], PARAMETERS));
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
          `net_virtio_user${index},mac=${mac},path=${socket},queues=1,queue_size=${RING_SIZE},${virtioUserArguments(path)}`,
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
