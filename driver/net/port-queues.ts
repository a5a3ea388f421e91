/** The queues of a port on the control plane: their memory, and how the device is told of them. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { DmaMemory } from '../memory/dma-memory.js';
import { ControlAck, ControlClass, MqCommand, virtioNetCtrlMq } from '../spec/control.js';
import { ETHERNET_HEADER_BYTES, MAX_PACKET_BYTES } from '../spec/ethernet.js';
import { Feature, type FeatureSet } from '../spec/features.js';
import { controlqIndex, MTU_MIN, receiveqIndex, transmitqIndex, virtioNetConfig } from '../spec/net-config.js';
import { netHeaderBytes } from '../spec/net-header.js';
import type { Transport } from '../spec/transport.js';
import type { PortSession } from './attached-port.js';
import { CONTROL_BUFFER_BYTES, ControlQueue } from './control-queue.js';
import {
  placeRing,
  type QueueHandle,
  type RingPlace,
  resizeRing,
  ringAddresses,
  ringBytes,
  ringViews,
} from './queue-handle.js';

const CONTROL_RING_SIZE = 64;
const PAGE = 4096;
const VLAN_TAG_BYTES = 4;

/** Bytes of ring memory that a port needs. */
export const ringMemoryBytes = (queuePairs: number, ringSize: number): number =>
  queuePairs * (ringBytes(ringSize, false) + ringBytes(ringSize, true)) +
  ringBytes(CONTROL_RING_SIZE, false) +
  CONTROL_BUFFER_BYTES +
  PAGE;

interface PairPlaces {
  readonly rx: RingPlace;
  readonly tx: RingPlace;
}

/** Places the rings once, and sets them up at each start. */
export class PortQueues {
  readonly #memory: DmaMemory;
  readonly #pairs: readonly PairPlaces[];
  readonly #controlRing: RingPlace;
  readonly #controlBuffer: number;
  readonly #keepNumBuffers: boolean;
  #control: ControlQueue | undefined;
  #session: PortSession | undefined;

