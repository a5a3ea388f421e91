/** What a port asks of its device while it runs: which packets it gets, in which queue, and how (virtio 1.2 §5.1.6.5). */

import { ErrorCode, VirtioError } from '../errors.js';
import {
  ControlAck,
  ControlClass,
  controlCommandFeatures,
  controlCommandName,
  GuestOffloadBit,
  GuestOffloadsCommand,
  guestOffloadsOf,
  MacCommand,
  MqCommand,
  NotfCoalCommand,
  RxCommand,
  VlanCommand,
  virtioNetCtrlCoal,
} from '../spec/control.js';
import { type Feature, type FeatureSet, featureName } from '../spec/features.js';
import { MAC_BYTES, receiveqIndex, transmitqIndex, virtioNetConfig } from '../spec/net-config.js';
import { isPowerOfTwo } from '../units.js';
import { CONTROL_DATA_BYTES, type ControlAnswer } from './control-queue.js';
import {
  type CoalescingSettings,
  coalescingData,
  macTablesData,
  offloadsData,
  queueCoalescingData,
  queueData,
  type RssSettings,
  readCoalescing,
  rssData,
  switchData,
  vlanData,
} from './control-requests.js';
import type { Negotiation } from './negotiation.js';

/** A mode that devices have with CTRL_RX_EXTRA; what is refused here is refused whatever else is set, but for promiscuous. */
export const receiveModes = {
  allUnicast: RxCommand.ALLUNI,
  noMulticast: RxCommand.NOMULTI,
  noUnicast: RxCommand.NOUNI,
  noBroadcast: RxCommand.NOBCAST,
} as const;
export type ReceiveMode = keyof typeof receiveModes;

/** What a device can do of RSS. */
export interface RssLimits {
  readonly maxKeyBytes: number;
  readonly maxTableEntries: number;
  /** Mask of `HashType`. */
  readonly hashTypes: number;
}

/** Which of a device's queues: all receive queues, all transmit queues, or one of them. */
export interface CoalescedQueues {
  readonly direction: 'rx' | 'tx';
  /** All unless given. */
  readonly pair?: number | undefined;
}

/** The device, as far as commands need it. */
export interface CommandedDevice {
  readonly address: string;
  readonly queuePairs: number;
  /** Of the last start; undefined while the port is not started. */
  readonly live: Negotiation | undefined;
  /** The device's address is another one from here on. */
  setMacAddress(address: Uint8Array): void;
  readConfig(offset: number, bytes: number): Promise<Uint8Array>;
  /** Resolves to the ack byte, and the result where `resultBytes` were asked for. */
  command(commandClass: number, command: number, data: Uint8Array, resultBytes?: number): Promise<ControlAnswer>;
  /** Does it after whatever the port is doing. */
  inTurn<T>(work: () => Promise<T>): Promise<T>;
}

const VLAN_IDENTIFIERS = 4096;
const U32_MAX = 0xffff_ffff;

/**
 * Settings of a port's device. Each call resolves when the device has done it; the settings are made again at each start,
 * so that they outlive a stop and a recovery.
 *
 * All calls fail with WRONG_STATE while the port is not started, UNSUPPORTED without the feature that they need,
 * REQUEST_REFUSED where the device says no, TIMEOUT where it says nothing: the control queue is not used any more then,
 * and packets flow all the same. What failed is not made again.
 */
export class PortControl {
  readonly #device: CommandedDevice;
  readonly #modes = new Map<number, boolean>();
  /** By their text; the port's own is not among them. */
  readonly #addresses = new Map<string, Uint8Array>();
  readonly #vlans = new Set<number>();
  readonly #coalescing = new Map<string, readonly [queues: CoalescedQueues, settings: CoalescingSettings]>();
  #ownAddress: Uint8Array | undefined;
  #rss: RssSettings | undefined;
  #offloads: readonly Feature[] | undefined;
  /** The mode that stands in for a table that does not fit. */
  #stoodInBy: number | undefined;

  constructor(device: CommandedDevice) {
    this.#device = device;
  }

