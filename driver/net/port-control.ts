/** What a port asks of its device while it runs: which packets it gets, in which queue, and how (virtio 1.2 §5.1.6.5). */

import { RxCommand } from '../spec/control.js';
import type { Feature } from '../spec/features.js';
import type { CoalescedQueues } from './control-coalescing.js';
import type { CoalescingSettings, HashSettings, RssSettings } from './control-requests.js';
import type { CommandedDevice } from './control-sender.js';
import type { DeviceStatistics } from './control-statistics.js';
import type { RssLimits } from './control-steering.js';
import type { PortSetting, PortSettings } from './port-settings.js';

/** A mode that devices have with CTRL_RX_EXTRA; what is refused here is refused whatever else is set, but for promiscuous. */
export const receiveModes = {
  allUnicast: RxCommand.ALLUNI,
  noMulticast: RxCommand.NOMULTI,
  noUnicast: RxCommand.NOUNI,
  noBroadcast: RxCommand.NOBCAST,
} as const;
export type ReceiveMode = keyof typeof receiveModes;

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
  /** Loaded with the first call, for most ports are never asked for anything. */
  #settings: PortSettings | undefined;

  constructor(device: CommandedDevice) {
    this.#device = device;
  }

  get promiscuous(): boolean {
    return this.#settings?.modes.has(RxCommand.PROMISC) ?? false;
  }
  get allMulticast(): boolean {
    return this.#settings?.modes.has(RxCommand.ALLMULTI) ?? false;
  }
  /** Addresses that were added, in the order of that. */
  get macAddresses(): readonly Uint8Array[] {
    return this.#settings?.addresses.list ?? [];
  }
  /** Those of them that are groups. */
  get multicastAddresses(): readonly Uint8Array[] {
    return this.#settings?.addresses.groups ?? [];
  }
  /** Whether the device did not take so many addresses, and passes all of a kind instead. */
  get passesMoreAddresses(): boolean {
    return this.#settings?.addresses.passesMore ?? false;
  }
  /** VLANs that were turned on, ascending. */
  get vlans(): readonly number[] {
    return this.#settings?.vlans.list ?? [];
  }
  /** Whether packets of other VLANs are dropped, where CTRL_VLAN was accepted. */
  get vlanFilter(): boolean {
    return this.#settings?.vlans.isOn ?? true;
  }
  /** What `setRss` has set. */
  get rss(): RssSettings | undefined {
    return this.#settings?.steering.rss;
  }
  /** What `setHashReports` has set. */
  get hashReports(): HashSettings | undefined {
    return this.#settings?.steering.hashes;
  }

  /** Receives all packets, whatever they are for. Needs CTRL_RX. */
  async setPromiscuous(isOn: boolean): Promise<void> {
    await this.#inTurn(({ modes }) => modes.set(RxCommand.PROMISC, isOn));
  }
  /** Receives the packets of all groups. Needs CTRL_RX. */
  async setAllMulticast(isOn: boolean): Promise<void> {
    await this.#inTurn(({ modes }) => modes.set(RxCommand.ALLMULTI, isOn));
  }
  /** Turns one of the other modes on or off. Needs CTRL_RX_EXTRA. */
  async setReceiveMode(mode: ReceiveMode, isOn: boolean): Promise<void> {
    await this.#inTurn(({ modes }) => modes.set(receiveModes[mode], isOn));
  }

  /** Takes another address for the port's own. Needs CTRL_MAC_ADDR. @throws VirtioError INVALID_ARGUMENT for one that is no station's */
  async setMacAddress(address: Uint8Array): Promise<void> {
    const own = address.slice();
    await this.#inTurn(({ ownAddress }) => ownAddress.set(own));
  }

  /** Receives packets for one more address, of a station or a group. Needs CTRL_RX. */
  async addMacAddress(address: Uint8Array): Promise<void> {
    const added = address.slice();
    await this.#inTurn(({ addresses }) => addresses.add(added));
  }
  /** Receives no more packets for an address that was added. Needs CTRL_RX. */
  async removeMacAddress(address: Uint8Array): Promise<void> {
    const removed = address.slice();
    await this.#inTurn(({ addresses }) => addresses.remove(removed));
  }
  /** Receives the packets of these groups, and of no others. Needs CTRL_RX. @throws VirtioError INVALID_ARGUMENT for a station's */
  async setMulticastAddresses(addresses: readonly Uint8Array[]): Promise<void> {
    const groups = addresses.map((address) => address.slice());
    await this.#inTurn(({ addresses }) => addresses.setGroups(groups));
  }

  /** Receives the packets of a VLAN, 0 to 4095, or no more. Needs CTRL_VLAN, which is accepted with `vlanFilter`. */
  async setVlan(identifier: number, isOn: boolean): Promise<void> {
    await this.#inTurn(({ vlans }) => vlans.set(identifier, isOn));
  }
  /** Receives the packets of all VLANs, or of those alone that were turned on; 4096 commands. Needs CTRL_VLAN. */
  async setVlanFilter(isOn: boolean): Promise<void> {
    await this.#inTurn(({ vlans }) => vlans.turn(isOn));
  }

  /** Resolves to what the device can do of RSS. Needs RSS. */
  async rssLimits(): Promise<RssLimits> {
    return await this.#inTurn(({ steering }) => steering.limits());
  }

  /**
   * Has packets find their receive queue by a hash of their addresses and ports. Needs RSS, which is accepted with more
   * queues than one. @throws VirtioError INVALID_ARGUMENT for what the device cannot do
   */
  async setRss(settings: RssSettings): Promise<void> {
    const copy = { ...settings, key: settings.key.slice(), table: [...settings.table] };
    await this.#inTurn(({ steering }) => steering.setRss(copy));
  }

  /**
   * Has the device report a hash with each packet of these types, and steer as it likes: RSS, which has reports too, is over.
   * Needs HASH_REPORT. @throws VirtioError INVALID_ARGUMENT for what the device cannot do
   */
  async setHashReports(settings: HashSettings): Promise<void> {
    const copy = { ...settings, key: settings.key.slice() };
    await this.#inTurn(({ steering }) => steering.setHashes(copy));
  }

  /** Turns those accepted offloads on that are named, and all others off. Needs CTRL_GUEST_OFFLOADS. */
  async setGuestOffloads(offloads: readonly Feature[]): Promise<void> {
    const wanted = [...offloads];
    await this.#inTurn(({ offloads }) => offloads.set(wanted));
  }

  /** Says when the device tells of used buffers. Needs NOTF_COAL, of one queue VQ_NOTF_COAL. */
  async setCoalescing(queues: CoalescedQueues, settings: CoalescingSettings): Promise<void> {
    const [which, wanted] = [{ ...queues }, { ...settings }];
    await this.#inTurn(({ coalescing }) => coalescing.set(which, wanted));
  }

  /** Resolves to what the device has for one queue. Needs VQ_NOTF_COAL. */
  async coalescing(direction: CoalescedQueues['direction'], pair: number): Promise<CoalescingSettings> {
    return await this.#inTurn(({ coalescing }) => coalescing.read(direction, pair));
  }

  /** Resolves to what the device has counted itself, queue by queue. Needs DEVICE_STATS. @throws VirtioError DEVICE_BROKEN for answers that are none */
  async deviceStatistics(): Promise<DeviceStatistics> {
    return await this.#inTurn((settings) => settings.deviceStatistics());
  }

  /**
   * Makes settings of these kinds no more, all of them unless some are named: for a device that has lost what they need.
   * A device that runs keeps them until its next start.
   */
  forget(...settings: readonly PortSetting[]): void {
    this.#settings?.forget(settings);
  }

  /** Makes all settings again, on a device that was reset. Part of the port's start, never in turn. Fails as the first does. */
  async restore(): Promise<void> {
    await this.#settings?.restore();
  }

  #inTurn<T>(work: (settings: PortSettings) => Promise<T>): Promise<T> {
    return this.#device.inTurn(async () => {
      this.#settings ??= await this.#load();
      return await work(this.#settings);
    });
  }

  async #load(): Promise<PortSettings> {
    const { PortSettings } = await import('./port-settings.js');
    return new PortSettings(this.#device);
  }
}
