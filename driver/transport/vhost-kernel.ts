/**
 * A driver's way into a kernel: the kernel's vhost_net is the back-end, a tap the network behind it.
 *
 * It is what DPDK calls the exceptional path. One open /dev/vhost-net and one queue of the tap serve a queue pair. The kernel
 * does not poll: it sleeps until a kick, and kicks are asked for by the rings as usual.
 */

import { type FdPoll, native, PollEvent } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import { libc } from '../pci/libc.js';
import { caps } from '../spec/caps.js';
import { ControlAck, ControlClass, MacCommand, MqCommand, virtioNetCtrlMq } from '../spec/control.js';
import { Feature, FeatureSet } from '../spec/features.js';
import { NetStatus, virtioNetConfig } from '../spec/net-config.js';
import { netHeaderBytes } from '../spec/net-header.js';
import type { Doorbell, MemoryRange } from '../spec/pci-function.js';
import { splitRingParts } from '../spec/ring.js';
import { Status } from '../spec/status.js';
import type { InterruptPlan, OfferedFeatures, QueueAddresses, Transport, TransportEvent } from '../spec/transport.js';
import { TUN_PATH, VHOST_NET_PATH, VhostNetRing } from '../spec/vhost-kernel.js';
import type { Iova } from '../units.js';
import { closeAll, OwnedFd } from '../wire/owned-fd.js';
import { checkOffered, readOwnConfig } from './front-end.js';
import { KernelMemory } from './vhost-kernel-memory.js';
import { VhostNet } from './vhost-kernel-net.js';
import {
  checkOptions,
  KERNEL_FEATURES,
  OWN_FEATURES,
  type VhostKernelTransportOptions,
} from './vhost-kernel-options.js';
import { checkInterfaceName, KernelTap } from './vhost-kernel-tap.js';
import { isUnicastMac, randomMac } from './vhost-user-options.js';

const INTERFACE_GONE = 'its interface was deleted';

interface Ring {
  readonly kick: OwnedFd;
  readonly call: OwnedFd;
  isStarted: boolean;
}

export class VhostKernelTransport implements Transport {
  readonly kind = 'vhost-kernel';
  readonly address: string;
  onEvent: ((event: TransportEvent) => void) | undefined;
  /** Serves what a device with a control queue would: MQ and MAC (virtio 1.2 §5.1.6.5). */
  readonly controlCommand = async (commandClass: number, command: number, data: Uint8Array): Promise<number> => {
    this.#checkLive();
    if (commandClass === ControlClass.MQ && command === MqCommand.VQ_PAIRS_SET) return this.#setPairs(data);
    if (commandClass === ControlClass.MAC && command === MacCommand.ADDR_SET) return this.#setMac(data);
    return ControlAck.ERR;
  };

  readonly #nets: readonly VhostNet[];
  readonly #tap: KernelTap;
  readonly #memory = new KernelMemory();
  readonly #rings = new Map<number, Ring>();
  readonly #config = new Uint8Array(virtioNetConfig.bytes);
  /** Signalled by the kernel when a ring is broken; one for all rings, because the answer is a reset anyway. */
  readonly #err: OwnedFd;
  readonly #errPoll: FdPoll;
  readonly #offered: FeatureSet;
  /** Whether the kernel knows the memory as it is. */
  #isInformed = false;
  #accepted = FeatureSet.EMPTY;
  #status = 0;
  /** Why nothing works any more, or undefined. */
  #gone: string | undefined;
  #isClosed = false;

