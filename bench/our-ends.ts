/** Our ends of a pairing, each in a process of its own: our-host.ts and our-guest.ts, spoken to in lines of JSON. */

import { join } from 'node:path';

import { ErrorCode, VirtioError } from 'virtio-pmd';
import type { CountingHostEnd, EndOptions, GuestEnd } from './ends.js';
import type { TrialCounts, TrialPlan } from './meter/trial.js';
import { PeerProcess } from './peer-process.js';
import { projectRoot } from './project-root.js';

const START_MS = 15_000;
/** More for each connection beyond the first. */
const START_MS_PER_CONNECTION = 100;
const ANSWER_MS = 5000;

/** What the child is told on its command line, as JSON. */
export interface OurEndOptions
  extends Pick<EndOptions, 'socket' | 'frames' | 'queues' | 'ringSize' | 'burst' | 'connections'> {
  /** Processor of the forwarding worker. */
  readonly core: number;
  /** Packets are spread over so many MiB; null is what the port takes by itself. */
  readonly guestMemory: number | null;
  readonly packed: boolean;
  readonly mergeable: boolean;
  readonly inOrder: boolean;
}

/** What the child answers, one line each. */
export type OurEndAnswer =
  /** It listens, or is connected: it can be told to begin. */
  | { readonly type: 'ready' }
  /** A driver is ready; the features in hex. Host's side only. */
  | { readonly type: 'connected'; readonly features: string }
  /** It forwards. */
  | { readonly type: 'begun' }
  /** What it received since it began, when that was looked at, and since when by the same clock. */
  | { readonly type: 'counters'; readonly packets: number; readonly nanoseconds: number }
  /** The outcome of a trial. A meter's only, as is the next. */
  | { readonly type: 'trial'; readonly counts: TrialCounts }
  /** The latencies of the last trial (`encodeHistogram`). */
  | { readonly type: 'latencies'; readonly histogram: string }
  | { readonly type: 'error'; readonly line: string };

/** One of our processes. */
export abstract class OurEnd {
  readonly #process: PeerProcess;
  /** Output before this was answered for. */
  #read = 0;
  /** How long it may take to be ready, and again to begin. */
  #startMs = START_MS;

  protected constructor(process: PeerProcess) {
    this.#process = process;
  }

  protected static async spawn(program: string, options: EndOptions, core: number): Promise<PeerProcess> {
    const { socket, frames, queues, ringSize, burst, connections } = options;
    const { packed, mergeable, inOrder } = options.path;
    const childOptions: OurEndOptions = {
      ...{ socket, frames, queues, ringSize, burst, connections },
      ...{ core, packed, mergeable, inOrder, guestMemory: options.guestMemory ?? null },
    };
    const file = join(projectRoot, 'dist', 'bench', program);
    return PeerProcess.spawn([process.execPath, file, JSON.stringify(childOptions)], { name: options.name });
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

  async close(): Promise<void> {
    await this.#process.end();
  }

  /** Resolves to this when the process says that it is ready; else it is closed. */
  protected async whenReady({ connections }: EndOptions): Promise<this> {
    this.#startMs += (connections - 1) * START_MS_PER_CONNECTION;
    try {
      await this.answer('ready', this.#startMs);
      return this;
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  protected async begun(): Promise<void> {
    await this.answer('begun', this.#startMs);
  }

  protected tell(command: 'begin' | 'counters' | 'latencies' | { readonly trial: TrialPlan }): void {
    this.#process.writeLine(typeof command === 'string' ? command : JSON.stringify(command));
  }

  /** The next answer, which must be of this type. */
  protected async answer<T extends OurEndAnswer['type']>(
    type: T,
    timeoutMs = ANSWER_MS,
  ): Promise<Extract<OurEndAnswer, { type: T }>> {
    const { text, end } = await this.#process.waitForOutput(/\{.*\}\n/, this.#read, timeoutMs, `'${type}'`);
    this.#read = end;
    const answer = JSON.parse(text.slice(text.lastIndexOf('{"type"'))) as OurEndAnswer;
    if (answer.type === type) return answer as Extract<OurEndAnswer, { type: T }>;
    const message = answer.type === 'error' ? answer.line : `answered ${answer.type}, not ${type}`;
    throw new VirtioError(ErrorCode.WRONG_STATE, `${this.#process.name}: ${message}`, { value: answer });
  }
}

/** The bundled back-end, listening. */
export class OurHost extends OurEnd implements CountingHostEnd {
  static start(options: EndOptions): Promise<OurHost> {
    return OurHost.#run('our-host.js', options);
  }

  /** As a switch between two guests. */
  static startSwitch(options: EndOptions): Promise<OurHost> {
    return OurHost.#run('our-switch.js', options);
  }

  static async #run(program: string, options: EndOptions): Promise<OurHost> {
    return new OurHost(await OurEnd.spawn(program, options, options.cores.host)).whenReady(options);
  }

  async connected(): Promise<bigint> {
    return BigInt((await this.answer('connected', START_MS)).features);
  }

  async begin(): Promise<void> {
    this.tell('begin');
    await this.begun();
  }

  async rate(milliseconds: number): Promise<number> {
    const before = await this.#counters();
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
    const after = await this.#counters();
    return ((after.packets - before.packets) / (after.nanoseconds - before.nanoseconds)) * 1e9;
  }

  #counters() {
    this.tell('counters');
    return this.answer('counters');
  }
}

/** Our driver as vhost-user front-end, connecting. */
export class OurGuest extends OurEnd implements GuestEnd {
  static async start(options: EndOptions): Promise<OurGuest> {
    return new OurGuest(await OurEnd.spawn('our-guest.js', options, options.cores.guest)).whenReady(options);
  }

  async begin(): Promise<void> {
    this.tell('begin');
    await this.begun();
  }
}
