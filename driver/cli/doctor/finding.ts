/** What a check is, and what it finds. */

import type { Device } from './device.js';
import type { DoctorOptions } from './options.js';
import type { Situation } from './situation.js';
import type { Socket } from './socket.js';

export type Outcome =
  | { readonly verdict: 'ok'; readonly value: string }
  /** Something that is needed is missing. */
  | {
      readonly verdict: 'trouble';
      /** What there is. */
      readonly value: string;
      /** What there should be. */
      readonly requirement: string;
      /** The command that puts it right, or what to do where no command does. */
      readonly fix: string;
    }
  /** There is nothing to look at here; `value` says why. */
  | { readonly verdict: 'not applicable'; readonly value: string };

export const ok = (value: string): Outcome => ({ verdict: 'ok', value });
export const trouble = (value: string, requirement: string, fix: string): Outcome => ({
  verdict: 'trouble',
  value,
  requirement,
  fix,
});
export const notApplicable = (value: string): Outcome => ({ verdict: 'not applicable', value });

interface CheckOf<Subject> {
  readonly name: string;
  /** What it looks at, for people. */
  readonly looksAt: string;
  examine(subject: Subject, options: DoctorOptions): Outcome;
}

/** One thing that is looked at: of the machine as a whole, of each device, or of each socket. */
export type MachineCheck = CheckOf<Situation>;
export type DeviceCheck = CheckOf<Device>;
export type SocketCheck = CheckOf<Socket>;

/** What a check found of a subject: an entry of `doctor --json`. */
export type Finding = Outcome & {
  readonly check: string;
  /** `machine`, a PCI address, or the path of a socket. */
  readonly subject: string;
  readonly looksAt: string;
};
