/**
 * User-mode Linux for tests: a real kernel, as an ordinary process, whose driver speaks vhost-user by itself.
 *
 * Use: `await using guest = await bootUml({ cards: [socket] });`
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { gzipSync } from 'node:zlib';

import { GuestAgent, type GuestEnd, type GuestRunOptions } from './guest-agent.js';
import { buildInitramfs, type InitramfsOptions } from './guest-initramfs.js';
import { umlImage } from './guest-kernel.js';
import { ending, lastOutput } from './guest-machine.js';
import { processesOf, sendSignal } from './processes.js';
import { makeTestId, TEST_ID_VARIABLE } from './test-names.js';

export interface UmlOptions extends Partial<Omit<InitramfsOptions, 'kernel'>> {
  /** Sockets of back-ends, which listen there already: one network card each. */
  readonly cards: readonly string[];
  /** Default 128. */
  readonly memoryMb?: number | undefined;
  readonly bootTimeoutMs?: number | undefined;
}

const BOOT_MS = 60_000;
/** The device id of a network card (virtio 1.2 §5). */
const NETWORK_CARD = 1;
/** Descriptor of its serial line in the process. */
const LINE_FD = 3;

export class UmlGuest {
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #id: string;
  readonly #agent: GuestAgent;
  readonly #ended: Promise<void>;
  readonly #console: () => string;

  private constructor(child: ChildProcess, folder: string, id: string) {
    this.#child = child;
    this.#folder = folder;
    this.#id = id;
    this.#console = lastOutput(child);
    this.#ended = ending(child);
    this.#agent = new GuestAgent(child.stdio[LINE_FD] as Duplex, this.#console);
    void this.#ended.then(() => this.#agent.end(`it ended with ${child.signalCode ?? `status ${child.exitCode}`}`));
  }

  static async boot(options: UmlOptions): Promise<UmlGuest> {
    const folder = mkdtempSync(join(tmpdir(), 'u-'));
    const id = makeTestId();
    const outer = process.env[TEST_ID_VARIABLE];
    try {
      const modules = ['virtio_net'];
      const initramfs = join(folder, 'initramfs');
      writeFileSync(
        initramfs,
        gzipSync(await buildInitramfs({ modules, ...options, kernel: 'user-mode-linux' }), { level: 1 }),
      );
      const words = [
        ...[`mem=${options.memoryMb ?? 128}M`, `initrd=${initramfs}`, `uml_dir=${folder}`, 'quiet', 'panic=-1'],
        ...['con=null', 'con0=null,fd:1', 'ssl=null', `ssl0=fd:${LINE_FD},fd:${LINE_FD}`, 'guest.agent=ttyS0'],
        ...options.cards.map((path) => `virtio_uml.device=${path}:${NETWORK_CARD}`),
      ];
      // Its memory is a file there, which it unlinks at once.
      const env = {
        ...process.env,
        TMPDIR: '/dev/shm',
        [TEST_ID_VARIABLE]: outer === undefined ? id : `${outer}:${id}`,
      };
      const child = spawn(umlImage(), words, { env, stdio: ['ignore', 'pipe', 'pipe', 'pipe'] });
      const guest = new UmlGuest(child, folder, id);
      try {
        await guest.#agent.up(1, options.bootTimeoutMs ?? BOOT_MS);
        return guest;
      } catch (error) {
        await guest.close();
        throw error;
      }
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** What its console said last. */
  get console(): string {
    return this.#console();
  }

  /** Runs a shell script in the guest and resolves to what it printed. @throws Error when its status is not 0 */
  run(script: string, options?: GuestRunOptions): Promise<string> {
    return this.#agent.run(script, options);
  }

  /** Runs a shell script in the guest and resolves to how it ended. */
  tryRun(script: string, options?: GuestRunOptions): Promise<GuestEnd> {
    return this.#agent.tryRun(script, options);
  }

  /** Ends each of its processes: it ignores being asked. Idempotent. */
  async close(): Promise<void> {
    if (this.#child.pid !== undefined) {
      for (let left = processesOf(-1, this.#id); left.length > 0; left = processesOf(-1, this.#id)) {
        for (const { pid } of left) sendSignal(pid, 'SIGKILL');
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      await this.#ended;
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Boots a guest and resolves when it takes commands. @throws Error with what it said when it does not come up */
export const bootUml = (options: UmlOptions): Promise<UmlGuest> => UmlGuest.boot(options);
