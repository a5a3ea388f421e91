/** The front-end's end of the back-end channel: takes requests, answers them or not. */

import * as assert from 'uvu/assert';
import { native } from '../../native/index.js';
import type { FakeFrontend } from './vhost-user-frontend.js';
import { Id, NEED_REPLY, type RawMessage, RawPeer, REPLY, u64s, VERSION } from './vhost-user-raw.js';

/** Requests of a back-end, as the document numbers them. */
export const BackendId = { IOTLB: 1, CONFIG_CHANGE: 2, VRING_CALL: 4, VRING_ERR: 5 } as const;

export const IOTLB_MISS = 1;
export const IOTLB_UPDATE = 2;
export const IOTLB_INVALIDATE = 3;

/** An IOTLB message's 32 bytes. */
export function iotlbBytes(iova: bigint, size: bigint, user: bigint, permissions: number, type: number): Buffer {
  return Buffer.concat([u64s(iova, size, user), Buffer.from([permissions, type, 0, 0, 0, 0, 0, 0])]);
}

export class ChannelPeer extends RawPeer {
  /** Gives the back-end one end of a new channel and keeps the other. */
  static async open(frontend: FakeFrontend): Promise<ChannelPeer> {
    const [mine, theirs] = native.socketPair();
    try {
      await frontend.do(Id.SET_BACKEND_REQ_FD, undefined, [theirs]);
    } finally {
      native.closeFd(theirs);
    }
    return new ChannelPeer(mine);
  }

  /** The next request, which must be `request`; acknowledged with `answer` where that is asked for. */
  async take(request: number, answer = 0n): Promise<RawMessage> {
    const received = await this.receive();
    assert.ok(received !== undefined, `the channel ended where request ${request} should come`);
    assert.is(received.request, request, 'request');
    assert.is(received.fds.length, 0);
    assert.is(received.flags & ~NEED_REPLY, VERSION, 'flags');
    if ((received.flags & NEED_REPLY) !== 0) {
      await this.send(request, u64s(answer), { flags: VERSION | REPLY });
    }
    return received;
  }

  /** The next miss. */
  async miss(answer = 0n): Promise<{ iova: bigint; permissions: number }> {
    const { payload } = await this.take(BackendId.IOTLB, answer);
    assert.is(payload.length, 32);
    assert.is(payload[25], IOTLB_MISS, 'type');
    return { iova: payload.readBigUInt64LE(0), permissions: payload[24]! };
  }

  /** Fails where a request is there that nobody has taken. */
  async expectQuiet(milliseconds = 50): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
    const received = native.receive(this.fd, new Uint8Array(12));
    assert.is(received, undefined, 'nothing should have come over the channel');
  }
}
