/** The settings that a port's device has by command, kind by kind, and how they outlive a reset (virtio 1.2 §5.1.6.5). */

import { ErrorCode, VirtioError } from '../errors.js';
import { Coalescing } from './control-coalescing.js';
import { GuestOffloads } from './control-offloads.js';
import { OwnAddress, ReceiveAddresses, ReceiveModes } from './control-receive.js';
import { type CommandedDevice, ControlSender, type KeptSettings } from './control-sender.js';
import { type DeviceStatistics, readDeviceStatistics } from './control-statistics.js';
import { SteeringSettings } from './control-steering.js';
import { VlanFilter } from './control-vlans.js';

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

export class PortSettings {
  readonly modes: ReceiveModes;
  readonly ownAddress: OwnAddress;
  readonly addresses: ReceiveAddresses;
  readonly vlans: VlanFilter;
  readonly steering: SteeringSettings;
  readonly offloads: GuestOffloads;
  readonly coalescing: Coalescing;
  readonly #sender: ControlSender;
  /** In the order in which they are made again. */
  readonly #kept: Readonly<Record<PortSetting, KeptSettings>>;

  constructor(device: CommandedDevice) {
    const sender = new ControlSender(device);
    this.#sender = sender;
    this.modes = new ReceiveModes(sender);
    this.ownAddress = new OwnAddress(sender);
    this.addresses = new ReceiveAddresses(sender, this.modes);
    this.vlans = new VlanFilter(sender);
    this.steering = new SteeringSettings(sender);
    this.offloads = new GuestOffloads(sender);
    this.coalescing = new Coalescing(sender);
    this.#kept = {
      receiveModes: this.modes,
      macAddress: this.ownAddress,
      macAddresses: this.addresses,
      vlans: this.vlans,
      rss: this.steering,
      guestOffloads: this.offloads,
      coalescing: this.coalescing,
    };
  }

  async deviceStatistics(): Promise<DeviceStatistics> {
    return await readDeviceStatistics(this.#sender, this.#sender.device.maxPairs);
  }

  /** Makes settings of these kinds no more, all of them unless some are named. */
  forget(settings: readonly PortSetting[]): void {
    for (const [setting, kept] of Object.entries(this.#kept)) {
      if (settings.length === 0 || settings.includes(setting as PortSetting)) kept.forget();
    }
  }

  /** Makes all of them again on a device that was reset. Fails as the first does. */
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
