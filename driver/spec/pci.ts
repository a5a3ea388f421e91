/** Virtio over PCI (virtio 1.2 §4.1) and the parts of the PCI configuration header that it stands on. */

import { masksOf } from './bits.js';
import { bytes, layout, le16, le32, le64, ro, rw, u8 } from './layout.js';

// Identity (virtio 1.2 §4.1.2)

export const PCI_VENDOR_ID = 0x1af4;

/** PCI device IDs of a network device. */
export const PciDeviceId = {
  /** Transitional or legacy. */
  NET_TRANSITIONAL: 0x1000,
  /** Modern: 0x1040 plus the virtio device ID, 1. */
  NET: 0x1041,
} as const;
export type PciDeviceId = (typeof PciDeviceId)[keyof typeof PciDeviceId];

/** Class code of an Ethernet controller: base class 2, subclass 0, interface 0. */
export const PCI_CLASS_ETHERNET = 0x02_00_00;

// The configuration header (PCI Local Bus 3.0 §6.1)

/** The header of type 0. */
export const pciHeader = layout('PCI configuration header', 64, {
  vendor_id: ro(le16),
  device_id: ro(le16),
  command: rw(le16),
  status: ro(le16),
  revision_id: ro(u8),
  class_code: bytes(3),
  cache_line_size: ro(u8),
  latency_timer: ro(u8),
  header_type: ro(u8),
  bist: ro(u8),
  bars: bytes(24),
  cardbus_cis: ro(le32),
  subsystem_vendor_id: ro(le16),
  subsystem_id: ro(le16),
  expansion_rom: ro(le32),
  capabilities_pointer: ro(u8),
  reserved: bytes(7),
  interrupt_line: ro(u8),
  interrupt_pin: ro(u8),
  min_gnt: ro(u8),
  max_lat: ro(u8),
});

/** Bytes of configuration space behind which capabilities cannot lie, and of all of it on PCI Express. */
export const PCI_CONFIG_BYTES = 256;
export const PCIE_CONFIG_BYTES = 4096;

/** Number of base address registers of a type 0 header, 4 bytes each. */
export const PCI_BARS = 6;

/** Bits of `command` by number. */
export const PciCommandBit = { IO: 0, MEMORY: 1, MASTER: 2, INTX_DISABLE: 10 } as const;
export const PciCommand = masksOf(PciCommandBit);

/** Bits of `status` by number. */
export const PciStatusBit = { CAPABILITIES: 4 } as const;
export const PciStatus = masksOf(PciStatusBit);

/** Low bits of a base address register. */
export const PciBar = { IO: 0x1, TYPE_64: 0x4, PREFETCHABLE: 0x8 } as const;

/** IDs of the capabilities this driver looks at. */
export const PciCapabilityId = { VENDOR: 0x09, MSIX: 0x11 } as const;

/** The two bytes that every capability begins with. */
export const pciCapability = layout('PCI capability', 2, { cap_vndr: ro(u8), cap_next: ro(u8) });

/** Capabilities of 4 bytes at least that fit between the header and byte 256: no honest list is longer. */
export const PCI_CAPABILITIES_MAX = (PCI_CONFIG_BYTES - pciHeader.bytes) / 4;

/** The MSI-X capability (PCI Local Bus 3.0 §6.8.2). */
export const pciMsixCap = layout('MSI-X capability', 12, {
  cap_id: ro(u8),
  cap_next: ro(u8),
  message_control: rw(le16),
  table: ro(le32),
  pba: ro(le32),
});

/** Bits of `message_control` by number; the bits below 11 are the table size less one. */
export const MsixControlBit = { FUNCTION_MASK: 14, ENABLE: 15 } as const;
export const MsixControl = masksOf(MsixControlBit);
export const MSIX_TABLE_SIZE_MASK = 0x7ff;
/** The low bits of `table` and `pba` name the BAR; the rest is the offset. */
export const MSIX_BAR_MASK = 0x7;
export const MSIX_TABLE_ENTRY_BYTES = 16;

// Virtio capabilities (virtio 1.2 §4.1.4)

const capability = {
  cap_vndr: ro(u8),
  cap_next: ro(u8),
  cap_len: ro(u8),
  cfg_type: ro(u8),
  bar: ro(u8),
  id: ro(u8),
  padding: bytes(2),
  offset: ro(le32),
  length: ro(le32),
};

