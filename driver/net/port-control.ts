/** What a port asks of its device while it runs: which packets it gets, in which queue, and how (virtio 1.2 §5.1.6.5). */

import { ErrorCode, VirtioError } from '../errors.js';
import { RxCommand } from '../spec/control.js';
import type { Feature } from '../spec/features.js';
import { type CoalescedQueues, Coalescing } from './control-coalescing.js';
import { GuestOffloads } from './control-offloads.js';
import { checkAddress, OwnAddress, ReceiveAddresses, ReceiveModes } from './control-receive.js';
import { type CoalescingSettings, type HashSettings, isGroup, type RssSettings } from './control-requests.js';
import { type CommandedDevice, ControlSender, checkSetting, type KeptSettings } from './control-sender.js';
import { type DeviceStatistics, readDeviceStatistics } from './control-statistics.js';
import { type RssLimits, SteeringSettings } from './control-steering.js';
import { checkVlan, VlanFilter } from './control-vlans.js';

/** A mode that devices have with CTRL_RX_EXTRA; what is refused here is refused whatever else is set, but for promiscuous. */
export const receiveModes = {
  allUnicast: RxCommand.ALLUNI,
  noMulticast: RxCommand.NOMULTI,
  noUnicast: RxCommand.NOUNI,
  noBroadcast: RxCommand.NOBCAST,
} as const;
export type ReceiveMode = keyof typeof receiveModes;

/** Settings of one kind, as `forget` names them. */
export type PortSetting =
  | 'receiveModes'
  | 'macAddress'
  | 'macAddresses'
  | 'vlans'
  /** RSS, or the hashes that are reported. */
  | 'rss'
  | 'guestOffloads'
  | 'coalescing';

/**
 * Settings of a port's device. Each call resolves when the device has done it; the settings are made again at each start,
 * so that they outlive a stop and a recovery. A start fails where the device refuses one, until that is forgotten.
 *
 * All calls fail with WRONG_STATE while the port is not started, UNSUPPORTED without the feature that they need,
 * REQUEST_REFUSED where the device says no, TIMEOUT where it says nothing: the control queue is not used any more then,
 * and packets flow all the same. What failed is not made again.
 */
export class PortControl {
  readonly #device: CommandedDevice;
  readonly #sender: ControlSender;
  readonly #modes: ReceiveModes;
  readonly #ownAddress: OwnAddress;
  readonly #addresses: ReceiveAddresses;
  readonly #vlans: VlanFilter;
  readonly #steering: SteeringSettings;
  readonly #offloads: GuestOffloads;
  readonly #coalescing: Coalescing;
  /** In the order in which they are made again. */
  readonly #kept: Readonly<Record<PortSetting, KeptSettings>>;

