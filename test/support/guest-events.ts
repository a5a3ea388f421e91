/** A program in a guest that says what its port's device tells: how it is started, and how its lines are waited for. */

import { fileURLToPath } from 'node:url';
import type { EventsProgramLines } from './guest-events-program.js';
import type { Guest } from './guest-machine.js';

const PROGRAM = fileURLToPath(new URL('./guest-events-program.js', import.meta.url));
/** Generous: the processors may be others'. */
const LINE_SECONDS = 90;
let programs = 0;

export class EventsProgram {
  readonly #guest: Guest;
  readonly #log: string;
  readonly #stopFile: string;

  private constructor(guest: Guest) {
    this.#guest = guest;
    const name = `events-${programs++}`;
    this.#log = `/host/run/${name}.log`;
    this.#stopFile = `/run/${name}.stop`;
  }

  static async start(
    guest: Guest,
    address: string,
    options: Readonly<Record<string, unknown>>,
  ): Promise<EventsProgram> {
    const program = new EventsProgram(guest);
    const words = `${process.execPath} --enable-source-maps ${PROGRAM} ${address} '${JSON.stringify(options)}'`;
    await guest.run(`chroot /host ${words} ${program.#stopFile} >${program.#log} 2>&1 </dev/null 3>&- &`);
    return program;
  }

  /** All it has said. */
  async output(): Promise<string> {
    return await this.#guest.run(`cat ${this.#log}`);
  }

  /** Waits until lines that begin so have come `times` times. @throws Error with all that came instead */
  async until(line: string, times = 1): Promise<void> {
    const script = `
      read now rest </proc/uptime
      end=$((\${now%.*} + ${LINE_SECONDS}))
      while [ \${now%.*} -lt $end ]; do
        [ $(grep -c '^${line}' ${this.#log}) -ge ${times} ] && exit 0
        usleep 200000
        read now rest </proc/uptime
      done
      cat ${this.#log}; exit 1`;
    const { status, output } = await this.#guest.tryRun(script, { timeoutMs: LINE_SECONDS * 2000 });
    if (status !== 0) throw new Error(`no \`${line}\` ${times} times in:\n${output}\n${this.#guest.console}`);
  }

  /** What a line of it holds. */
  async line<K extends keyof EventsProgramLines>(name: K): Promise<EventsProgramLines[K]> {
    await this.until(`${name} `);
    const output = await this.output();
    const line = output.split('\n').find((each) => each.startsWith(`${name} `));
    return JSON.parse(line!.slice(name.length + 1)) as EventsProgramLines[K];
  }

  /** How often it has told of an event. */
  async count(event: string): Promise<number> {
    return (await this.output()).split('\n').filter((line) => line === `event ${event}`).length;
  }

  /** Asks it to end. */
  async stop(): Promise<void> {
    await this.#guest.run(`touch /host${this.#stopFile}`);
  }
}
