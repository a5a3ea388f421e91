/** What a guest's commands in the control queue do (virtio 1.2 §5.1.6.5); on the poll thread. */

import {
  AnnounceCommand,
  ControlClass,
  controlCommandFeatures,
  GuestOffloadsCommand,
  guestOffloadsOf,
  MacCommand,
  MqCommand,
  NotfCoalCommand,
  RxCommand,
  StatsCommand,
  VlanCommand,
  virtioNetCtrlCoal,
  virtioNetCtrlCoalVq,
  virtioNetCtrlGuestOffloads,
  virtioNetCtrlHdr,
  virtioNetCtrlMac,
  virtioNetCtrlMq,
  virtioNetCtrlVlan,
} from '../spec/control.js';
import { Feature, FeatureSet } from '../spec/features.js';
import { MAC_BYTES, NetStatus, virtioNetConfig } from '../spec/net-config.js';
import { ADDRESS_TABLE_MOST } from './address-table.js';
import { CONTROL_SCRATCH_BYTES, type ControlCommand, RESULT_AT } from './control-command.js';
import { answerStatsGet, answerStatsQuery } from './control-statistics.js';
import { readHashConfig, readRssConfig } from './control-steering.js';
import type { RingCounters } from './counters.js';
import type { NotificationCoalescing } from './notification-coalescing.js';
import { type ReceiveFilter, VLAN_IDENTIFIERS } from './receive-filter.js';
import type { ReceiveSteering } from './receive-steering.js';

/** Where the second table is read to. */
const SECOND_TABLE_AT = ADDRESS_TABLE_MOST * MAC_BYTES;

/** What the commands act on. */
export interface ControlTarget {
  readonly filter: ReceiveFilter;
  /** The live configuration space, in memory shared with the front door. */
  readonly config: Uint8Array;
  readonly steering: ReceiveSteering;
  readonly coalescing: NotificationCoalescing;
  readonly counters: RingCounters;
  /** Queue pairs of the device. */
  readonly queuePairs: number;
  /** Turns that many pairs on. */
  setActivePairs(pairs: number): void;
  /** What of the accepted offloads packets for the guest may make use of: bits as `GuestOffloadBit` numbers them. */
  setGuestOffloads(offloads: bigint): void;
}

/** Does what is known and negotiated; everything else is refused. */
export class ControlCommands {
  readonly #target: ControlTarget;
  #features = FeatureSet.EMPTY;
  #executed = 0;
  #succeeded = 0;

  constructor(target: ControlTarget) {
    this.#target = target;
  }

  setFeatures(features: FeatureSet): void {
    this.#features = features;
  }

  /** Does what the command asks for; false when it is unknown, malformed, or of a feature that was not accepted. */
  execute(command: ControlCommand): boolean {
    const isDone = this.#execute(command);
    this.#executed += 1;
    if (isDone) this.#succeeded += 1;
    return isDone;
  }

  #execute(command: ControlCommand): boolean {
    if (command.bytes < virtioNetCtrlHdr.bytes || !command.read(0, virtioNetCtrlHdr.bytes, 0)) return false;
    const header = virtioNetCtrlHdr.read(viewOf(command));
    const needed = controlCommandFeatures(header.class, header.command);
    if (!needed.some((feature) => this.#features.has(feature))) return false;
    switch (header.class) {
      case ControlClass.RX:
        return this.#setMode(command, header.command);
      case ControlClass.MAC:
        if (header.command === MacCommand.TABLE_SET) return this.#setTables(command);
        return header.command === MacCommand.ADDR_SET && this.#setAddress(command);
      case ControlClass.VLAN:
        return this.#setVlan(command, header.command);
      case ControlClass.ANNOUNCE:
        return header.command === AnnounceCommand.ACK && this.#endAnnouncement(command);
      case ControlClass.MQ:
        return this.#setMultiqueue(command, header.command);
      case ControlClass.GUEST_OFFLOADS:
        return header.command === GuestOffloadsCommand.SET && this.#setGuestOffloads(command);
      case ControlClass.NOTF_COAL:
        return this.#coalesce(command, header.command);
      case ControlClass.STATS:
        return this.#answerStats(command, header.command);
      default:
        return false;
    }
  }

  /** "The command-specific-data is one byte containing 0 (off) or 1 (on)" (virtio 1.2 §5.1.6.5.1). */
  #setMode(command: ControlCommand, mode: number): boolean {
    if (mode > RxCommand.NOBCAST || !readData(command, 1)) return false;
    const value = command.scratch[0]!;
    if (value > 1) return false;
    this.#target.filter.setMode(mode, value === 1);
    return true;
  }

