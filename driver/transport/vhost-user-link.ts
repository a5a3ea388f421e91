/** How a vhost-user front-end comes to its connection: it connects, or it listens; once, or again and again. */

import { ErrorCode, VirtioError } from '../errors.js';
import { bounded, type WaitOptions } from '../wire/bounded.js';
import type { OwnedFd } from '../wire/owned-fd.js';
import { BackOff, connectUntilThere } from '../wire/reconnect.js';
import { connectUnix, UnixListener } from '../wire/unix-endpoint.js';
import { VhostUserSession } from './vhost-user-session.js';

export class VhostUserLink {
  readonly #path: string;
  readonly #listener: UnixListener | undefined;
  readonly #backOff = new BackOff();

  private constructor(path: string, listener: UnixListener | undefined) {
    this.#path = path;
    this.#listener = listener;
  }

  /** @throws VirtioError as `UnixListener.listen` does */
  static open(path: string, isServer: boolean): VhostUserLink {
    return new VhostUserLink(path, isServer ? UnixListener.listen(path) : undefined);
  }

  /**
   * The first session. A client tries once; a server waits for a back-end, and for the next one if that fails.
   *
   * @param answers how long to wait for each answer; `wait` for the whole
   */
  first(queuePairs: number, answers: WaitOptions, wait: WaitOptions): Promise<VhostUserSession> {
    if (this.#listener === undefined) {
      return VhostUserSession.establish(connectUnix(this.#path), queuePairs, answers);
    }
    const stop = new AbortController();
    const signal = wait.signal === undefined ? stop.signal : AbortSignal.any([stop.signal, wait.signal]);
    return bounded(`a back-end on ${this.#path}`, wait, (settle) => {
      const established = this.#untilEstablished(queuePairs, { ...answers, signal }, isFatal);
      established.then((session) => (signal.aborted ? session.close() : settle.resolve(session)), settle.reject);
      return () => stop.abort();
    });
  }

  /**
   * A session after one that ended, as soon as there is one.
   *
   * @param wasUsed whether the last one came to anything; one that did not is followed by a pause
   * @throws VirtioError ABORTED
   */
  async again(queuePairs: number, answers: WaitOptions, wasUsed: boolean): Promise<VhostUserSession> {
    if (wasUsed) this.#backOff.reset();
    else await this.#backOff.wait(answers.signal);
    return this.#untilEstablished(queuePairs, answers, () => false);
  }

  /** Removes the socket file, where there is one. Idempotent. */
  close(): void {
    this.#listener?.close();
  }

  /** Connects and shakes hands until both succeed: a connection may be made to a back-end that is just going away. */
  async #untilEstablished(
    queuePairs: number,
    answers: WaitOptions,
    isFinal: (error: VirtioError) => boolean,
  ): Promise<VhostUserSession> {
    for (;;) {
      const socket = await this.#connect(answers.signal);
      try {
        return await VhostUserSession.establish(socket, queuePairs, answers);
      } catch (error) {
        if (!(error instanceof VirtioError) || error.code === ErrorCode.ABORTED || isFinal(error)) throw error;
      }
      await this.#backOff.wait(answers.signal);
    }
  }

  #connect(signal: AbortSignal | undefined): Promise<OwnedFd> {
    return this.#listener === undefined
      ? connectUntilThere(this.#path, this.#backOff, signal)
      : this.#listener.accept({ signal });
  }
}

/** What waiting for another back-end will not mend, and the caller should hear of. */
const isFatal = (error: VirtioError): boolean =>
  error.code === ErrorCode.FEATURE_MISSING || error.code === ErrorCode.PROTOCOL_VIOLATION;