  constructor(device: CommandedDevice) {
    const sender = new ControlSender(device);
    this.#device = device;
    this.#sender = sender;
    this.#modes = new ReceiveModes(sender);
    this.#ownAddress = new OwnAddress(sender);
    this.#addresses = new ReceiveAddresses(sender, this.#modes);
    this.#vlans = new VlanFilter(sender);
    this.#steering = new SteeringSettings(sender);
    this.#offloads = new GuestOffloads(sender);
    this.#coalescing = new Coalescing(sender);
    this.#kept = {
      receiveModes: this.#modes,
      macAddress: this.#ownAddress,
      macAddresses: this.#addresses,
      vlans: this.#vlans,
      rss: this.#steering,
      guestOffloads: this.#offloads,
      coalescing: this.#coalescing,
    };
  }

  get promiscuous(): boolean {
    return this.#modes.has(RxCommand.PROMISC);
  }
  get allMulticast(): boolean {
    return this.#modes.has(RxCommand.ALLMULTI);
  }
  /** Addresses that were added, in the order of that. */
  get macAddresses(): readonly Uint8Array[] {
    return this.#addresses.list;
  }
  /** Those of them that are groups. */
  get multicastAddresses(): readonly Uint8Array[] {
    return this.#addresses.list.filter(isGroup);
  }
  /** Whether the device did not take so many addresses, and passes all of a kind instead. */
  get passesMoreAddresses(): boolean {
    return this.#addresses.passesMore;
  }
  /** VLANs that were turned on, ascending. */
  get vlans(): readonly number[] {
    return this.#vlans.list;
  }
  /** Whether packets of other VLANs are dropped, where CTRL_VLAN was accepted. */
  get vlanFilter(): boolean {
    return this.#vlans.isOn;
  }
  /** What `setRss` has set. */
  get rss(): RssSettings | undefined {
    return this.#steering.rss;
  }
  /** What `setHashReports` has set. */
  get hashReports(): HashSettings | undefined {
    return this.#steering.hashes;
  }

  /** Receives all packets, whatever they are for. Needs CTRL_RX. */
  async setPromiscuous(isOn: boolean): Promise<void> {
    await this.#device.inTurn(() => this.#modes.set(RxCommand.PROMISC, isOn));
  }
  /** Receives the packets of all groups. Needs CTRL_RX. */
  async setAllMulticast(isOn: boolean): Promise<void> {
    await this.#device.inTurn(() => this.#modes.set(RxCommand.ALLMULTI, isOn));
  }
  /** Turns one of the other modes on or off. Needs CTRL_RX_EXTRA. */
  async setReceiveMode(mode: ReceiveMode, isOn: boolean): Promise<void> {
    await this.#device.inTurn(() => this.#modes.set(receiveModes[mode], isOn));
  }

  /** Takes another address for the port's own. Needs CTRL_MAC_ADDR. @throws VirtioError INVALID_ARGUMENT for one that is no station's */
  async setMacAddress(address: Uint8Array): Promise<void> {
    checkAddress(address);
    checkSetting(!isGroup(address), 'a port has the address of one station', address);
    const own = address.slice();
    await this.#device.inTurn(() => this.#ownAddress.set(own));
  }

  /** Receives packets for one more address, of a station or a group. Needs CTRL_RX. */
  async addMacAddress(address: Uint8Array): Promise<void> {
    checkAddress(address);
    const added = address.slice();
    await this.#device.inTurn(() => this.#addresses.add(added));
  }
  /** Receives no more packets for an address that was added. Needs CTRL_RX. */
  async removeMacAddress(address: Uint8Array): Promise<void> {
    checkAddress(address);
    const removed = address.slice();
    await this.#device.inTurn(() => this.#addresses.remove(removed));
  }
  /** Receives the packets of these groups, and of no others. Needs CTRL_RX. @throws VirtioError INVALID_ARGUMENT for a station's */
  async setMulticastAddresses(addresses: readonly Uint8Array[]): Promise<void> {
    for (const address of addresses) {
      checkAddress(address);
      checkSetting(isGroup(address), 'a group has an odd first byte', address);
    }
    const groups = addresses.map((address) => address.slice());
    await this.#device.inTurn(() => this.#addresses.setGroups(groups));
  }

  /** Receives the packets of a VLAN, 0 to 4095, or no more. Needs CTRL_VLAN, which is accepted with `vlanFilter`. */
  async setVlan(identifier: number, isOn: boolean): Promise<void> {
    checkVlan(identifier);
    await this.#device.inTurn(() => this.#vlans.set(identifier, isOn));
  }
  /** Receives the packets of all VLANs, or of those alone that were turned on; 4096 commands. Needs CTRL_VLAN. */
  async setVlanFilter(isOn: boolean): Promise<void> {
    await this.#device.inTurn(() => this.#vlans.turn(isOn));
  }

  /** Resolves to what the device can do of RSS. Needs RSS. */
  async rssLimits(): Promise<RssLimits> {
    return await this.#device.inTurn(() => this.#steering.limits());
  }

  /**
   * Has packets find their receive queue by a hash of their addresses and ports. Needs RSS, which is accepted with more
   * queues than one. @throws VirtioError INVALID_ARGUMENT for what the device cannot do
   */
  async setRss(settings: RssSettings): Promise<void> {
    const copy = { ...settings, key: settings.key.slice(), table: [...settings.table] };
    await this.#device.inTurn(() => this.#steering.setRss(copy));
  }

  /**
   * Has the device report a hash with each packet of these types, and steer as it likes: RSS, which has reports too, is over.
   * Needs HASH_REPORT. @throws VirtioError INVALID_ARGUMENT for what the device cannot do
   */
  async setHashReports(settings: HashSettings): Promise<void> {
    const copy = { ...settings, key: settings.key.slice() };
    await this.#device.inTurn(() => this.#steering.setHashes(copy));
  }

  /** Turns those accepted offloads on that are named, and all others off. Needs CTRL_GUEST_OFFLOADS. */
  async setGuestOffloads(offloads: readonly Feature[]): Promise<void> {
    const wanted = [...offloads];
    await this.#device.inTurn(() => this.#offloads.set(wanted));
  }

  /** Says when the device tells of used buffers. Needs NOTF_COAL, of one queue VQ_NOTF_COAL. */
  async setCoalescing(queues: CoalescedQueues, settings: CoalescingSettings): Promise<void> {
    this.#coalescing.check(queues, settings);
    await this.#device.inTurn(() => this.#coalescing.set({ ...queues }, { ...settings }));
  }

  /** Resolves to what the device has for one queue. Needs VQ_NOTF_COAL. */
  async coalescing(direction: CoalescedQueues['direction'], pair: number): Promise<CoalescingSettings> {
    this.#coalescing.check({ direction, pair }, { maxPackets: 0, maxMicroseconds: 0 });
    return await this.#device.inTurn(() => this.#coalescing.read(direction, pair));
  }

  /** Resolves to what the device has counted itself, queue by queue. Needs DEVICE_STATS. @throws VirtioError DEVICE_BROKEN for answers that are none */
  async deviceStatistics(): Promise<DeviceStatistics> {
    return await this.#device.inTurn(() => readDeviceStatistics(this.#sender, this.#device.maxPairs));
  }

  /**
   * Makes settings of these kinds no more, all of them unless some are named: for a device that has lost what they need.
   * A device that runs keeps them until its next start.
   */
  forget(...settings: readonly PortSetting[]): void {
    for (const [setting, kept] of Object.entries(this.#kept)) {
      if (settings.length === 0 || settings.includes(setting as PortSetting)) kept.forget();
    }
  }

  /** Makes all settings again, on a device that was reset. Part of the port's start, never in turn. Fails as the first does. */
  async restore(): Promise<void> {
    for (const [setting, kept] of Object.entries(this.#kept)) {
      try {
        await kept.restore();
      } catch (error) {
        throw lost(setting, error);
      }
    }
  }
}

/** What a device says that has not any more what a setting needs. */
const LOST: readonly ErrorCode[] = [ErrorCode.REQUEST_REFUSED, ErrorCode.UNSUPPORTED, ErrorCode.INVALID_ARGUMENT];

/** The failure, with what to do about a setting that the device has lost. */
function lost(setting: string, error: unknown): unknown {
  if (!(error instanceof VirtioError) || !LOST.includes(error.code)) return error;
  const { code, message, value, requirement = 'virtio 1.2 §5.1.6.5' } = error;
  return new VirtioError(code, `${message}; it was asked for ${setting} before`, {
    value,
    requirement,
    advice: `use control.forget('${setting}') and start the port again, or give the device back what it had`,
    cause: error,
  });
}
