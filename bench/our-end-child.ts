/** What our-host.ts and our-guest.ts share: options from the command line, commands on stdin, answers on stdout. */

import { createInterface } from 'node:readline';

import { VirtioError } from 'virtio-pmd';

import type { TrialCounts, TrialPlan } from './meter/trial.js';
import type { OurEndAnswer, OurEndOptions } from './our-ends.js';

/** What a side does, and what it can be asked for. */
export interface OurEndRole {
  /** Begins the traffic. */
  begin(): void | Promise<void>;
  /** Packets received so far. */
  packets?(): number;
  /** Runs a trial; resolves to its outcome. */
  trial?(plan: TrialPlan): Promise<TrialCounts>;
  /** The latencies of the last trial (`encodeHistogram`). */
  latencies?(): string;
  close(): Promise<void>;
}

/** Tells the parent. */
export function answer(message: OurEndAnswer): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

/** Opens a side, says `ready`, serves commands until the end of input, and closes it. Failures are answers, too. */
export async function serve(open: (options: OurEndOptions) => Promise<OurEndRole>): Promise<void> {
  // Ctrl-C is for the parent, which then ends the input here.
  process.on('SIGINT', () => {});
  let role: OurEndRole | undefined;
  try {
    role = await open(JSON.parse(process.argv[2] ?? '{}') as OurEndOptions);
    answer({ type: 'ready' });
    for await (const command of createInterface({ input: process.stdin })) await obey(role, command);
  } catch (error) {
    process.exitCode = 1;
    answer({ type: 'error', line: error instanceof VirtioError ? error.toLine() : String(error) });
  } finally {
    await role?.close();
  }
}

async function obey(role: OurEndRole, command: string): Promise<void> {
  if (command === 'begin') {
    await role.begin();
    answer({ type: 'begun' });
  } else if (command === 'counters') {
    answer({ type: 'counters', packets: role.packets?.() ?? 0, nanoseconds: Number(process.hrtime.bigint()) });
  } else if (command === 'latencies') {
    answer({ type: 'latencies', histogram: role.latencies?.() ?? '' });
  } else if (role.trial !== undefined) {
    answer({ type: 'trial', counts: await role.trial((JSON.parse(command) as { trial: TrialPlan }).trial) });
  }
}
