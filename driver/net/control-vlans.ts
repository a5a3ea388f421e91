/** The VLANs whose packets a device passes (virtio 1.2 §5.1.6.5.3). */

import { ControlClass, VlanCommand } from '../spec/control.js';
import { vlanData } from './control-requests.js';
import { type ControlSender, checkSetting, type KeptSettings } from './control-sender.js';

const VLAN_IDENTIFIERS = 4096;

/** @throws VirtioError INVALID_ARGUMENT for what is no VLAN's number */
function checkVlan(identifier: number): void {
  const isVlan = Number.isInteger(identifier) && identifier >= 0 && identifier < VLAN_IDENTIFIERS;
  checkSetting(isVlan, `a VLAN has a number from 0 to ${VLAN_IDENTIFIERS - 1}`, identifier);
}

export class VlanFilter implements KeptSettings {
  readonly #sender: ControlSender;
  readonly #vlans = new Set<number>();
  /** As it was turned last. */
  #isOn = true;
  /** Whether the device has all of that: not after a turn that failed half-way. */
  #isSettled = true;

  constructor(sender: ControlSender) {
    this.#sender = sender;
  }

  /** Those that were turned on, ascending. */
  get list(): number[] {
    return [...this.#vlans].sort((a, b) => a - b);
  }
  /** Whether those of no other VLAN come. */
  get isOn(): boolean {
    return this.#isOn && this.#isSettled;
  }

  async set(identifier: number, isWanted: boolean): Promise<void> {
    checkVlan(identifier);
    // With the filter off all come, and those that are not wanted any more go when it is turned on.
    if (this.#isOn || !this.#isSettled) await this.#send(identifier, isWanted);
    else this.#sender.accepted(ControlClass.VLAN, VlanCommand.ADD);
    if (isWanted) this.#vlans.add(identifier);
    else this.#vlans.delete(identifier);
  }

  /** A device with CTRL_VLAN always filters: off, it is told of every VLAN there is. */
  async turn(isOn: boolean): Promise<void> {
    this.#sender.accepted(ControlClass.VLAN, VlanCommand.ADD);
    if (isOn === this.#isOn && this.#isSettled) return;
    this.#isSettled = false;
    for (let vlan = 0; vlan < VLAN_IDENTIFIERS; vlan++) if (!this.#vlans.has(vlan)) await this.#send(vlan, !isOn);
    this.#isOn = isOn;
    this.#isSettled = true;
  }

  async restore(): Promise<void> {
    // The device was reset: what was done by halves is undone.
    this.#isSettled = true;
    if (this.#isOn) for (const identifier of this.#vlans) await this.#send(identifier, true);
    else for (let vlan = 0; vlan < VLAN_IDENTIFIERS; vlan++) await this.#send(vlan, true);
  }
  forget(): void {
    this.#vlans.clear();
    this.#isOn = true;
  }

  async #send(identifier: number, isAdded: boolean): Promise<void> {
    const command = isAdded ? VlanCommand.ADD : VlanCommand.DEL;
    await this.#sender.send(ControlClass.VLAN, command, vlanData(identifier));
  }
}