  private constructor(nets: readonly VhostNet[], tap: KernelTap, macAddress: Uint8Array) {
    this.address = `vhost-kernel:${tap.name}`;
    this.#nets = nets;
    this.#tap = tap;
    this.#offered = nets
      .map((net) => net.features())
      .reduce((common, features) => common.intersection(features), KERNEL_FEATURES);
    this.#config.set(macAddress);
    virtioNetConfig.write(new DataView(this.#config.buffer), {
      status: NetStatus.LINK_UP,
      max_virtqueue_pairs: nets.length,
    });
    this.#err = new OwnedFd(native.createEventFd(0));
    this.#errPoll = native.pollFd(this.#err.fd, PollEvent.READABLE, () => {
      native.drainEventFd(this.#err.fd);
      this.#emit({ type: 'needs-reset' });
    });
    this.#errPoll.unref();
  }

  /**
   * Opens the kernel's back-end and the tap `name`, which is made where it is not there and goes with the transport then.
   * With an empty name the kernel chooses one.
   *
   * @throws VirtioError INVALID_ARGUMENT; NOT_FOUND without the module vhost_net or tun; PERMISSION_DENIED; IN_USE when
   *   another program has the tap; WRONG_KIND when the interface is no tap or has one queue; NO_RESOURCES
   */
  static open(name: string, options: VhostKernelTransportOptions): VhostKernelTransport {
    const { queuePairs, macAddress, paths = { vhostNet: VHOST_NET_PATH, tun: TUN_PATH } } = options;
    checkInterfaceName(name);
    checkOptions(options);
    const calls = options.libc ?? libc();
    const nets: VhostNet[] = [];
    let tap: KernelTap | undefined;
    try {
      for (let pair = 0; pair < queuePairs; pair++) nets.push(VhostNet.open(calls, paths.vhostNet));
      tap = KernelTap.open(calls, { name, queues: queuePairs, path: paths.tun });
      return new VhostKernelTransport(nets, tap, macAddress ?? randomMac());
    } catch (error) {
      tap?.close();
      for (const net of nets) net.close();
      throw error;
    }
  }

  async reset(): Promise<void> {
    this.#stopRings();
    if (this.#tap.isGone) this.#gone ??= INTERFACE_GONE;
    this.#status = 0;
    this.#accepted = FeatureSet.EMPTY;
    this.#checkLive();
  }

  async status(): Promise<number> {
    this.#checkLive();
    return this.#status;
  }

  /** With DRIVER_OK, starts the first pair of rings: the others wait for VQ_PAIRS_SET (virtio 1.2 §5.1.6.5.6). */
  async setStatus(status: number): Promise<void> {
    this.#checkLive();
    if ((status & ~this.#status & Status.DRIVER_OK) !== 0) {
      this.#usePairs(1);
      this.#tap.connect();
    }
    this.#status = status;
  }

  async offered(): Promise<OfferedFeatures> {
    this.#checkLive();
    const mq = this.#nets.length > 1 ? FeatureSet.of(Feature.MQ) : FeatureSet.EMPTY;
    return { device: this.#offered, transport: OWN_FEATURES.union(mq) };
  }

  async accept(features: FeatureSet): Promise<void> {
    const offered = await this.offered();
    checkOffered(this.address, features, offered);
    for (const net of this.#nets) net.setFeatures(features.intersection(offered.device));
    this.#tap.setHeaderBytes(netHeaderBytes(features));
    this.#accepted = features;
  }

  async readConfig(offset: number, bytes: number): Promise<Uint8Array> {
    this.#checkLive();
    return readOwnConfig(this.#config, offset, bytes);
  }

  async queueCount(): Promise<number> {
    return 2 * this.#nets.length;
  }

  async queueSizeMax(index: number): Promise<number> {
    return index < (await this.queueCount()) ? caps.ringSize : 0;
  }

  async shareMemory(address: Iova, memory: MemoryRange): Promise<void> {
    this.#memory.add(address, memory);
    this.#isInformed = false;
    if (this.#rings.size > 0) this.#inform();
  }

  /** The kernel forgets the memory before it is unmapped here. */
  async unshareMemory(address: Iova, bytes: number): Promise<void> {
    const rest = this.#memory.without(address, bytes);
    for (const net of this.#nets) net.setMemory(rest);
    this.#memory.remove(address);
  }

  async setUpQueue(index: number, addresses: QueueAddresses): Promise<Doorbell> {
    this.#checkLive();
    const net = this.#nets[index >> 1];
    if (net === undefined || index < 0) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${this.address} has no queue ${index}`, { value: index });
    }
    if (this.#rings.has(index)) {
      throw new VirtioError(ErrorCode.WRONG_STATE, `queue ${index} is set up already`, { advice: 'reset first' });
    }
    const { size } = addresses;
    const parts = splitRingParts(size);
    // The kernel takes the rings' addresses as they are in this process; what is in the descriptors it translates.
    const places = {
      size,
      desc: this.#memory.userAddress(addresses.desc, parts.desc.bytes),
      driver: this.#memory.userAddress(addresses.driver, parts.driver.bytes),
      device: this.#memory.userAddress(addresses.device, parts.device.bytes),
    };
    this.#inform();
    const ring = createRing();
    this.#rings.set(index, ring);
    net.setUpRing(ringOf(index), places, { kick: ring.kick.fd, call: ring.call.fd, err: this.#err.fd });
    return { kind: 'eventfd', fd: ring.kick.fd };
  }

  /** Every queue has an eventfd. That the interface is gone is not among what the kernel tells. */
  async requestInterrupts(): Promise<InterruptPlan> {
    return { kind: 'eventfd', tellsOfConfig: false };
  }

  /** The eventfd that the kernel signals when it has used buffers of a queue; the transport's, good until `reset`. */
  interruptFd(index: number): number | undefined {
    return this.#rings.get(index)?.call.fd;
  }

  /** Looks whether the interface is still there: the kernel does not tell. */
  checkEvents(): void {
    if (this.#gone !== undefined || this.#isClosed || !this.#tap.isGone) return;
    this.#gone = INTERFACE_GONE;
    this.#emit({ type: 'gone', reason: INTERFACE_GONE });
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    try {
      this.#stopRings();
    } finally {
      for (const net of this.#nets) net.close();
      this.#tap.close();
      this.#memory.close();
      this.#errPoll.close();
      this.#err.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #checkLive(): void {
    if (this.#isClosed) throw new VirtioError(ErrorCode.WRONG_STATE, `${this.address} is closed`);
    if (this.#gone === undefined) return;
    throw new VirtioError(ErrorCode.PEER_GONE, `${this.address} does not work any more: ${this.#gone}`, {
      advice: 'close the port and open it again',
    });
  }

  /** What a listener throws is its own fault. */
  #emit(event: TransportEvent): void {
    try {
      this.onEvent?.(event);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  #inform(): void {
    if (this.#isInformed) return;
    for (const net of this.#nets) net.setMemory(this.#memory.regions);
    this.#isInformed = true;
  }

  /** Starts the rings of the first `pairs` pairs and stops the others. */
  #usePairs(pairs: number): void {
    for (const pair of this.#nets.keys()) {
      const isUsed = pair < pairs;
      const [receiveq, transmitq] = [2 * pair, 2 * pair + 1];
      const isChanged = this.#rings.get(receiveq)?.isStarted === !isUsed;
      if (isChanged && isUsed) this.#tap.attach(pair);
      this.#useRing(receiveq, isUsed);
      this.#useRing(transmitq, isUsed);
      if (isChanged && !isUsed) this.#tap.detach(pair);
    }
  }

  #useRing(index: number, isUsed: boolean): void {
    const ring = this.#rings.get(index);
    if (ring === undefined || ring.isStarted === isUsed) return;
    const net = this.#nets[index >> 1]!;
    if (isUsed) net.start(ringOf(index), this.#tap.fd(index >> 1));
    else net.stop(ringOf(index));
    ring.isStarted = isUsed;
  }

  /** Takes the rings from the kernel: it touches nothing of them once this returns. */
  #stopRings(): void {
    try {
      for (const index of this.#rings.keys()) this.#useRing(index, false);
      for (const net of this.#nets) net.releaseEvents();
    } catch (error) {
      // The memory is about to be used for something else: what cannot be stopped is ended.
      for (const net of this.#nets) net.close();
      this.#gone ??= this.#tap.isGone ? INTERFACE_GONE : `the kernel did not stop its rings: ${String(error)}`;
      throw error;
    } finally {
      this.#tap.disconnect();
      for (const ring of this.#rings.values()) closeAll([ring.kick, ring.call]);
      this.#rings.clear();
    }
  }

  #setPairs(data: Uint8Array): number {
    if (!this.#accepted.has(Feature.MQ) || data.length !== virtioNetCtrlMq.bytes) return ControlAck.ERR;
    const pairs = virtioNetCtrlMq.read(new DataView(data.buffer, data.byteOffset, data.byteLength)).virtqueue_pairs;
    const isSetUp = Array.from({ length: 2 * pairs }, (_, index) => index).every((index) => this.#rings.has(index));
    if (pairs < 1 || pairs > this.#nets.length || !isSetUp) return ControlAck.ERR;
    this.#usePairs(pairs);
    return ControlAck.OK;
  }

  #setMac(data: Uint8Array): number {
    if (!this.#accepted.has(Feature.CTRL_MAC_ADDR) || !isUnicastMac(data)) return ControlAck.ERR;
    this.#config.set(data);
    return ControlAck.OK;
  }
}

/** Which ring of its /dev/vhost-net a queue is. */
const ringOf = (index: number): number => ((index & 1) === 0 ? VhostNetRing.RX : VhostNetRing.TX);

function createRing(): Ring {
  const kick = new OwnedFd(native.createEventFd(0));
  try {
    return { kick, call: new OwnedFd(native.createEventFd(0)), isStarted: false };
  } catch (error) {
    kick.close();
    throw error;
  }
}
