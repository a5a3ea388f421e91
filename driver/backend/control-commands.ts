/** What a guest's commands in the control queue do (virtio 1.2 §5.1.6.5); on the poll thread. */

import {
  AnnounceCommand,
  ControlClass,
  controlCommandFeatures,
  MacCommand,
  MqCommand,
  RxCommand,
  VlanCommand,
  virtioNetCtrlHdr,
  virtioNetCtrlMac,
  virtioNetCtrlMq,
  virtioNetCtrlVlan,
} from '../spec/control.js';
import { FeatureSet } from '../spec/features.js';
import { MAC_BYTES, NetStatus, virtioNetConfig } from '../spec/net-config.js';
import { ADDRESS_TABLE_MOST } from './address-table.js';
import { type ReceiveFilter, VLAN_IDENTIFIERS } from './receive-filter.js';

/** Bytes of a command that can be read at a time: two tables of addresses, both full. */
export const CONTROL_SCRATCH_BYTES = 4096;
/** Where the second table is read to. */
const SECOND_TABLE_AT = ADDRESS_TABLE_MOST * MAC_BYTES;

/** A command as it lies in guest memory, header included. */
export interface ControlCommand {
  /** As the chain has them: any number, none of them read yet. */
  readonly bytes: number;
  /** Where parts of it are read to: `CONTROL_SCRATCH_BYTES`. */
  readonly scratch: Uint8Array;
  /** Copies `count` bytes from position `from` on to the scratch at `to`; false where they are not in guest memory. */
  read(from: number, count: number, to: number): boolean;
}

/** What the commands act on. */
export interface ControlTarget {
  readonly filter: ReceiveFilter;
  /** The live configuration space, in memory shared with the front door. */
  readonly config: Uint8Array;
  /** Turns that many pairs on; false where there are not so many. */
  setQueuePairs(pairs: number): boolean;
}

/** Does what is known and negotiated; everything else is refused. */
export class ControlCommands {
  readonly #target: ControlTarget;
  #features = FeatureSet.EMPTY;

  constructor(target: ControlTarget) {
    this.#target = target;
  }

  setFeatures(features: FeatureSet): void {
    this.#features = features;
  }

  /** Does what the command asks for; false when it is unknown, malformed, or of a feature that was not accepted. */
  execute(command: ControlCommand): boolean {
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
        if (header.command !== MqCommand.VQ_PAIRS_SET || !readData(command, virtioNetCtrlMq.bytes)) return false;
        return this.#target.setQueuePairs(virtioNetCtrlMq.read(viewOf(command)).virtqueue_pairs);
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
}

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
