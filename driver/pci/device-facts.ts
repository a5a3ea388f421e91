/** What a network function can, as far as sysfs tells it while the kernel has the function (Linux, sysfs-bus-virtio). */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Feature, FeatureSet } from '../spec/features.js';
import {
  MSIX_TABLE_SIZE_MASK,
  PCI_CAPABILITIES_MAX,
  PciCapabilityId,
  PciStatus,
  pciCapability,
  pciHeader,
  pciMsixCap,
} from '../spec/pci.js';
import { PciSysfs } from './pci-address.js';

/** What a device offers; a field is undefined where it is not known. */
export interface DeviceFacts {
  /** Feature bits: what is offered, or what the kernel's driver took of it. */
  readonly features: FeatureSet | undefined;
  /** Queue pairs that the device has. */
  readonly queuePairs: number | undefined;
  /** Largest sizes of the first receive and transmit queue. */
  readonly ringSizes: readonly [receive: number, transmit: number] | undefined;
  /** MSI-X vectors; 0 without MSI-X. */
  readonly interruptVectors: number | undefined;
}

/** Reads what is known without opening the function. `sysfs` is another root in tests. */
export function readDeviceFacts(address: string, sysfs?: string): DeviceFacts {
  const pci = new PciSysfs(address, sysfs);
  const features = kernelFeatures(pci);
  return {
    features,
    // Without multiqueue there is one pair; how many there are with it, only the device's registers tell.
    queuePairs: features === undefined || features.has(Feature.MQ) ? undefined : 1,
    ringSizes: undefined,
    interruptVectors: interruptVectors(pci),
  };
}

/** `features` of the virtio device below the function: a digit for each bit, bit 0 first. */
function kernelFeatures(pci: PciSysfs): FeatureSet | undefined {
  const child = readdirSync(pci.folder).find((name) => /^virtio\d+$/.test(name));
  // Without a driver for the virtio device none has been accepted yet.
  if (child === undefined || !existsSync(join(pci.folder, child, 'driver'))) return undefined;
  const text = pci.text(join(child, 'features'));
  if (text === undefined) return undefined;
  return FeatureSet.of(...[...text].flatMap((digit, bit) => (digit === '1' ? [bit] : [])));
}

/** The size of the MSI-X table; undefined where this user may not read that far into configuration space. */
function interruptVectors(pci: PciSysfs): number | undefined {
  let config: Buffer;
  try {
    config = readFileSync(join(pci.folder, 'config'));
  } catch {
    return undefined;
  }
  if (config.length <= pciHeader.bytes) return undefined;
  if ((config.readUInt16LE(pciHeader.fields.status.offset) & PciStatus.CAPABILITIES) === 0) return 0;
  let at = config.readUInt8(pciHeader.fields.capabilities_pointer.offset);
  // A list that runs in a circle ends here too.
  for (let seen = 0; seen < PCI_CAPABILITIES_MAX && at >= pciHeader.bytes; seen++) {
    if (at + pciMsixCap.bytes > config.length) return undefined;
    if (config.readUInt8(at + pciCapability.fields.cap_vndr.offset) === PciCapabilityId.MSIX) {
      return (config.readUInt16LE(at + pciMsixCap.fields.message_control.offset) & MSIX_TABLE_SIZE_MASK) + 1;
    }
    at = config.readUInt8(at + pciCapability.fields.cap_next.offset);
  }
  return 0;
}
