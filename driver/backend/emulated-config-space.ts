/** The configuration space of the emulated PCI function, built from the layouts of the specification. */

import {
  MSIX_TABLE_ENTRY_BYTES,
  PCI_CLASS_ETHERNET,
  PCI_CONFIG_BYTES,
  PCI_VENDOR_ID,
  PciBar,
  PciCapabilityId,
  PciCapType,
  PciDeviceId,
  PciStatus,
  pciHeader,
  pciMsixCap,
  virtioPciCap,
  virtioPciCfgCap,
  virtioPciCommonCfg,
  virtioPciNotifyCap,
} from '../spec/pci.js';
import { isPowerOfTwo, roundUp } from '../units.js';

/** Which BAR holds what. The structures are in a 64-bit memory BAR, which takes two registers. */
export const EmulatedBarIndex = { LEGACY: 0, MSIX: 1, STRUCTURES: 4 } as const;

/** Which interfaces a function has: the structures, the legacy registers, or both. */
export type EmulatedInterface = 'modern' | 'transitional' | 'legacy';

/** Bytes between the notify addresses of two queues: room for a 32-bit notification. */
export const NOTIFY_OFF_MULTIPLIER = 4;

const PAGE = 4096;

/** A structure in the BAR of structures. */
export interface StructureWindow {
  readonly region: 'common' | 'isr' | 'device' | 'notify';
  readonly offset: number;
  readonly bytes: number;
}

/** Lays the structures out, a page each so that one can be mapped without the others. Ascending. */
export function structureWindows(configBytes: number, queues: number): readonly StructureWindow[] {
  return [
    { region: 'common', offset: 0, bytes: virtioPciCommonCfg.bytes },
    { region: 'isr', offset: PAGE, bytes: 1 },
    { region: 'device', offset: 2 * PAGE, bytes: configBytes },
    { region: 'notify', offset: 3 * PAGE, bytes: queues * NOTIFY_OFF_MULTIPLIER },
  ];
}

/** Size of the BAR that holds the windows: a power of two, as BARs are. */
export function structureBarBytes(windows: readonly StructureWindow[]): number {
  const end = Math.max(...windows.map(({ offset, bytes }) => offset + bytes));
  let bytes = roundUp(end, PAGE);
  while (!isPowerOfTwo(bytes)) bytes += PAGE;
  return bytes;
}

/** Where the capabilities that the function itself looks at are. */
export interface EmulatedConfigSpace {
  readonly bytes: Uint8Array;
  /** The MSI-X capability; undefined without vectors. */
  readonly msix: number | undefined;
  /** The PCI_CFG capability; undefined on a legacy device. */
  readonly pciCfg: number | undefined;
  /** One past the last capability. */
  readonly end: number;
}

/** Builds the configuration space of a network device with `vectors` MSI-X vectors. */
export function buildConfigSpace(
  windows: readonly StructureWindow[],
  vectors: number,
  kind: EmulatedInterface = 'modern',
): EmulatedConfigSpace {
  const bytes = new Uint8Array(PCI_CONFIG_BYTES);
  const view = new DataView(bytes.buffer);
  const isModern = kind === 'modern';
  pciHeader.write(view, {
    vendor_id: PCI_VENDOR_ID,
    device_id: isModern ? PciDeviceId.NET : PciDeviceId.NET_TRANSITIONAL,
    // "Non-transitional devices SHOULD have a PCI Revision ID of 1 or higher" (virtio 1.2 §4.1.2.1)
    revision_id: isModern ? 1 : 0,
    status: PciStatus.CAPABILITIES,
    subsystem_vendor_id: PCI_VENDOR_ID,
    // "… SHOULD have a PCI Subsystem Device ID of 0x40 or higher." A transitional one has the virtio device ID there (§4.1.2.3).
    subsystem_id: isModern ? 0x1100 : 1,
  });
  const { class_code, bars, capabilities_pointer } = pciHeader.fields;
  bytes.set(
    [0, 8, 16].map((shift) => (PCI_CLASS_ETHERNET >> shift) & 0xff),
    class_code.offset,
  );
  if (!isModern) view.setUint32(bars.offset + 4 * EmulatedBarIndex.LEGACY, PciBar.IO, true);
  const hasStructures = kind !== 'legacy';
  if (hasStructures) {
    view.setUint32(bars.offset + 4 * EmulatedBarIndex.STRUCTURES, PciBar.TYPE_64 | PciBar.PREFETCHABLE, true);
  }

  let offset = pciHeader.bytes;
  let link = capabilities_pointer.offset;
  /** Appends a capability of this many bytes to the list; returns where it is. */
  const append = (size: number): number => {
    const at = offset;
    bytes[link] = at;
    link = at + virtioPciCap.fields.cap_next.offset;
    offset = roundUp(at + size, 4);
    return at;
  };

  let msix: number | undefined;
  if (vectors > 0) {
    msix = append(pciMsixCap.bytes);
    pciMsixCap.write(
      view,
      {
        cap_id: PciCapabilityId.MSIX,
        message_control: vectors - 1,
        table: EmulatedBarIndex.MSIX,
        pba: EmulatedBarIndex.MSIX | msixTableBytes(vectors),
      },
      msix,
    );
  }
  if (!hasStructures) return { bytes, msix, pciCfg: undefined, end: offset };
  const types = {
    common: PciCapType.COMMON,
    isr: PciCapType.ISR,
    device: PciCapType.DEVICE,
    notify: PciCapType.NOTIFY,
  };
  for (const window of windows) {
    const layout = window.region === 'notify' ? virtioPciNotifyCap : virtioPciCap;
    const at = append(layout.bytes);
    virtioPciCap.write(
      view,
      {
        cap_vndr: PciCapabilityId.VENDOR,
        cap_len: layout.bytes,
        cfg_type: types[window.region],
        bar: EmulatedBarIndex.STRUCTURES,
        offset: window.offset,
        length: window.bytes,
      },
      at,
    );
    if (window.region === 'notify') {
      virtioPciNotifyCap.write(view, { notify_off_multiplier: NOTIFY_OFF_MULTIPLIER }, at);
    }
  }
  const pciCfg = append(virtioPciCfgCap.bytes);
  virtioPciCfgCap.write(
    view,
    { cap_vndr: PciCapabilityId.VENDOR, cap_len: virtioPciCfgCap.bytes, cfg_type: PciCapType.PCI_CFG },
    pciCfg,
  );
  return { bytes, msix, pciCfg, end: offset };
}

/** Bytes of the MSI-X table, up to where the pending bits begin. */
const msixTableBytes = (vectors: number): number => roundUp(vectors * MSIX_TABLE_ENTRY_BYTES, PAGE);

/** Size of the BAR that holds the MSI-X table and the pending bits behind it. */
export function msixBarBytes(vectors: number): number {
  let bytes = msixTableBytes(vectors) + PAGE;
  while (!isPowerOfTwo(bytes)) bytes += PAGE;
  return bytes;
}