  get promiscuous(): boolean {
    return this.#modes.get(RxCommand.PROMISC) ?? false;
  }
  get allMulticast(): boolean {
    return this.#modes.get(RxCommand.ALLMULTI) ?? false;
  }
  /** Addresses that were added, in the order of that. */
  get macAddresses(): readonly Uint8Array[] {
    return [...this.#addresses.values()].map((address) => address.slice());
  }
  /** Whether the device did not take so many addresses, and passes all of a kind instead. */
  get passesMoreAddresses(): boolean {
    return this.#stoodInBy !== undefined;
  }
  /** VLANs that were turned on, ascending. */
  get vlans(): readonly number[] {
    return [...this.#vlans].sort((a, b) => a - b);
  }
  /** What `setRss` has set. */
  get rss(): RssSettings | undefined {
    return this.#rss;
  }

  /** Receives all packets, whatever they are for. Needs CTRL_RX. */
  async setPromiscuous(isOn: boolean): Promise<void> {
    await this.#setMode(RxCommand.PROMISC, isOn);
  }
  /** Receives the packets of all groups. Needs CTRL_RX. */
  async setAllMulticast(isOn: boolean): Promise<void> {
    await this.#setMode(RxCommand.ALLMULTI, isOn);
  }
  /** Turns one of the other modes on or off. Needs CTRL_RX_EXTRA. */
  async setReceiveMode(mode: ReceiveMode, isOn: boolean): Promise<void> {
    await this.#setMode(receiveModes[mode], isOn);
  }

  /** Takes another address for the port's own. Needs CTRL_MAC_ADDR. @throws VirtioError INVALID_ARGUMENT for one that is no station's */
  async setMacAddress(address: Uint8Array): Promise<void> {
    checkAddress(address);
    check((address[0]! & 1) === 0, 'a port has the address of one station', address);
    const own = address.slice();
    await this.#device.inTurn(async () => {
      await this.#sendAddress(own);
      this.#ownAddress = own;
    });
  }

  /** Receives packets for one more address, of a station or a group. Needs CTRL_RX. */
  async addMacAddress(address: Uint8Array): Promise<void> {
    checkAddress(address);
    await this.#changeAddresses((addresses) => addresses.set(textOf(address), address.slice()));
  }
  /** Receives no more packets for an address that was added. Needs CTRL_RX. */
  async removeMacAddress(address: Uint8Array): Promise<void> {
    checkAddress(address);
    await this.#changeAddresses((addresses) => addresses.delete(textOf(address)));
  }