/** What every virtio capability but the vendor one begins with. */
export const virtioPciCap = layout('virtio_pci_cap', 16, capability);
/** A capability with a 64-bit offset and length: SHARED_MEMORY. */
export const virtioPciCap64 = layout('virtio_pci_cap64', 24, {
  ...capability,
  offset_hi: ro(le32),
  length_hi: ro(le32),
});
/** The NOTIFY capability. */
export const virtioPciNotifyCap = layout('virtio_pci_notify_cap', 20, {
  ...capability,
  notify_off_multiplier: ro(le32),
});
/** The PCI_CFG capability: a window to the BARs, written by the driver (virtio 1.2 §4.1.4.9). */
export const virtioPciCfgCap = layout('virtio_pci_cfg_cap', 20, {
  ...capability,
  bar: rw(u8),
  offset: rw(le32),
  length: rw(le32),
  pci_cfg_data: bytes(4),
});
/** The VENDOR capability (virtio 1.2 §4.1.4.8); what follows is the vendor's. */
export const virtioPciVndrData = layout('virtio_pci_vndr_data', 6, {
  cap_vndr: ro(u8),
  cap_next: ro(u8),
  cap_len: ro(u8),
  cfg_type: ro(u8),
  vendor_id: ro(le16),
});

/** `cfg_type`; any other value is reserved, and to be ignored. */
export const PciCapType = {
  COMMON: 1,
  NOTIFY: 2,
  ISR: 3,
  DEVICE: 4,
  PCI_CFG: 5,
  SHARED_MEMORY: 8,
  VENDOR: 9,
} as const;
export type PciCapType = (typeof PciCapType)[keyof typeof PciCapType];

// Registers

/** The common configuration structure (virtio 1.2 §4.1.4.3; the administration queue 1.3). */
export const virtioPciCommonCfg = layout('virtio_pci_common_cfg', 64, {
  device_feature_select: rw(le32),
  device_feature: ro(le32),
  driver_feature_select: rw(le32),
  driver_feature: rw(le32),
  config_msix_vector: rw(le16),
  num_queues: ro(le16),
  device_status: rw(u8),
  config_generation: ro(u8),
  queue_select: rw(le16),
  queue_size: rw(le16),
  queue_msix_vector: rw(le16),
  queue_enable: rw(le16),
  queue_notify_off: ro(le16),
  queue_desc: rw(le64),
  queue_driver: rw(le64),
  queue_device: rw(le64),
  queue_notif_config_data: ro(le16),
  queue_reset: rw(le16),
  admin_queue_index: ro(le16),
  admin_queue_num: ro(le16),
});

/** Bytes of the common configuration that every device has; the fields behind come with a feature bit each. */
export const COMMON_CFG_BYTES_MIN = virtioPciCommonCfg.fields.queue_notif_config_data.offset;

/** `config_msix_vector` and `queue_msix_vector` when unmapped, or when mapping failed (virtio 1.2 §4.1.5.1.2). */
export const NO_VECTOR = 0xffff;

/** Bits of the ISR status by number; reading it clears it (virtio 1.2 §4.1.4.5). */
export const IsrBit = { QUEUE: 0, CONFIG: 1 } as const;
export const Isr = masksOf(IsrBit);

/** The legacy registers in BAR 0, an I/O BAR (virtio 1.2 §4.1.4.10); device configuration follows while MSI-X is off. */
export const virtioPciLegacy = layout('legacy virtio header', 20, {
  device_features: ro(le32),
  driver_features: rw(le32),
  queue_address: rw(le32),
  queue_size: ro(le16),
  queue_select: rw(le16),
  queue_notify: rw(le16),
  device_status: rw(u8),
  isr_status: ro(u8),
});
/** Two registers that stand between the legacy ones and device configuration while MSI-X is on. */
export const virtioPciLegacyMsix = layout('legacy virtio MSI-X header', 4, {
  config_msix_vector: rw(le16),
  queue_msix_vector: rw(le16),
});
/** `queue_address` counts in pages of this many bytes, which is also the alignment of the used ring. */
export const LEGACY_QUEUE_ALIGNMENT = 4096;
