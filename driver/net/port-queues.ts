/** The queues of a port on the control plane: their memory, and how the device is told of them. */

import { ErrorCode, VirtioError } from '../errors.js';
import type { DmaMemory } from '../memory/dma-memory.js';
import { AnnounceCommand, ControlAck, ControlClass, MqCommand, virtioNetCtrlMq } from '../spec/control.js';
import { Feature, type FeatureSet } from '../spec/features.js';
import { controlqIndex, receiveqIndex, transmitqIndex } from '../spec/net-config.js';
import { netHeaderBytes } from '../spec/net-header.js';
import type { Transport } from '../spec/transport.js';
import type { PortSession } from './attached-port.js';
import { CONTROL_BUFFER_BYTES, type ControlAnswer, ControlQueue } from './control-queue.js';
import type { DeviceLimits } from './device-limits.js';
import { hasOffloads, type PortOffloads, rxOffloads, txOffloads } from './port-offloads.js';
import type { PortOptions } from './port-options.js';
import {
  clearRing,
  placeRing,
  type QueueHandle,
  type RingPlace,
  resizeRing,
  ringAddresses,
  ringBytes,
} from './queue-handle.js';

/** Room for the control queues there are: a legacy device's cannot be made smaller. */
const CONTROL_RING_SIZE = 1024;
const PAGE = 4096;
/** Descriptors of a command. */
const CONTROL_CHAIN = 2;

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

type QueueOptions = Pick<PortOptions, 'keepNumBuffers' | 'offloads'>;

/** Places the rings once, and sets them up at each start. */
export class PortQueues {
  readonly #memory: DmaMemory;
  readonly #pairs: readonly PairPlaces[];
  readonly #controlRing: RingPlace;
  readonly #controlBuffer: number;
  readonly #keepNumBuffers: boolean;
  readonly #offloads: PortOffloads | undefined;
  #control: ControlQueue | undefined;

