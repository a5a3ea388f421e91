/** What the switches of several poll threads share, so that they are one: a ring from each to each other. */

import { ErrorCode, VirtioError } from '../../errors.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { PACKET_RING_BYTES, PacketRing } from './packet-ring.js';

/** Memory of a fabric: made by the control plane, the same in the options of all members. */
export type SwitchFabric = SharedArrayBuffer;

const MAX_THREADS = 64;
/** The number of places, then for each whether a thread has it, and what work its members do. */
const PLACES = 0;
const FIRST_PLACE = 1;
const FIRST_WORK = FIRST_PLACE + MAX_THREADS;
const HEADER_BYTES = 4096;

/**
 * Memory for a switch whose members are on up to so many threads.
 *
 * @throws VirtioError INVALID_ARGUMENT unless that is 1 to 64
 */
export function createSwitchFabric(threads: number): SwitchFabric {
  if (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS) {
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `a switch has 1 to ${MAX_THREADS} threads, not ${threads}`, {
      value: threads,
    });
  }
  const memory = new SharedArrayBuffer(HEADER_BYTES + threads * threads * PACKET_RING_BYTES);
  new Int32Array(memory)[PLACES] = threads;
  return memory;
}

/** A thread's way to one of the others. */
export class FabricLink {
  readonly toPeer: PacketRing;
  readonly fromPeer: PacketRing;
  readonly #places: Int32Array;
  readonly #peer: number;

  constructor(memory: SwitchFabric, pool: PacketPool, own: number, peer: number) {
    this.#places = new Int32Array(memory, 0, HEADER_BYTES / 4);
    this.#peer = peer;
    const threads = this.#places[PLACES]!;
    const ring = (from: number, to: number): PacketRing =>
      new PacketRing(memory, HEADER_BYTES + (from * threads + to) * PACKET_RING_BYTES, pool);
    this.toPeer = ring(own, peer);
    this.fromPeer = ring(peer, own);
  }

  /** Whether there is a thread with members at the other end. */
  get isUsed(): boolean {
    return Atomics.load(this.#places, FIRST_PLACE + this.#peer) !== 0;
  }

  /** Work that some of the members there do, as `PacketFlag`s. */
  get takesWork(): number {
    return Atomics.load(this.#places, FIRST_WORK + this.#peer);
  }
}

/** A thread's place in a fabric. */
export class FabricPlace {
  readonly links: readonly FabricLink[];
  readonly #places: Int32Array;
  readonly #number: number;

  /** @throws VirtioError NO_RESOURCES when more threads than the fabric is for have members */
  constructor(memory: SwitchFabric, pool: PacketPool) {
    this.#places = new Int32Array(memory, 0, HEADER_BYTES / 4);
    const threads = this.#places[PLACES]!;
    let number = 0;
    while (number < threads && Atomics.compareExchange(this.#places, FIRST_PLACE + number, 0, 1) !== 0) number += 1;
    if (number === threads) {
      throw new VirtioError(ErrorCode.NO_RESOURCES, `members of the switch are on more than ${threads} threads`, {
        value: threads,
        advice: 'make the fabric for as many threads as there are',
      });
    }
    this.#number = number;
    this.links = Array.from({ length: threads }, (_, peer) => peer)
      .filter((peer) => peer !== number)
      .map((peer) => new FabricLink(memory, pool, number, peer));
    // What was for the thread that had the place before is for nobody.
    for (const { fromPeer } of this.links) fromPeer.clear();
  }

  /** Tells the others what work members here do. */
  setWork(work: number): void {
    Atomics.store(this.#places, FIRST_WORK + this.#number, work);
  }

  /** Leaves the place to another thread. */
  close(): void {
    this.setWork(0);
    Atomics.store(this.#places, FIRST_PLACE + this.#number, 0);
  }
}
