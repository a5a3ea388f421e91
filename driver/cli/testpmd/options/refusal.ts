/** How options are refused: what `rte_exit` prints. */

import { ErrorCode, VirtioError } from '../../../errors.js';

/** What testpmd ends for, with the exit status 1; `message` is the cause that it names. */
export class Refusal extends VirtioError {
  constructor(message: string) {
    super(ErrorCode.INVALID_ARGUMENT, message, { advice: 'see virtio-pmd testpmd --help' });
  }
}

export const refusal = (message: string): Refusal => new Refusal(message);

/** What testpmd says on standard error when it ends by itself. */
export const refusalLines = (message: string): string => `EAL: Error - exiting with code: 1\n  Cause: ${message}`;
