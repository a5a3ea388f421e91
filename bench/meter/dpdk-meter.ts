/** The meter in DPDK's place on the host's side: dpdk-meter.cc over `net_vhost`. */

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Histogram } from 'hdr-histogram-js';
import { ErrorCode, VirtioError } from 'virtio-pmd';
import { compile, flagsOf } from '../compile.js';
import { lcoresOf } from '../dpdk-ends.js';
import type { EndOptions, HostEnd } from '../ends.js';
import { histogramOf } from '../latency-histogram.js';
import { PeerProcess } from '../peer-process.js';
import type { Meter } from './meter-ends.js';
import { GRACE_MS, type TrialCounts, type TrialPlan } from './trial.js';

const START_MS = 30_000;
const CONNECT_MS = 15_000;
const ANSWER_MS = 10_000;

export class DpdkMeter implements HostEnd, Meter {
  readonly #process: PeerProcess;
  /** The program, DPDK's files, and the latencies. */
  readonly #folder: string;
  /** Latencies of the last trial. */
  #samples = 0;

  private constructor(process: PeerProcess, folder: string) {
    this.#process = process;
    this.#folder = folder;
  }

  /**
   * Compiles the program and starts it.
   *
   * @throws VirtioError NOT_FOUND without a compiler or DPDK's headers, UNSUPPORTED, PEER_GONE, TIMEOUT
   */
  static async start(options: EndOptions): Promise<DpdkMeter> {
    const { compiler, linker } = await flagsOf('libdpdk', 'libdpdk-dev');
    const folder = await mkdtemp(join(tmpdir(), 'dpdk-meter-'));
    let process: PeerProcess | undefined;
    try {
      const program = join(folder, 'dpdk-meter');
      await compile('meter/dpdk-meter.cc', compiler, program, linker);
      process = await PeerProcess.spawn([program, ...argumentsOf(options), '--', latenciesIn(folder)], {
        name: options.name,
        environment: { RUNTIME_DIRECTORY: folder, XDG_RUNTIME_DIR: folder },
      });
      await process.waitForOutput(/"ready"/, 0, START_MS);
      return new DpdkMeter(process, folder);
    } catch (error) {
      await process?.end();
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  get pid(): number {
    return this.#process.pid;
  }

  lastLines(): string {
    return this.#process.lastLines();
  }

  freeze(): void {
    this.#process.freeze();
  }

  thaw(): void {
    this.#process.thaw();
  }

  async connected(): Promise<bigint> {
    await this.#process.waitForLog(/virtio is now ready for processing/, CONNECT_MS);
    const [, features] = await this.#process.waitForLog(/negotiated Virtio features: (0x[0-9a-f]+)/, CONNECT_MS);
    return BigInt(features!);
  }

  async begin(): Promise<void> {}

  async trial({ rate, seconds, bytes }: TrialPlan): Promise<TrialCounts> {
    const from = this.#process.position;
    this.#process.writeLine(`trial ${rate} ${seconds} ${bytes}`);
    const patience = seconds * 1000 + GRACE_MS + ANSWER_MS;
    const { text } = await this.#process.waitForOutput(
      /\{"type":"trial".*\}\n/,
      from,
      patience,
      'the outcome of a trial',
    );
    const { counts, samples } = JSON.parse(text.slice(text.indexOf('{"type"'))) as TrialOutcome;
    this.#samples = samples;
    return counts;
  }

  async latencies(): Promise<Histogram> {
    const { buffer, byteOffset, byteLength } = await readFile(latenciesIn(this.#folder));
    if (byteLength !== this.#samples * Uint32Array.BYTES_PER_ELEMENT) {
      const what = 'the file of latencies is not that of the last trial';
      throw new VirtioError(ErrorCode.BAD_FORMAT, what, { value: byteLength });
    }
    const nanoseconds = new Uint32Array(buffer.slice(byteOffset, byteOffset + byteLength));
    return histogramOf(nanoseconds);
  }

  async close(): Promise<void> {
    await this.#process.end();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

interface TrialOutcome {
  readonly counts: TrialCounts;
  /** Latencies that are in the file. */
  readonly samples: number;
}

const latenciesIn = (folder: string): string => join(folder, 'latencies');

/** EAL's: memory and cores as testpmd has them. */
const argumentsOf = (options: EndOptions): string[] => [
  ...['-l', lcoresOf(options), '--main-lcore', String(options.cores.guest)],
  ...['--no-pci', '--no-telemetry', '--file-prefix', `${options.name}-${process.pid}`],
  ...(options.memory === 'hugepages' ? ['--in-memory', '--single-file-segments'] : ['--no-huge', '-m', '512']),
  ...['--vdev', `net_vhost0,iface=${options.socket},queues=1,client=0`],
];