  /**
   * Two tables, each with its length in front (virtio 1.2 §5.1.6.5.2). Nothing changes unless the whole of it is good; of
   * tables that are too long to keep only the lengths are read.
   */
  #setTables(command: ControlCommand): boolean {
    const first = this.#readTable(command, virtioNetCtrlHdr.bytes, 0);
    if (first === undefined) return false;
    const second = this.#readTable(command, first.end, SECOND_TABLE_AT);
    if (second === undefined || second.end !== command.bytes) return false;
    this.#target.filter.setTables(first.addresses, second.addresses);
    return true;
  }

  /** Reads the table at position `at` to the scratch at `to`; undefined where the command has not got it whole. */
  #readTable(command: ControlCommand, at: number, to: number): Table | undefined {
    const start = at + virtioNetCtrlMac.bytes;
    if (start > command.bytes || !command.read(at, virtioNetCtrlMac.bytes, to)) return undefined;
    const { entries } = virtioNetCtrlMac.read(viewOf(command), to);
    // At most six times 2^32, exact in a number.
    const end = start + entries * MAC_BYTES;
    if (end > command.bytes) return undefined;
    if (entries > ADDRESS_TABLE_MOST) return { addresses: undefined, end };
    if (entries > 0 && !command.read(start, entries * MAC_BYTES, to)) return undefined;
    return { addresses: command.scratch.subarray(to, to + entries * MAC_BYTES), end };
  }

  /**
   * "The device MUST update mac in config space before it consumes the VIRTIO_NET_CTRL_MAC_ADDR_SET command"
   * (virtio 1.2 §5.1.6.5.2.1). A group's address is nobody's own (IEEE 802).
   */
  #setAddress(command: ControlCommand): boolean {
    if (!readData(command, MAC_BYTES) || (command.scratch[0]! & 1) !== 0) return false;
    const address = command.scratch.subarray(0, MAC_BYTES);
    this.#target.config.set(address, virtioNetConfig.fields.mac.offset);
    this.#target.filter.setOwnAddress(address);
    return true;
  }

  #setVlan(command: ControlCommand, what: number): boolean {
    if ((what !== VlanCommand.ADD && what !== VlanCommand.DEL) || !readData(command, virtioNetCtrlVlan.bytes))
      return false;
    const { vlan_id: identifier } = virtioNetCtrlVlan.read(viewOf(command));
    if (identifier >= VLAN_IDENTIFIERS) return false;
    this.#target.filter.setVlan(identifier, what === VlanCommand.ADD);
    return true;
  }

  /** The status bit is cleared before the command is used (virtio 1.2 §5.1.6.5.4); the front door may be setting it. */
  #endAnnouncement(command: ControlCommand): boolean {
    if (command.bytes !== virtioNetCtrlHdr.bytes) return false;
    // The bit is in the lower of the two bytes.
    Atomics.and(this.#target.config, virtioNetConfig.fields.status.offset, ~NetStatus.ANNOUNCE);
    return true;
  }

  /** The last of these commands decides how packets find their queue (virtio 1.2 §5.1.6.5.5, §5.1.6.5.6.4, §5.1.6.5.7). */
  #setMultiqueue(command: ControlCommand, what: number): boolean {
    const { steering, queuePairs } = this.#target;
    if (what === MqCommand.RSS_CONFIG) {
      const config = readRssConfig(command, queuePairs);
      if (config === undefined) return false;
      steering.setTable(config);
      this.#target.setActivePairs(config.pairs);
      return true;
    }
    if (what === MqCommand.HASH_CONFIG) {
      const config = readHashConfig(command);
      if (config !== undefined) steering.setHash(config.hashTypes, config.key);
      return config !== undefined;
    }
    if (what !== MqCommand.VQ_PAIRS_SET || !readData(command, virtioNetCtrlMq.bytes)) return false;
    const { virtqueue_pairs: pairs } = virtioNetCtrlMq.read(viewOf(command));
    if (pairs < 1 || pairs > queuePairs) return false;
    steering.setAutomatic();
    this.#target.setActivePairs(pairs);
    return true;
  }

  /** "A driver MUST NOT enable an offload for which the appropriate feature has not been negotiated" (virtio 1.2 §5.1.6.5.8). */
  #setGuestOffloads(command: ControlCommand): boolean {
    if (!readData(command, virtioNetCtrlGuestOffloads.bytes)) return false;
    const { offloads } = virtioNetCtrlGuestOffloads.read(viewOf(command));
    if ((offloads & ~guestOffloadsOf(this.#features)) !== 0n) return false;
    this.#target.setGuestOffloads(offloads);
    return true;
  }

  #coalesce(command: ControlCommand, what: number): boolean {
    const { coalescing, queuePairs } = this.#target;
    const rings = 2 * queuePairs;
    if (what === NotfCoalCommand.TX_SET || what === NotfCoalCommand.RX_SET) {
      if (!readData(command, virtioNetCtrlCoal.bytes)) return false;
      const { max_packets, max_usecs } = virtioNetCtrlCoal.read(viewOf(command));
      for (let ring = what === NotfCoalCommand.RX_SET ? 0 : 1; ring < rings; ring += 2)
        coalescing.set(ring, max_packets, max_usecs);
      return true;
    }
    if (what === NotfCoalCommand.VQ_SET) {
      if (!readData(command, virtioNetCtrlCoalVq.bytes)) return false;
      const { vq_index: ring, max_packets, max_usecs } = virtioNetCtrlCoalVq.read(viewOf(command));
      if (ring >= rings) return false;
      coalescing.set(ring, max_packets, max_usecs);
      return true;
    }
    if (what !== NotfCoalCommand.VQ_GET || !readData(command, COALESCING_QUEUE_BYTES)) return false;
    const { vq_index: ring } = virtioNetCtrlCoalVq.read(viewOf(command));
    if (ring >= rings || command.resultRoom < virtioNetCtrlCoal.bytes) return false;
    const values = { max_packets: coalescing.maxPackets(ring), max_usecs: coalescing.maxUsecs(ring) };
    virtioNetCtrlCoal.write(viewOf(command), values, RESULT_AT);
    command.resultBytes = virtioNetCtrlCoal.bytes;
    return true;
  }

  #answerStats(command: ControlCommand, what: number): boolean {
    const { counters, queuePairs } = this.#target;
    let result: number | undefined;
    if (what === StatsCommand.QUERY && command.bytes === virtioNetCtrlHdr.bytes) result = answerStatsQuery(command);
    else if (what === StatsCommand.GET) {
      const counts = { all: this.#executed, good: this.#succeeded };
      // Without MQ and RSS a guest knows of one pair (virtio 1.2 §5.1.2).
      const knowsOfPairs = this.#features.has(Feature.MQ) || this.#features.has(Feature.RSS);
      result = answerStatsGet(command, counters, knowsOfPairs ? queuePairs : 1, counts);
    }
    if (result === undefined || result > command.resultRoom) return false;
    command.resultBytes = result;
    return true;
  }
}

/** Of VQ_GET: the queue alone. */
const COALESCING_QUEUE_BYTES = virtioNetCtrlCoalVq.bytes - virtioNetCtrlCoal.bytes;

interface Table {
  /** Undefined when there are more than are kept. */
  readonly addresses: Uint8Array | undefined;
  /** Position behind the table. */
  readonly end: number;
}

/** Reads what follows the header to the scratch; false unless it is exactly so many bytes. */
const readData = (command: ControlCommand, bytes: number): boolean =>
  command.bytes === virtioNetCtrlHdr.bytes + bytes && command.read(virtioNetCtrlHdr.bytes, bytes, 0);

const viewOf = ({ scratch }: ControlCommand): DataView =>
  new DataView(scratch.buffer, scratch.byteOffset, CONTROL_SCRATCH_BYTES);
