/** Reading device configuration of a modern PCI device (virtio 1.2 §2.5.1, §4.1.3.1). */

import { ErrorCode, VirtioError } from '../errors.js';
import type { BarWindow } from '../pci/capabilities.js';
import type { FeatureSet } from '../spec/features.js';
import { netConfigFeatures, virtioNetConfig } from '../spec/net-config.js';
import type { CommonRegisters } from './pci-modern-registers.js';

/** Readings of a configuration that changes under us before it is refused. A device that keeps to the rules needs two. */
const ATTEMPTS = 100;

/** A consistent reading of some bytes of device configuration, and the generation it belongs to. */
export interface ConfigReading {
  readonly bytes: Uint8Array;
  readonly generation: number;
}

/**
 * Reads `bytes` bytes at `offset`, each field of the network configuration by its own width, again until
 * `config_generation` is the same before and after.
 *
 * @throws VirtioError DEVICE_BROKEN when the configuration is too short, or changes for ever
 */
export function readDeviceConfig(
  registers: CommonRegisters,
  device: BarWindow,
  offset: number,
  bytes: number,
): ConfigReading {
  const fields = fieldsIn(offset, bytes);
  const first = fields[0]?.offset ?? offset;
  const end = fields.reduce((last, field) => Math.max(last, field.offset + field.bytes), offset + bytes);
  if (end > device.bytes) {
    throw new VirtioError(
      ErrorCode.DEVICE_BROKEN,
      `device configuration is ${device.bytes} bytes long, bytes ${first} to ${end - 1} are needed`,
      {
        value: device.bytes,
        requirement: 'virtio 1.2 §5.1.4',
        advice: 'the device offers a feature without its field',
      },
    );
  }
  const view = new DataView(new ArrayBuffer(end - first));
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const before = registers.read('config_generation');
    for (const field of fields) readField(device, field, view, field.offset - first);
    const generation = registers.read('config_generation');
    if (generation === before) {
      return { bytes: new Uint8Array(view.buffer, offset - first, bytes), generation };
    }
  }
  throw new VirtioError(
    ErrorCode.DEVICE_BROKEN,
    `device configuration changed during each of ${ATTEMPTS} readings: config_generation does not stand still`,
    { value: ATTEMPTS, requirement: 'virtio 1.2 §2.5.1', advice: 'reset the device; if it goes on, use another one' },
  );
}

/** Reads a field that the device has, and forgets it. */
export function touchConfig(device: BarWindow, offered: FeatureSet): void {
  const { mac, status } = virtioNetConfig.fields;
  // "For optional configuration space fields, the driver MUST check that the corresponding feature is offered" (§2.5.1)
  const field = [status, mac].find((each) => netConfigFeatures[each.name as 'mac'].some((bit) => offered.has(bit)));
  if (field === undefined || field.offset + field.bytes > device.bytes) return;
  const [access] = fieldsIn(field.offset, 1);
  readField(device, access!, new DataView(new ArrayBuffer(access!.bytes)), 0);
}

/** One access: its place and width. */
interface Access {
  readonly offset: number;
  readonly bytes: number;
}

/** The accesses that cover a range: whole fields where the layout has them, single bytes in arrays and behind its end. */
function fieldsIn(offset: number, bytes: number): Access[] {
  const end = offset + bytes;
  const accesses: Access[] = [];
  for (const field of virtioNetConfig.order) {
    if (field.offset >= end || field.offset + field.bytes <= offset) continue;
    if (field.type.name !== 'bytes') accesses.push({ offset: field.offset, bytes: field.bytes });
    else accesses.push(...singleBytes(Math.max(field.offset, offset), Math.min(field.offset + field.bytes, end)));
  }
  return [...accesses, ...singleBytes(Math.max(virtioNetConfig.bytes, offset), end)];
}

const singleBytes = (from: number, to: number): Access[] =>
  Array.from({ length: Math.max(0, to - from) }, (_, index) => ({ offset: from + index, bytes: 1 }));

function readField(device: BarWindow, access: Access, into: DataView, at: number): void {
  const { bar } = device;
  const offset = device.offset + access.offset;
  if (access.bytes === 1) into.setUint8(at, bar.read8(offset));
  else if (access.bytes === 2) into.setUint16(at, bar.read16(offset), true);
  else into.setUint32(at, bar.read32(offset), true);
}
