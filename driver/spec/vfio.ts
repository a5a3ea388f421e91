/** VFIO of Linux as its header has it (linux/vfio.h): requests, structures, regions. Structures are in host order, little-endian here. */

import { masksOf } from './bits.js';
import { layout, le16, le32, le64 } from './layout.js';

/** What VFIO_GET_API_VERSION must answer. */
export const VFIO_API_VERSION = 0;

/** The container, and the folder of group files. */
export const VFIO_CONTAINER_PATH = '/dev/vfio/vfio';
export const VFIO_GROUP_FOLDER = '/dev/vfio';

/** Extensions to ask VFIO_CHECK_EXTENSION for; the IOMMU types also go to VFIO_SET_IOMMU. */
export const VfioExtension = {
  TYPE1_IOMMU: 1,
  TYPE1v2_IOMMU: 3,
  DMA_CC_IOMMU: 4,
  NOIOMMU_IOMMU: 8,
  UNMAP_ALL: 9,
} as const;

/** _IO(';', 100 + number). */
const request = (number: number): number => (';'.charCodeAt(0) << 8) | (100 + number);

/** Requests for `ioctl`. Some numbers serve twice: once on the container, once on the device. */
export const VfioRequest = {
  // Container
  GET_API_VERSION: request(0),
  CHECK_EXTENSION: request(1),
  SET_IOMMU: request(2),
  IOMMU_GET_INFO: request(12),
  IOMMU_MAP_DMA: request(13),
  IOMMU_UNMAP_DMA: request(14),
  // Group
  GROUP_GET_STATUS: request(3),
  GROUP_SET_CONTAINER: request(4),
  GROUP_UNSET_CONTAINER: request(5),
  GROUP_GET_DEVICE_FD: request(6),
  // Device
  DEVICE_GET_INFO: request(7),
  DEVICE_GET_REGION_INFO: request(8),
  DEVICE_GET_IRQ_INFO: request(9),
  DEVICE_SET_IRQS: request(10),
  DEVICE_RESET: request(11),
  DEVICE_IOEVENTFD: request(16),
} as const;

export const vfioInfoCapHeader = layout('vfio_info_cap_header', 8, { id: le16, version: le16, next: le32 });

export const vfioGroupStatus = layout('vfio_group_status', 8, { argsz: le32, flags: le32 });
export const VfioGroupFlagBit = { VIABLE: 0, CONTAINER_SET: 1 } as const;
export const VfioGroupFlag = masksOf(VfioGroupFlagBit);

export const vfioDeviceInfo = layout('vfio_device_info', 20, {
  argsz: le32,
  flags: le32,
  num_regions: le32,
  num_irqs: le32,
  cap_offset: le32,
});
export const VfioDeviceFlagBit = { RESET: 0, PCI: 1, CAPS: 7 } as const;
export const VfioDeviceFlag = masksOf(VfioDeviceFlagBit);

export const vfioRegionInfo = layout('vfio_region_info', 32, {
  argsz: le32,
  flags: le32,
  index: le32,
  cap_offset: le32,
  size: le64,
  offset: le64,
});
export const VfioRegionFlagBit = { READ: 0, WRITE: 1, MMAP: 2, CAPS: 3 } as const;
export const VfioRegionFlag = masksOf(VfioRegionFlagBit);

/** Capabilities of a region. */
export const VfioRegionCap = { SPARSE_MMAP: 1, TYPE: 2, MSIX_MAPPABLE: 3 } as const;
/** What follows `vfio_info_cap_header` of SPARSE_MMAP; areas follow. */
export const vfioRegionSparseMmap = layout('vfio_region_info_cap_sparse_mmap', 8, { nr_areas: le32, reserved: le32 });
export const vfioRegionSparseMmapArea = layout('vfio_region_sparse_mmap_area', 16, { offset: le64, size: le64 });

/** Regions of a PCI device; BARs 0 to 5 are regions 0 to 5. */
export const VfioPciRegion = { BAR0: 0, ROM: 6, CONFIG: 7, VGA: 8 } as const;

export const vfioIrqInfo = layout('vfio_irq_info', 16, { argsz: le32, flags: le32, index: le32, count: le32 });
export const VfioIrqFlagBit = { EVENTFD: 0, MASKABLE: 1, AUTOMASKED: 2, NORESIZE: 3 } as const;
export const VfioIrqFlag = masksOf(VfioIrqFlagBit);

/** What stands before the data of VFIO_DEVICE_SET_IRQS. */
export const vfioIrqSet = layout('vfio_irq_set', 20, {
  argsz: le32,
  flags: le32,
  index: le32,
  start: le32,
  count: le32,
});
export const VfioIrqSetFlagBit = {
  DATA_NONE: 0,
  DATA_BOOL: 1,
  DATA_EVENTFD: 2,
  ACTION_MASK: 3,
  ACTION_UNMASK: 4,
  ACTION_TRIGGER: 5,
} as const;
export const VfioIrqSetFlag = masksOf(VfioIrqSetFlagBit);

/** Interrupts of a PCI device. */
export const VfioPciIrq = { INTX: 0, MSI: 1, MSIX: 2, ERR: 3, REQ: 4 } as const;

/** The structure of VFIO_IOMMU_GET_INFO. */
export const vfioIommuType1Info = layout('vfio_iommu_type1_info', 24, {
  argsz: le32,
  flags: le32,
  iova_pgsizes: le64,
  cap_offset: le32,
  pad: le32,
});
export const VfioIommuInfoFlagBit = { PGSIZES: 0, CAPS: 1 } as const;
export const VfioIommuInfoFlag = masksOf(VfioIommuInfoFlagBit);

/** Capabilities of the IOMMU. */
export const VfioIommuCap = { IOVA_RANGE: 1, MIGRATION: 2, DMA_AVAIL: 3 } as const;
/** What follows `vfio_info_cap_header` of IOVA_RANGE; ranges follow. */
export const vfioIommuIovaRangeHead = layout('vfio_iommu_type1_info_cap_iova_range', 8, {
  nr_iovas: le32,
  reserved: le32,
});
/** A usable range of IOVAs, both ends inclusive. */
export const vfioIovaRange = layout('vfio_iova_range', 16, { start: le64, end: le64 });
/** What follows `vfio_info_cap_header` of DMA_AVAIL: how many more mappings there can be. */
export const vfioIommuDmaAvail = layout('vfio_iommu_type1_info_dma_avail', 4, { avail: le32 });

export const vfioDmaMap = layout('vfio_iommu_type1_dma_map', 32, {
  argsz: le32,
  flags: le32,
  vaddr: le64,
  iova: le64,
  size: le64,
});
/** What the device may do with the memory. */
export const VfioDmaMapFlagBit = { READ: 0, WRITE: 1 } as const;
export const VfioDmaMapFlag = masksOf(VfioDmaMapFlagBit);

/** The structure of VFIO_IOMMU_UNMAP_DMA; on return `size` is what was unmapped. */
export const vfioDmaUnmap = layout('vfio_iommu_type1_dma_unmap', 24, {
  argsz: le32,
  flags: le32,
  iova: le64,
  size: le64,
});
export const VfioDmaUnmapFlagBit = { ALL: 1 } as const;
export const VfioDmaUnmapFlag = masksOf(VfioDmaUnmapFlagBit);
