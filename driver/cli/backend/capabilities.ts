/** `--print-capabilities` (vhost-user "Back-end program conventions"). */

import type { Option } from 'commander';

/** What management software reads before it starts a back-end program. */
export interface Capabilities {
  readonly type: 'net';
  /** The options that it takes beyond those that every back-end program has. */
  readonly features: readonly string[];
}

const CONVENTIONAL = ['socket-path', 'fd', 'print-capabilities'];

export const capabilities = (options: readonly Option[]): Capabilities => ({
  type: 'net',
  features: options.map((option) => option.name()).filter((name) => !CONVENTIONAL.includes(name)),
});
