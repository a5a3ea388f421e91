/** Everything the checks look at, gathered once. */

import type { NetworkFunction } from '../../index.js';
import { asVirtioError } from '../failure.js';
import { Device } from './device.js';
import type { DoctorOptions } from './options.js';
import { processes } from './processes.js';
import { Socket } from './socket.js';
import type { System } from './system.js';
import { User } from './user.js';

/** What was asked about. */
export interface Targets {
  readonly addresses: readonly string[];
  readonly sockets: readonly string[];
}

export interface Situation {
  readonly system: System;
  readonly user: User;
  readonly options: DoctorOptions;
  /** All network functions on the PCI bus. */
  readonly functions: readonly NetworkFunction[];
  /** Those that are to be driven: the ones that were named, else the virtio devices that the kernel leaves alone. */
  readonly devices: readonly Device[];
  /** Those of them that are virtio network devices: what the machine is needed for. */
  readonly driven: readonly Device[];
  readonly sockets: readonly Socket[];
}

/** Drivers of the kernel that make interfaces of virtio devices. */
const KERNEL_DRIVER = 'virtio-pci';

/** Looks at the machine; opens devices that nobody has, where VFIO can, to ask what they offer. */
export async function gather(system: System, targets: Targets, options: DoctorOptions): Promise<Situation> {
  const functions = system.networkFunctions();
  const user = new User(system);
  const { addresses } = targets;
  const free = functions.filter(({ isVirtio, driver }) => isVirtio && driver !== KERNEL_DRIVER);
  // A socket that was asked about is no reason to look for devices.
  const candidates = targets.sockets.length > 0 ? [] : free.map(({ address }) => address);
  const devices = (addresses.length > 0 ? addresses : candidates).map(
    (address) => new Device({ system, user, address, fn: functions.find((each) => each.address === address), options }),
  );
  for (const device of devices) await ask(device);
  const others = targets.sockets.length === 0 ? [] : processes(system);
  const sockets = targets.sockets.map((path) => new Socket({ system, user, path, others }));
  return {
    system,
    user,
    options,
    functions,
    devices,
    driven: devices.filter(({ isVirtioNet }) => isVirtioNet),
    sockets,
  };
}

async function ask(device: Device): Promise<void> {
  const { access } = device;
  if (access === 'sysfs' || !device.canBeAsked) return;
  try {
    device.answer = await device.system.probe(device.address, access);
  } catch (error) {
    device.refusal = asVirtioError(error);
  }
}
