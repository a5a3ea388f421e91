/** A guest made by hand that sends commands, and has buffers in every receiveq. */

import * as assert from 'uvu/assert';
import type { BackendPort } from '../../driver/backend/ports/backend-port.js';
import type { SharedState } from '../../driver/backend/shared-state.js';
import type { PacketPool } from '../../driver/memory/packet-pool.js';
import { ControlAck } from '../../driver/spec/control.js';
import { Feature, type FeatureSet } from '../../driver/spec/features.js';
import { controlqIndex, receiveqIndex } from '../../driver/spec/net-config.js';
import { netHeaderBytes } from '../../driver/spec/net-header.js';
import { DescFlag } from '../../driver/spec/ring.js';
import { BUFFERS, GUEST_FEATURES, HandGuest, HandThread, type RawRing, REGION_B } from './hand-guest.js';

const COMMAND = REGION_B;
const ACK = REGION_B + 65_536n;
const UNTOUCHED = 0xee;
const ROOM = 4096;
const BUFFER_BYTES = 2048;
export const BUFFERS_A_QUEUE = 32;

export const COMMAND_FEATURES: FeatureSet = GUEST_FEATURES.with(
  Feature.MAC,
  Feature.STATUS,
  Feature.CTRL_VQ,
  Feature.MQ,
  Feature.RSS,
  Feature.CTRL_GUEST_OFFLOADS,
  Feature.NOTF_COAL,
  Feature.VQ_NOTF_COAL,
  Feature.DEVICE_STATS,
);

/** Numbers as little-endian bytes. */
export const le = (bytes: number, ...values: readonly (number | bigint)[]): number[] =>
  values.flatMap((value) =>
    Array.from({ length: bytes }, (_, at) => Number((BigInt(value) >> BigInt(8 * at)) & 0xffn)),
  );

/** A packet as it arrived. */
export interface Arrived {
  readonly header: Uint8Array;
  readonly packet: Uint8Array;
}

export class CommandedGuest {
  readonly hand: HandGuest;
  readonly thread = new HandThread();
  readonly control: RawRing;
  readonly #headerBytes: number;
  readonly #rx: RawRing[] = [];

  constructor(features = COMMAND_FEATURES, pairs = 3, port?: (pool: PacketPool) => BackendPort, shared?: SharedState) {
    this.#headerBytes = netHeaderBytes(features);
    this.hand = new HandGuest(this.thread, { features, queuePairs: pairs, port, shared });
    for (let pair = 0; pair < pairs; pair++) {
      const ring = this.hand.start(receiveqIndex(pair), 64);
      this.#rx.push(ring);
      for (let id = 0; id < BUFFERS_A_QUEUE; id++)
        ring.describe(id, this.#bufferOf(pair, id), BUFFER_BYTES, DescFlag.WRITE);
      ring.offer(...Array.from({ length: BUFFERS_A_QUEUE }, (_, id) => id));
    }
    this.control = this.hand.start(controlqIndex(pairs), 16);
  }

  /** Sends a command; returns the ack, and what was written behind it. */
  command(bytes: ArrayLike<number>, room = ROOM): { readonly ack: number; readonly result: Uint8Array } {
    this.hand.write(COMMAND, bytes);
    this.hand.fill(ACK, ROOM + 2, UNTOUCHED);
    this.control.describe(0, COMMAND, bytes.length, DescFlag.NEXT, 1);
    // The ack and the beginning of the result in pieces of their own.
    this.control.describe(1, ACK, 1, DescFlag.WRITE | (room > 0 ? DescFlag.NEXT : 0), 2);
    this.control.describe(2, ACK + 1n, Math.min(room, 3), DescFlag.WRITE | DescFlag.NEXT, 3);
    this.control.describe(3, ACK + 4n, Math.max(0, room - 3), DescFlag.WRITE);
    this.control.offer(0);
    this.hand.poll(1);
    const [used, ...others] = this.control.takeUsed();
    assert.ok(used !== undefined && others.length === 0 && used.id === 0 && used.length > 0, 'one answer');
    const answer = this.hand.read(ACK, used!.length + 1);
    assert.is(answer[used!.length], UNTOUCHED, 'no more is written than is said');
    return { ack: answer[0]!, result: answer.slice(1, used!.length) };
  }

  /** Sends a command that must be done; returns its result. */
  set(bytes: ArrayLike<number>): Uint8Array {
    const { ack, result } = this.command(bytes);
    assert.is(ack, ControlAck.OK, `${Array.from(bytes).slice(0, 12)}`);
    return result;
  }
  /** Sends a command that must be refused. */
  refuses(bytes: ArrayLike<number>, what = `${Array.from(bytes).slice(0, 12)}`): void {
    const { ack, result } = this.command(bytes);
    assert.is(ack, ControlAck.ERR, what);
    assert.is(result.length, 0, what);
  }

  /** Has the port send packets; returns what arrives in each receiveq. */
  receive(packets: readonly Uint8Array[]): Arrived[][] {
    this.hand.port.queued.push(...packets);
    this.hand.poll(8);
    return this.arrived();
  }

  /** What has arrived in each receiveq since the last look; the buffers are offered again. */
  arrived(): Arrived[][] {
    return this.#rx.map((_, pair) => this.arrivedIn(pair));
  }
  arrivedIn(pair: number): Arrived[] {
    const ring = this.#rx[pair]!;
    return ring.takeUsed().map(({ id, length }) => {
      const bytes = this.hand.read(this.#bufferOf(pair, id), length);
      ring.offer(id);
      return { header: bytes.slice(0, this.#headerBytes), packet: bytes.slice(this.#headerBytes) };
    });
  }

  #bufferOf(pair: number, id: number): bigint {
    return BUFFERS + BigInt((pair * BUFFERS_A_QUEUE + id) * BUFFER_BYTES);
  }

  [Symbol.dispose](): void {
    this.hand[Symbol.dispose]();
    assert.is(this.thread.pool.available, this.thread.pool.size, 'every packet is freed');
    this.thread[Symbol.dispose]();
  }
}
