/** How options are refused: what `rte_exit` prints. */

import { ErrorCode, VirtioError } from '../../../errors.js';

/** An option that testpmd ends for; `message` is the cause that it names. */
export const refusal = (message: string): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, message, { advice: 'see virtio-pmd testpmd --help' });

/** What testpmd says on standard error when it ends by itself. */
export const refusalLines = (message: string): string => `EAL: Error - exiting with code: 1\n  Cause: ${message}`;