  /** Receives the packets of a VLAN, 0 to 4095, or no more. Needs CTRL_VLAN, which is accepted with `vlanFilter`. */
  async setVlan(identifier: number, isOn: boolean): Promise<void> {
    check(
      Number.isInteger(identifier) && identifier >= 0 && identifier < VLAN_IDENTIFIERS,
      `a VLAN has a number from 0 to ${VLAN_IDENTIFIERS - 1}`,
      identifier,
    );
    await this.#device.inTurn(async () => {
      await this.#send(ControlClass.VLAN, isOn ? VlanCommand.ADD : VlanCommand.DEL, vlanData(identifier));
      if (isOn) this.#vlans.add(identifier);
      else this.#vlans.delete(identifier);
    });
  }

  /** Resolves to what the device can do of RSS. Needs RSS. */
  async rssLimits(): Promise<RssLimits> {
    return await this.#device.inTurn(() => this.#readRssLimits());
  }

  /**
   * Has packets find their receive queue by a hash of their addresses and ports. Needs RSS, which is accepted with more
   * queues than one. @throws VirtioError INVALID_ARGUMENT for what the device cannot do
   */
  async setRss(settings: RssSettings): Promise<void> {
    const copy = { ...settings, key: settings.key.slice(), table: [...settings.table] };
    await this.#device.inTurn(async () => {
      await this.#sendRss(copy);
      this.#rss = copy;
    });
  }

  /** Turns those accepted offloads on that are named, and all others off. Needs CTRL_GUEST_OFFLOADS. */
  async setGuestOffloads(offloads: readonly Feature[]): Promise<void> {
    await this.#device.inTurn(async () => {
      await this.#sendOffloads(offloads);
      this.#offloads = [...offloads];
    });
  }

  /** Says when the device tells of used buffers. Needs NOTF_COAL, of one queue VQ_NOTF_COAL. */
  async setCoalescing(queues: CoalescedQueues, settings: CoalescingSettings): Promise<void> {
    this.#checkPair(queues.pair);
    for (const value of [settings.maxPackets, settings.maxMicroseconds]) {
      check(
        Number.isInteger(value) && value >= 0 && value <= U32_MAX,
        'packets and microseconds are 32-bit numbers',
        value,
      );
    }
    await this.#device.inTurn(async () => {
      await this.#sendCoalescing(queues, settings);
      const { direction, pair } = queues;
      if (pair === undefined) {
        // What was said of single queues is over (virtio 1.3, "Notifications Coalescing").
        for (const [key, [other]] of this.#coalescing) if (other.direction === direction) this.#coalescing.delete(key);
      }
      this.#coalescing.set(`${direction} ${pair ?? 'all'}`, [{ direction, pair }, { ...settings }]);
    });
  }

  /** Resolves to what the device has for one queue. Needs VQ_NOTF_COAL. */
  async coalescing(direction: CoalescedQueues['direction'], pair: number): Promise<CoalescingSettings> {
    this.#checkPair(pair);
    return await this.#device.inTurn(async () => {
      const data = queueData(queueIndex(direction, pair));
      const { NOTF_COAL } = ControlClass;
      return readCoalescing(await this.#send(NOTF_COAL, NotfCoalCommand.VQ_GET, data, virtioNetCtrlCoal.bytes));
    });
  }

  /** Makes all settings again, on a device that was reset. Part of the port's start, never in turn. */
  async restore(): Promise<void> {
    this.#stoodInBy = undefined;
    for (const [mode, isOn] of this.#modes) await this.#send(ControlClass.RX, mode, switchData(isOn));
    if (this.#ownAddress !== undefined) await this.#sendAddress(this.#ownAddress);
    if (this.#addresses.size > 0) await this.#sendAddresses(this.macAddresses);
    for (const identifier of this.#vlans) await this.#send(ControlClass.VLAN, VlanCommand.ADD, vlanData(identifier));
    if (this.#rss !== undefined) await this.#sendRss(this.#rss);
    if (this.#offloads !== undefined) await this.#sendOffloads(this.#offloads);
    for (const [queues, settings] of this.#coalescing.values()) await this.#sendCoalescing(queues, settings);
  }

  async #setMode(mode: number, isOn: boolean): Promise<void> {
    await this.#device.inTurn(async () => {
      // It stays on while it stands in for a table.
      if (isOn || mode !== this.#stoodInBy) await this.#send(ControlClass.RX, mode, switchData(isOn));
      else this.#accepted(ControlClass.RX, mode);
      this.#modes.set(mode, isOn);
    });
  }

  async #sendAddress(address: Uint8Array): Promise<void> {
    await this.#send(ControlClass.MAC, MacCommand.ADDR_SET, address);
    this.#device.setMacAddress(address);
  }

  async #changeAddresses(change: (addresses: Map<string, Uint8Array>) => void): Promise<void> {
    await this.#device.inTurn(async () => {
      const changed = new Map(this.#addresses);
      change(changed);
      await this.#sendAddresses([...changed.values()]);
      this.#addresses.clear();
      for (const [text, address] of changed) this.#addresses.set(text, address);
    });
  }

  /** Sets the tables; where they do not fit, passes all packets, or those of all groups where the groups alone are too many. */
  async #sendAddresses(addresses: readonly Uint8Array[]): Promise<void> {
    const data = macTablesData(addresses);
    const fits = data.length <= CONTROL_DATA_BYTES;
    this.#accepted(ControlClass.MAC, MacCommand.TABLE_SET);
    const ack = fits ? await this.#ack(ControlClass.MAC, MacCommand.TABLE_SET, data) : ControlAck.ERR;
    const isOnlyGroups = addresses.every((address) => (address[0]! & 1) !== 0);
    const needed = ack === ControlAck.OK ? undefined : isOnlyGroups ? RxCommand.ALLMULTI : RxCommand.PROMISC;
    const before = this.#stoodInBy;
    if (needed !== undefined) await this.#send(ControlClass.RX, needed, switchData(true));
    this.#stoodInBy = needed;
    if (before !== undefined && before !== needed && this.#modes.get(before) !== true)
      await this.#send(ControlClass.RX, before, switchData(false));
  }

  async #readRssLimits(): Promise<RssLimits> {
    this.#accepted(ControlClass.MQ, MqCommand.RSS_CONFIG);
    const view = new DataView(new ArrayBuffer(virtioNetConfig.bytes));
    const { rss_max_key_size, rss_max_indirection_table_length, supported_hash_types } = virtioNetConfig.fields;
    for (const { offset, bytes } of [rss_max_key_size, rss_max_indirection_table_length, supported_hash_types]) {
      new Uint8Array(view.buffer).set(await this.#device.readConfig(offset, bytes), offset);
    }
    const config = virtioNetConfig.read(view);
    return {
      maxKeyBytes: config.rss_max_key_size,
      maxTableEntries: config.rss_max_indirection_table_length,
      hashTypes: config.supported_hash_types,
    };
  }

  /** "A driver MUST …" each of these (virtio 1.2 §5.1.6.5.7.1). */
  async #sendRss(settings: RssSettings): Promise<void> {
    const { key, hashTypes, table, unclassifiedQueue = 0 } = settings;
    const limits = await this.#readRssLimits();
    check(key.length <= limits.maxKeyBytes, `the device takes keys of ${limits.maxKeyBytes} bytes at most`, key.length);
    const isTable = isPowerOfTwo(table.length) && table.length <= limits.maxTableEntries;
    check(isTable, `a table has a power of two of entries, here ${limits.maxTableEntries} at most`, table.length);
    for (const queue of [...table, unclassifiedQueue]) this.#checkPair(queue);
    const isHashed = Number.isInteger(hashTypes) && (hashTypes & ~limits.hashTypes) === 0;
    check(isHashed, `the device has the hash types 0x${limits.hashTypes.toString(16)}`, hashTypes);
    await this.#send(ControlClass.MQ, MqCommand.RSS_CONFIG, rssData(settings, this.#device.queuePairs));
  }

  /** "A driver MUST NOT enable an offload for which the appropriate feature has not been negotiated" (virtio 1.2 §5.1.6.5.8.1). */
  async #sendOffloads(offloads: readonly Feature[]): Promise<void> {
    const features = this.#accepted(ControlClass.GUEST_OFFLOADS, GuestOffloadsCommand.SET);
    const accepted = guestOffloadsOf(features);
    let bits = 0n;
    for (const feature of offloads) {
      const bit = GuestOffloadBit[featureName(feature) as keyof typeof GuestOffloadBit] as number | undefined;
      check(bit !== undefined, `${featureName(feature)} is no offload of packets for the guest`, feature);
      if ((accepted & (1n << BigInt(bit!))) === 0n) throw this.#unsupported([feature], featureName(feature));
      bits |= 1n << BigInt(bit!);
    }
    await this.#send(ControlClass.GUEST_OFFLOADS, GuestOffloadsCommand.SET, offloadsData(bits));
  }

  async #sendCoalescing({ direction, pair }: CoalescedQueues, settings: CoalescingSettings): Promise<void> {
    const { NOTF_COAL } = ControlClass;
    if (pair !== undefined) {
      await this.#send(NOTF_COAL, NotfCoalCommand.VQ_SET, queueCoalescingData(queueIndex(direction, pair), settings));
    } else {
      const command = direction === 'rx' ? NotfCoalCommand.RX_SET : NotfCoalCommand.TX_SET;
      await this.#send(NOTF_COAL, command, coalescingData(settings));
    }
  }

  /** Sends a command that must be done; resolves to its result. */
  async #send(commandClass: number, command: number, data: Uint8Array, resultBytes = 0): Promise<Uint8Array> {
    this.#accepted(commandClass, command);
    const { ack, result } = await this.#device.command(commandClass, command, data, resultBytes);
    if (ack === ControlAck.OK) return result;
    throw new VirtioError(
      ErrorCode.REQUEST_REFUSED,
      `the device at ${this.#device.address} refuses ${controlCommandName(commandClass, command)}`,
      { value: ack, requirement: 'virtio 1.2 §5.1.6.5', advice: 'do without it on this device' },
    );
  }

  async #ack(commandClass: number, command: number, data: Uint8Array): Promise<number> {
    return (await this.#device.command(commandClass, command, data)).ack;
  }

  /** The accepted features, among which is what a command needs. */
  #accepted(commandClass: number, command: number): FeatureSet {
    const { live, address } = this.#device;
    const what = controlCommandName(commandClass, command);
    if (live === undefined) {
      throw new VirtioError(ErrorCode.WRONG_STATE, `${what} needs a device: the port ${address} is not started`, {
        value: what,
        requirement: 'virtio 1.2 §5.1.6.5',
        advice: 'start the port first',
      });
    }
    const needed = controlCommandFeatures(commandClass, command);
    if (!needed.some((feature) => live.features.has(feature))) throw this.#unsupported(needed, what);
    return live.features;
  }

  #unsupported(needed: readonly number[], what: string): VirtioError {
    const names = needed.map(featureName).join(' or ');
    const outcome = this.#device.live?.outcomes.find(({ feature }) => needed.includes(feature));
    const why = outcome?.explanation ?? 'nobody offers it, and this port did not ask for it';
    return new VirtioError(ErrorCode.UNSUPPORTED, `${what} needs ${names}: ${why}`, {
      value: names,
      requirement: 'virtio 1.2 §5.1.6.5',
      advice: 'turn the feature on at the other side, or do without it',
    });
  }

  #checkPair(pair: number | undefined): void {
    const { queuePairs } = this.#device;
    const isThere = pair === undefined || (Number.isInteger(pair) && pair >= 0 && pair < queuePairs);
    check(isThere, `the port has queues 0 to ${queuePairs - 1}`, pair);
  }
}

const queueIndex = (direction: CoalescedQueues['direction'], pair: number): number =>
  direction === 'rx' ? receiveqIndex(pair) : transmitqIndex(pair);

const textOf = (address: Uint8Array): string => Buffer.from(address).toString('hex');

function checkAddress(address: Uint8Array): void {
  const isAddress = address.length === MAC_BYTES && address.some((byte) => byte !== 0);
  check(isAddress, `an address has ${MAC_BYTES} bytes, not all of them zero`, address);
}

function check(isSound: boolean, rule: string, value: unknown): void {
  if (isSound) return;
  throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${rule}, not ${String(value)}`, {
    value: value ?? 'nothing',
    requirement: 'virtio 1.2 §5.1.6.5',
    advice: 'look at what the device can do before it is asked for it',
  });
}
