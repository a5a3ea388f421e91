/** The driver's queues and a guest's device over the same rings, on one thread: each moves when the test says so. */

import { RingCounters, type RingStatistics } from '../../driver/backend/counters.js';
import type { DeviceEvent, RingSetup } from '../../driver/backend/device-model.js';
import { GuestDevice } from '../../driver/backend/guest-device.js';
import { Burst } from '../../driver/memory/burst.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';
import {
  openRing,
  placeRing,
  type QueueHandle,
  ringAddresses,
  ringBytes,
  ringViews,
} from '../../driver/net/queue-handle.js';
import { RxQueue } from '../../driver/net/rx-queue.js';
import { QueueCounters, type QueueStatistics } from '../../driver/net/statistics.js';
import { TxQueue } from '../../driver/net/tx-queue.js';
import { Feature, type FeatureSet } from '../../driver/spec/features.js';
import { netHeaderBytes } from '../../driver/spec/net-header.js';
import { HandThread, RecordingPort } from './hand-guest.js';

export interface WireOptions {
  readonly features: FeatureSet;
  readonly ringSize: number;
  /** Bytes of the driver's buffers, and of the host's. */
  readonly bufferBytes: number;
  readonly hostBufferBytes: number;
}

const HEADROOM = 64;
const POOL_SIZE = 1024;

export class Wire {
  readonly pool: PacketPool;
  readonly rx: RxQueue;
  readonly tx: TxQueue;
  readonly host: HandThread;
  readonly device: GuestDevice;
  readonly port: RecordingPort;
  readonly events: DeviceEvent[] = [];
  readonly #memory: DmaMemory;
  readonly #view: PacketView;
  readonly #queueCounters = QueueCounters.create(2);
  readonly #ringCounters = RingCounters.create(3);
  readonly #segments = new Uint32Array(512);

  constructor({ features, ringSize, bufferBytes, hostBufferBytes }: WireOptions) {
    this.#memory = DmaMemory.allocate({
      bytes: 2 * ringBytes(ringSize, true) + POOL_SIZE * bufferBytes + 4096,
      pages: '4K',
    });
    this.pool = PacketPool.create(this.#memory, { size: POOL_SIZE, bufferBytes, headroom: HEADROOM });
    this.#view = new PacketView(this.pool);
    this.host = new HandThread(POOL_SIZE, hostBufferBytes);
    this.port = new RecordingPort(this.host.pool);
    const emit = (event: DeviceEvent): void => void this.events.push(event);
    this.device = new GuestDevice(this.host, this.port, 1, this.#ringCounters, emit);
    this.device.setFeatures(features);
    this.device.setMemory([{ ...this.#memory.range, guestAddress: this.#memory.iovas.at(0) }]);
    const [rx, tx] = [0, 1].map((index) => this.#queue(index, ringSize, features)) as [QueueHandle, QueueHandle];
    this.rx = new RxQueue(this.pool, openRing(this.#memory, this.pool, rx), this.#queueCounters.of(0), rx);
    this.tx = new TxQueue(this.pool, openRing(this.#memory, this.pool, tx), this.#queueCounters.of(1), tx);
  }

  #queue(index: number, size: number, features: FeatureSet): QueueHandle {
    const place = placeRing(this.#memory, size, index === 1);
    const indirect = features.has(Feature.INDIRECT_DESC) ? place.indirect : undefined;
    ringViews(this.#memory, place).clear();
    const { desc, driver, device } = ringAddresses(this.#memory, place);
    const fds = { kickFd: undefined, callFd: undefined, errFd: undefined };
    const setup: RingSetup = { size, desc, avail: driver, used: device, base: 0, ...fds };
    this.device.enableRing(index, true);
    this.device.startRing(index, setup);
    return {
      index,
      ring: { ...place, indirect },
      headerBytes: netHeaderBytes(features),
      eventIndex: features.has(Feature.EVENT_IDX),
      mergeable: features.has(Feature.MRG_RXBUF),
      maxFrameBytes: 65_562,
      doorbell: { kind: 'none' },
    };
  }

  get received(): QueueStatistics {
    return this.#queueCounters.read(0);
  }
  /** What the device did with the receiveq. */
  get delivered(): RingStatistics {
    return this.#ringCounters.read(0);
  }

  /** Adds a packet to the burst, in segments of these lengths; false without room. */
  addPacket(burst: Burst, packet: Uint8Array, lengths: readonly number[]): boolean {
    const segments = this.#segments;
    if (burst.count === burst.capacity || !this.pool.allocate(segments, 0, lengths.length)) return false;
    let at = 0;
    for (const [index, length] of lengths.entries()) {
      this.#view.move(segments[index]!).fill(packet.subarray(at, at + length));
      at += length;
      const next = index + 1 < lengths.length ? segments[index + 1]! + 1 : 0;
      this.pool.fields[segments[index]! * PacketField.WORDS + PacketField.NEXT] = next;
    }
    this.pool.fields[segments[0]! * PacketField.WORDS + PacketField.PACKET_LENGTH] = packet.length;
    burst.handles[burst.count++] = segments[0]!;
    return true;
  }

  /** Sends packets, each in segments of its lengths, the device taking turns as often as it needs to. */
  send(packets: readonly Uint8Array[], segmentation: readonly (readonly number[])[]): void {
    const burst = new Burst(this.pool, 32);
    for (let next = 0, turns = 0; next < packets.length || burst.count > 0; turns++) {
      while (next < packets.length && this.addPacket(burst, packets[next]!, segmentation[next]!)) next++;
      this.tx.send(burst);
      this.device.poll();
      if (turns > 10_000) throw new Error(`packet ${next} of ${packets.length} does not go`);
    }
    for (let turn = 0; turn < 20; turn++) this.device.poll();
    this.tx.reclaim();
  }

  /** Receives until nothing more comes. */
  receive(capacity = 32): Uint8Array[] {
    const burst = new Burst(this.pool, capacity);
    const packets: Uint8Array[] = [];
    for (let idle = 0; idle < 4; ) {
      this.device.poll();
      const count = this.rx.receive(burst);
      for (let index = 0; index < burst.count; index++)
        packets.push(this.#view.move(burst.handles[index]!).copyPacket());
      burst.free();
      idle = count > 0 ? 0 : idle + 1;
    }
    return packets;
  }

  [Symbol.dispose](): void {
    this.device.close();
    this.rx.close();
    this.tx.close();
    this.host[Symbol.dispose]();
    this.#memory.close();
  }
}

/** Cuts a length into pieces as long as these, again and again. */
export function cut(length: number, pieces: readonly number[]): number[] {
  const lengths: number[] = [];
  for (let left = length, index = 0; left > 0; index++) {
    const piece = Math.min(left, pieces[index % pieces.length]!);
    lengths.push(piece);
    left -= piece;
  }
  return lengths;
}
