/** Receive modes of a port, and the addresses that it receives for (virtio 1.2 §5.1.6.5.1, §5.1.6.5.2). */

import { ControlClass, MacCommand, RxCommand } from '../spec/control.js';
import { MAC_BYTES } from '../spec/net-config.js';
import { CONTROL_DATA_BYTES } from './control-queue.js';
import { isGroup, macTablesData, switchData } from './control-requests.js';
import { type ControlSender, checkSetting, type KeptSettings } from './control-sender.js';

type Addresses = ReadonlyMap<string, Uint8Array>;

const textOf = (address: Uint8Array): string => Buffer.from(address).toString('hex');

/** @throws VirtioError INVALID_ARGUMENT for what is no address */
function checkAddress(address: Uint8Array): void {
  const isAddress = address.length === MAC_BYTES && address.some((byte) => byte !== 0);
  checkSetting(isAddress, `an address has ${MAC_BYTES} bytes, not all of them zero`, address);
}

/** The receive modes, by `RxCommand`. */
export class ReceiveModes implements KeptSettings {
  readonly #sender: ControlSender;
  readonly #modes = new Map<number, boolean>();
  /** Modes that are on whatever the application says. */
  readonly #held = new Set<number>();

  constructor(sender: ControlSender) {
    this.#sender = sender;
  }

  /** Whether the application has turned it on. */
  has(mode: number): boolean {
    return this.#modes.get(mode) ?? false;
  }

  async set(mode: number, isOn: boolean): Promise<void> {
    if (isOn || !this.#held.has(mode)) await this.#send(mode, isOn);
    else this.#sender.accepted(ControlClass.RX, mode);
    this.#modes.set(mode, isOn);
  }

  /** Has a mode be on, beside what the application says. */
  async hold(mode: number): Promise<void> {
    await this.#send(mode, true);
    this.#held.add(mode);
  }
  /** Ends that: the mode is what the application said. */
  async release(mode: number): Promise<void> {
    this.#held.delete(mode);
    if (!this.has(mode)) await this.#send(mode, false);
  }

  /** What is held is held anew by those who need it. */
  async restore(): Promise<void> {
    this.#held.clear();
    for (const [mode, isOn] of this.#modes) await this.#send(mode, isOn);
  }
  forget(): void {
    this.#modes.clear();
  }

  async #send(mode: number, isOn: boolean): Promise<void> {
    await this.#sender.send(ControlClass.RX, mode, switchData(isOn));
  }
}

/** The addresses beside the port's own: one table of stations and one of groups, set as a whole. */
export class ReceiveAddresses implements KeptSettings {
  readonly #sender: ControlSender;
  readonly #modes: ReceiveModes;
  /** By their text. */
  #addresses: Addresses = new Map();
  /** The mode that stands in for tables that do not fit. */
  #stoodInBy: number | undefined;

  constructor(sender: ControlSender, modes: ReceiveModes) {
    this.#sender = sender;
    this.#modes = modes;
  }

  /** In the order in which they were added. */
  get list(): Uint8Array[] {
    return [...this.#addresses.values()].map((address) => address.slice());
  }
  /** Those of them that are groups. */
  get groups(): Uint8Array[] {
    return this.list.filter(isGroup);
  }
  /** Whether a mode stands in for the tables. */
  get passesMore(): boolean {
    return this.#stoodInBy !== undefined;
  }

  async add(address: Uint8Array): Promise<void> {
    checkAddress(address);
    await this.#set([...this.#addresses.values(), address]);
  }
  async remove(address: Uint8Array): Promise<void> {
    checkAddress(address);
    await this.#set([...this.#addresses.values()].filter((other) => textOf(other) !== textOf(address)));
  }
  /** Replaces all groups; stations stay. */
  async setGroups(groups: readonly Uint8Array[]): Promise<void> {
    for (const group of groups) {
      checkAddress(group);
      checkSetting(isGroup(group), 'a group has an odd first byte', group);
    }
    await this.#set([...[...this.#addresses.values()].filter((address) => !isGroup(address)), ...groups]);
  }

  async restore(): Promise<void> {
    this.#stoodInBy = undefined;
    if (this.#addresses.size > 0) await this.#send(this.#addresses);
  }
  forget(): void {
    this.#addresses = new Map();
  }

  async #set(list: readonly Uint8Array[]): Promise<void> {
    const addresses = new Map(list.map((address) => [textOf(address), address.slice()]));
    await this.#send(addresses);
    this.#addresses = addresses;
  }

  /** Sets the tables; where they do not fit, passes all packets, or those of all groups where the groups alone are too many. */
  async #send(addresses: Addresses): Promise<void> {
    const list = [...addresses.values()];
    const data = macTablesData(list);
    const { MAC } = ControlClass;
    this.#sender.accepted(MAC, MacCommand.TABLE_SET);
    const fits = data.length <= CONTROL_DATA_BYTES && (await this.#sender.attempt(MAC, MacCommand.TABLE_SET, data));
    const needed = fits ? undefined : list.every(isGroup) ? RxCommand.ALLMULTI : RxCommand.PROMISC;
    const before = this.#stoodInBy;
    if (needed !== undefined) await this.#modes.hold(needed);
    this.#stoodInBy = needed;
    if (before !== undefined && before !== needed) await this.#modes.release(before);
  }
}

/** The port's own address. */
export class OwnAddress implements KeptSettings {
  readonly #sender: ControlSender;
  #address: Uint8Array | undefined;

  constructor(sender: ControlSender) {
    this.#sender = sender;
  }

  async set(address: Uint8Array): Promise<void> {
    checkAddress(address);
    checkSetting(!isGroup(address), 'a port has the address of one station', address);
    await this.#send(address);
    this.#address = address;
  }

  async restore(): Promise<void> {
    if (this.#address !== undefined) await this.#send(this.#address);
  }
  forget(): void {
    this.#address = undefined;
  }

  async #send(address: Uint8Array): Promise<void> {
    await this.#sender.send(ControlClass.MAC, MacCommand.ADDR_SET, address);
    this.#sender.device.setMacAddress(address);
  }
}
