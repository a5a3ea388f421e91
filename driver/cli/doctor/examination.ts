/** Runs every check that there is on everything that was asked about. */

import { DEVICE_CHECKS } from './checks-device.js';
import { MACHINE_CHECKS } from './checks-machine.js';
import { SOCKET_CHECKS } from './checks-socket.js';
import type { Finding, Outcome } from './finding.js';
import type { DoctorOptions } from './options.js';
import { gather, type Situation, type Targets } from './situation.js';
import type { System } from './system.js';

export interface Examination {
  readonly situation: Situation;
  /** One for each check and subject, in the order in which things have to be put right. */
  readonly findings: readonly Finding[];
}

interface AnyCheck<Subject> {
  readonly name: string;
  readonly looksAt: string;
  examine(subject: Subject, options: DoctorOptions): Outcome;
}

/** Looks at everything; `findings` has the troubles among the rest. */
export async function examine(system: System, targets: Targets, options: DoctorOptions): Promise<Examination> {
  const situation = await gather(system, targets, options);
  const run = <Subject>(checks: readonly AnyCheck<Subject>[], subject: Subject, name: string): Finding[] =>
    checks.map((check) => ({
      check: check.name,
      subject: name,
      looksAt: check.looksAt,
      ...check.examine(subject, options),
    }));
  return {
    situation,
    findings: [
      ...run(MACHINE_CHECKS, situation, 'machine'),
      ...situation.devices.flatMap((device) => run(DEVICE_CHECKS, device, device.address)),
      ...situation.sockets.flatMap((socket) => run(SOCKET_CHECKS, socket, socket.path)),
    ],
  };
}
