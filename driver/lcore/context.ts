/** What a poll thread is given. */

import type { StopFlag } from './command-word.js';

export interface LcoreContext {
  /** Looked at once a loop turn; answers the control plane's requests. */
  readonly stop: StopFlag;
  /** What `Lcore.start` was given. */
  readonly data: unknown;
  /** The processor the thread is pinned to. */
  readonly cpu: number | undefined;
  /** Sends something to the control plane (structured clone). Not for packet paths. */
  emit(event: unknown): void;
}