  constructor(memory: DmaMemory, queuePairs: number, ringSize: number, options: QueueOptions) {
    this.#memory = memory;
    this.#pairs = Array.from({ length: queuePairs }, () => ({
      rx: placeRing(memory, ringSize, false),
      tx: placeRing(memory, ringSize, true),
    }));
    this.#controlRing = placeRing(memory, CONTROL_RING_SIZE, false);
    this.#keepNumBuffers = options.keepNumBuffers ?? false;
    this.#offloads = hasOffloads(options.offloads) ? options.offloads : undefined;
    this.#controlBuffer = memory.take(CONTROL_BUFFER_BYTES, 64);
  }

  /**
   * Clears the rings and tells the device of them (virtio 1.2 §4.1.5.1.3), before DRIVER_OK; returns them as the polling
   * threads need them.
   *
   * @param interrupts whether receive queues have the interrupts that the transport was asked for
   * @throws VirtioError DEVICE_BROKEN when a queue is not there, INVALID_ARGUMENT for a size that a legacy one has not
   */
  async setUp(
    transport: Transport,
    features: FeatureSet,
    { maxPairs, maxFrameBytes }: DeviceLimits,
    interrupts: boolean,
  ): Promise<PortSession> {
    const rx: QueueHandle[] = [];
    const tx: QueueHandle[] = [];
    for (const [pair, places] of this.#pairs.entries()) {
      const index = receiveqIndex(pair);
      const receiver = await this.#setUpQueue(transport, index, places.rx, features, maxFrameBytes);
      rx.push({
        ...receiver,
        offloads: this.#offloads && rxOffloads(this.#offloads, features),
        interruptFd: interrupts ? transport.interruptFd?.(index) : undefined,
      });
      const transmitter = await this.#setUpQueue(transport, transmitqIndex(pair), places.tx, features, maxFrameBytes);
      tx.push({ ...transmitter, offloads: this.#offloads && txOffloads(features) });
    }
    if (features.has(Feature.CTRL_VQ) && transport.controlCommand === undefined) {
      const handle = await this.#setUpQueue(
        transport,
        controlqIndex(maxPairs),
        this.#controlRing,
        features,
        maxFrameBytes,
      );
      checkControlRing(transport, handle.ring.size);
      this.#control = new ControlQueue(this.#memory, handle.ring, this.#controlBuffer, handle.doorbell);
    }
    return { rx, tx };
  }

  /**
   * Sets a queue up that was reset, over a ring of up to `ringSize` entries (virtio 1.2 §2.6.1.2); the others run.
   *
   * @throws VirtioError INVALID_ARGUMENT for more entries than there is memory for, and as `setUp`
   */
  async setUpAgain(
    transport: Transport,
    features: FeatureSet,
    queue: QueueHandle,
    ringSize: number,
  ): Promise<QueueHandle> {
    const { index, maxFrameBytes, offloads, interruptFd } = queue;
    const { rx, tx } = this.#pairs[index >>> 1]!;
    const place = (index & 1) === 0 ? rx : tx;
    if (ringSize > place.size) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `queue ${index} has room for ${place.size} entries`, {
        value: ringSize,
        advice: 'open the port with a larger ring size, and make its queues smaller then',
      });
    }
    const handle = await this.#setUpQueue(transport, index, { ...place, size: ringSize }, features, maxFrameBytes);
    return {
      ...handle,
      offloads,
      interruptFd: interruptFd === undefined ? undefined : transport.interruptFd?.(index),
    };
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
          advice: 'use fewer queue pairs',
        },
      );
    }
  }

  /** Tells the device that its wish to be announced was heard (virtio 1.2 §5.1.6.5.4). Fails as it refuses. */
  async acknowledgeAnnouncement(transport: Transport): Promise<void> {
    const ack = await this.#command(transport, ControlClass.ANNOUNCE, AnnounceCommand.ACK, new Uint8Array(0));
    if (ack === ControlAck.OK) return;
    throw new VirtioError(
      ErrorCode.REQUEST_REFUSED,
      `the device at ${transport.address} refuses VIRTIO_NET_CTRL_ANNOUNCE_ACK`,
      {
        value: ack,
        requirement: 'virtio 1.2 §5.1.6.5.4',
      },
    );
  }

  /** Sends a command that has a result of so many bytes. @throws VirtioError FEATURE_MISSING where there is no control queue */
  async exchange(
    transport: Transport,
    commandClass: number,
    command: number,
    data: Uint8Array,
    resultBytes: number,
  ): Promise<ControlAnswer> {
    if (this.#control !== undefined) return await this.#control.exchange(commandClass, command, data, resultBytes);
    // A transport that serves commands itself has none with a result.
    return { ack: await this.#command(transport, commandClass, command, data), result: new Uint8Array(resultBytes) };
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
        advice: 'use another device, or fewer queues',
      });
    }
    const packed = features.has(Feature.RING_PACKED);
    // At most as large as either side wants, and a power of two unless it is packed (virtio 1.2 §2.7, §2.8.10.1).
    const most = Math.min(place.size, largest);
    const size = packed ? most : 2 ** Math.floor(Math.log2(most));
    if (transport.kind === 'pci-legacy' && size !== largest) {
      throw new VirtioError(
        ErrorCode.INVALID_ARGUMENT,
        `queue ${index} of the legacy device at ${transport.address} has ${largest} entries, and cannot have ${size}`,
        { value: size, requirement: 'virtio 1.2 §4.1.5.1.3.1', advice: `use a ring size of ${largest}` },
      );
    }
    const ring = resizeRing(place, size, packed);
    const indirect = features.has(Feature.INDIRECT_DESC) ? place.indirect : undefined;
    clearRing(this.#memory, ring);
    const doorbell = await transport.setUpQueue(index, ringAddresses(this.#memory, ring));
    return {
      index,
      ring: { ...ring, indirect },
      headerBytes: netHeaderBytes(features),
      eventIndex: features.has(Feature.EVENT_IDX),
      inOrder: features.has(Feature.IN_ORDER),
      mergeable: features.has(Feature.MRG_RXBUF),
      keepNumBuffers: this.#keepNumBuffers,
      maxFrameBytes,
      doorbell,
    };
  }
}

/** A command is a chain of two: what the device reads, and the ack that it writes (virtio 1.2 §5.1.6.5, §2.7.4.2). */
function checkControlRing({ address }: Transport, size: number): void {
  if (size >= CONTROL_CHAIN) return;
  throw new VirtioError(
    ErrorCode.DEVICE_BROKEN,
    `the control queue of the device at ${address} has ${size} entry, and a command takes ${CONTROL_CHAIN}`,
    {
      value: size,
      requirement: 'virtio 1.2 §5.1.6.5',
      advice: 'use another device, or have this one offer no CTRL_VQ',
    },
  );
}