  constructor(memory: DmaMemory, queuePairs: number, ringSize: number, keepNumBuffers: boolean) {
    this.#memory = memory;
    this.#pairs = Array.from({ length: queuePairs }, () => ({
      rx: placeRing(memory, ringSize, false),
      tx: placeRing(memory, ringSize, true),
    }));
    this.#controlRing = placeRing(memory, CONTROL_RING_SIZE, false);
    this.#keepNumBuffers = keepNumBuffers;
    this.#controlBuffer = memory.take(CONTROL_BUFFER_BYTES, 64);
  }

  /** The queues as the polling threads need them. */
  get session(): PortSession | undefined {
    return this.#session;
  }

  /**
   * Clears the rings and tells the device of them (virtio 1.2 §4.1.5.1.3), before DRIVER_OK.
   *
   * @throws VirtioError FEATURE_MISSING when the device has fewer queues than are wanted
   */
  async setUp(transport: Transport, features: FeatureSet): Promise<void> {
    const maxPairs = await this.#maxPairs(transport, features);
    const rx: QueueHandle[] = [];
    const tx: QueueHandle[] = [];
    const maxFrameBytes = await frameLimit(transport, features);
    for (const [pair, places] of this.#pairs.entries()) {
      rx.push(await this.#setUpQueue(transport, receiveqIndex(pair), places.rx, features, maxFrameBytes));
      tx.push(await this.#setUpQueue(transport, transmitqIndex(pair), places.tx, features, maxFrameBytes));
    }
    if (features.has(Feature.CTRL_VQ) && transport.controlCommand === undefined) {
      const handle = await this.#setUpQueue(
        transport,
        controlqIndex(maxPairs),
        this.#controlRing,
        features,
        maxFrameBytes,
      );
      this.#control = new ControlQueue(this.#memory, handle.ring, this.#controlBuffer, handle.doorbell);
    }
    this.#session = { rx, tx };
  }

  /** Turns the pairs beyond the first on (virtio 1.2 §5.1.6.5.5), after DRIVER_OK. */
  async enablePairs(transport: Transport): Promise<void> {
    const pairs = this.#pairs.length;
    if (pairs === 1) return;
    const data = new Uint8Array(virtioNetCtrlMq.bytes);
    virtioNetCtrlMq.write(new DataView(data.buffer), { virtqueue_pairs: pairs });
    const ack = await this.#command(transport, ControlClass.MQ, MqCommand.VQ_PAIRS_SET, data);
    if (ack !== ControlAck.OK) {
      throw new VirtioError(
        ErrorCode.REQUEST_REFUSED,
        `the device at ${transport.address} refuses ${pairs} queue pairs`,
        {
          value: ack,
          requirement: 'virtio 1.2 §5.1.6.5.5',
        },
      );
    }
  }

  closeControl(): void {
    this.#control?.close();
    this.#control = undefined;
  }

  async #command(transport: Transport, commandClass: number, command: number, data: Uint8Array): Promise<number> {
    if (transport.controlCommand !== undefined) return await transport.controlCommand(commandClass, command, data);
    if (this.#control !== undefined) return await this.#control.command(commandClass, command, data);
    throw new VirtioError(ErrorCode.FEATURE_MISSING, `the device at ${transport.address} has no control queue`);
  }

  async #setUpQueue(
    transport: Transport,
    index: number,
    place: RingPlace,
    features: FeatureSet,
    maxFrameBytes: number,
  ): Promise<QueueHandle> {
    const largest = await transport.queueSizeMax(index);
    if (largest === 0) {
      throw new VirtioError(ErrorCode.DEVICE_BROKEN, `the device at ${transport.address} has no queue ${index}`, {
        value: index,
        requirement: 'virtio 1.2 §4.1.5.1.3',
      });
    }
    // A power of two at most as large as either side wants; the memory is enough for the larger.
    const size = Math.min(place.size, 2 ** Math.floor(Math.log2(largest)));
    if (transport.kind === 'pci-legacy' && size !== largest) {
      throw new VirtioError(
        ErrorCode.INVALID_ARGUMENT,
        `queue ${index} of the legacy device at ${transport.address} has ${largest} entries, and cannot have ${size}`,
        { value: size, requirement: 'virtio 1.2 §4.1.5.1.3.1', advice: `use a ring size of ${largest}` },
      );
    }
    const ring = resizeRing(place, size);
    const indirect = features.has(Feature.INDIRECT_DESC) ? place.indirect : undefined;
    ringViews(this.#memory, ring).clear();
    const doorbell = await transport.setUpQueue(index, ringAddresses(this.#memory, ring));
    return {
      index,
      ring: { ...ring, indirect },
      headerBytes: netHeaderBytes(features),
      eventIndex: features.has(Feature.EVENT_IDX),
      mergeable: features.has(Feature.MRG_RXBUF),
      keepNumBuffers: this.#keepNumBuffers,
      maxFrameBytes,
      doorbell,
    };
  }

  async #maxPairs(transport: Transport, features: FeatureSet): Promise<number> {
    let maxPairs = 1;
    if (features.has(Feature.MQ)) {
      const { max_virtqueue_pairs: field } = virtioNetConfig.fields;
      const config = await transport.readConfig(field.offset, field.bytes);
      maxPairs = new DataView(config.buffer, config.byteOffset).getUint16(0, true);
    }
    const queues = await transport.queueCount();
    const wanted = this.#pairs.length;
    const available = Math.min(maxPairs, Math.floor(queues / 2));
    if (wanted > available) {
      throw new VirtioError(
        ErrorCode.FEATURE_MISSING,
        `${wanted} queue pairs are wanted and the device at ${transport.address} has ${available}`,
        { value: wanted, advice: `use ${available} here, or give the device more queues` },
      );
    }
    return maxPairs;
  }
}

/** Longest frame the device takes: its MTU with Ethernet header and one VLAN tag (virtio 1.2 §5.1.4.2). */
async function frameLimit(transport: Transport, features: FeatureSet): Promise<number> {
  if (!features.has(Feature.MTU)) return MAX_PACKET_BYTES;
  const { mtu } = virtioNetConfig.fields;
  const config = await transport.readConfig(mtu.offset, mtu.bytes);
  const value = new DataView(config.buffer, config.byteOffset).getUint16(0, true);
  // "The device MUST set mtu to between 68 and 65535 inclusive": what does not is no limit (virtio 1.2 §5.1.4.1).
  return value < MTU_MIN ? MAX_PACKET_BYTES : value + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;
}
