/** The socket of SET_BACKEND_REQ_FD, the front-end's end: a back-end that tells of a new configuration. */

import { ErrorCode, VirtioError } from '../errors.js';
import { backendRequests, HeaderFlag, payloads } from '../spec/vhost-user.js';
import { checkFds, decodePayload, encodePayload } from '../wire/codec.js';
import type { Message } from '../wire/message.js';
import type { OwnedFd } from '../wire/owned-fd.js';
import { VhostUserSocket } from '../wire/vhost-user-socket.js';

const DONE = 0n;
const REFUSED = 1n;

/**
 * Listens for CONFIG_CHANGE_MSG and refuses every other request: what they are for was not negotiated.
 *
 * A back-end that breaks the protocol here loses this channel, and the connection goes on. It is read no quicker than its
 * requests are answered, so that a flood of them holds up nobody else.
 */
export class ConfigChanges {
  readonly #socket: VhostUserSocket;
  #onChange: (() => void) | undefined;
  /** Something was told before anybody listened. */
  #isUnheard = false;

  /** Takes the descriptor over. */
  constructor(fd: OwnedFd) {
    this.#socket = new VhostUserSocket(fd.release());
    void this.#receive();
  }

  /** Called whenever the configuration may be another one; at once when it was told of before. */
  set onChange(listener: () => void) {
    this.#onChange = listener;
    if (this.#isUnheard) listener();
    this.#isUnheard = false;
  }

  /** Idempotent. */
  close(): void {
    this.#onChange = undefined;
    this.#socket.close();
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        const message = await this.#socket.next();
        if (message === undefined) break;
        try {
          await this.#take(message);
        } finally {
          message.close();
        }
      }
    } catch {
      // What it says here is over; the connection itself tells whether there is a back-end at all.
    }
    this.#socket.close();
  }

  async #take(message: Message): Promise<void> {
    if (message.isReply) {
      throw new VirtioError(ErrorCode.PROTOCOL_VIOLATION, 'an answer came where nothing was asked', {
        value: message.request,
        requirement: 'vhost-user "Back-end communication"',
      });
    }
    const { id, payload } = backendRequests.CONFIG_CHANGE_MSG;
    const isChange = message.request === id;
    if (isChange) {
      decodePayload(payload, message.payload);
      checkFds('none', undefined, message.fdCount);
      if (this.#onChange === undefined) this.#isUnheard = true;
      else this.#onChange();
    }
    if (!message.needsReply) return;
    const answer = encodePayload(payloads.u64, { u64: isChange ? DONE : REFUSED });
    await this.#socket.send(message.request, HeaderFlag.REPLY, answer);
  }
}
