/** The tables of driver/spec against the Linux headers and the native job structure, by compiling a program that prints them. */

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as control from '../../driver/spec/control.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import type { Layout } from '../../driver/spec/layout.js';
import * as config from '../../driver/spec/net-config.js';
import * as header from '../../driver/spec/net-header.js';
import * as pci from '../../driver/spec/pci.js';
import * as ring from '../../driver/spec/ring.js';
import { StatusBit } from '../../driver/spec/status.js';
import * as vfio from '../../driver/spec/vfio.js';

const test = suite('driver/spec against the headers');

/** A table and the structure that it must match; `names` gives fields that the header calls otherwise (null: has not). */
interface Pair {
  readonly table: Pick<Layout, 'name' | 'bytes' | 'order'>;
  readonly struct: string;
  readonly names?: Readonly<Record<string, string | null>>;
  /** Where the header's structure goes on, or the kernel appends to it from version to version. */
  readonly isPrefix?: true;
}

const capabilityNames = Object.fromEntries(pci.virtioPciCap.order.map((field) => [field.name, `cap.${field.name}`]));

const pairs: readonly Pair[] = [
  { table: ring.virtqDesc, struct: 'vring_desc' },
  { table: ring.virtqAvail, struct: 'vring_avail' },
  { table: ring.virtqUsed, struct: 'vring_used' },
  { table: ring.virtqUsedElem, struct: 'vring_used_elem' },
  { table: ring.pvirtqDesc, struct: 'vring_packed_desc' },
  { table: ring.pvirtqEventSuppress, struct: 'vring_packed_desc_event', names: { desc: 'off_wrap' } },
  { table: header.virtioNetHdrLegacy, struct: 'virtio_net_hdr' },
  { table: header.virtioNetHdr, struct: 'virtio_net_hdr_v1' },
  {
    table: header.virtioNetHdrHash,
    struct: 'virtio_net_hdr_v1_hash',
    names: {
      ...Object.fromEntries(header.virtioNetHdr.order.map((field) => [field.name, `hdr.${field.name}`])),
      padding_reserved: 'padding',
    },
  },
  { table: config.virtioNetConfig, struct: 'virtio_net_config' },
  { table: control.virtioNetCtrlHdr, struct: 'virtio_net_ctrl_hdr', names: { class: 'class_', command: 'cmd' } },
  { table: control.virtioNetCtrlMac, struct: 'virtio_net_ctrl_mac' },
  { table: control.virtioNetCtrlMq, struct: 'virtio_net_ctrl_mq' },
  { table: control.virtioNetRssConfigHead, struct: 'virtio_net_rss_config', isPrefix: true },
  { table: control.virtioNetHashConfig, struct: 'virtio_net_hash_config', isPrefix: true },
  {
    table: control.virtioNetCtrlCoal,
    struct: 'virtio_net_ctrl_coal_tx',
    names: { max_packets: 'tx_max_packets', max_usecs: 'tx_usecs' },
  },
  {
    table: control.virtioNetCtrlCoal,
    struct: 'virtio_net_ctrl_coal_rx',
    names: { max_packets: 'rx_max_packets', max_usecs: 'rx_usecs' },
  },
  { table: pci.virtioPciCap, struct: 'virtio_pci_cap' },
  { table: pci.virtioPciCap64, struct: 'virtio_pci_cap64', names: capabilityNames },
  { table: pci.virtioPciNotifyCap, struct: 'virtio_pci_notify_cap', names: capabilityNames },
  { table: pci.virtioPciCfgCap, struct: 'virtio_pci_cfg_cap', names: capabilityNames },
  {
    table: pci.virtioPciCommonCfg,
    struct: 'virtio_pci_common_cfg',
    isPrefix: true,
    names: {
      driver_feature_select: 'guest_feature_select',
      driver_feature: 'guest_feature',
      config_msix_vector: 'msix_config',
      queue_desc: 'queue_desc_lo',
      queue_driver: 'queue_avail_lo',
      queue_device: 'queue_used_lo',
    },
  },
  { table: vfio.vfioInfoCapHeader, struct: 'vfio_info_cap_header' },
  { table: vfio.vfioGroupStatus, struct: 'vfio_group_status' },
  { table: vfio.vfioDeviceInfo, struct: 'vfio_device_info', isPrefix: true },
  { table: vfio.vfioRegionInfo, struct: 'vfio_region_info' },
  { table: vfio.vfioRegionSparseMmapArea, struct: 'vfio_region_sparse_mmap_area' },
  { table: vfio.vfioIrqInfo, struct: 'vfio_irq_info' },
  { table: vfio.vfioIrqSet, struct: 'vfio_irq_set' },
  { table: vfio.vfioIommuType1Info, struct: 'vfio_iommu_type1_info', names: { pad: null } },
  { table: vfio.vfioIovaRange, struct: 'vfio_iova_range' },
  { table: vfio.vfioDmaMap, struct: 'vfio_iommu_type1_dma_map' },
  { table: vfio.vfioDmaUnmap, struct: 'vfio_iommu_type1_dma_unmap' },
];

/** A number of ours and the constant that it must equal; the first name that is defined counts. */
interface Constant {
  readonly names: readonly string[];
  readonly value: number;
}

const constantsOf = (prefixes: readonly string[], table: Readonly<Record<string, number>>, suffix = ''): Constant[] =>
  Object.entries(table).map(([name, value]) => ({
    names: prefixes.map((prefix) => `${prefix}${name}${suffix}`),
    value,
  }));

const bitsOf = (prefix: string, bits: Readonly<Record<string, number>>): Constant[] =>
  Object.entries(bits).map(([name, number]) => ({ names: [`${prefix}${name}`], value: 2 ** number }));

const commandConstants = Object.entries(control.controlCommands).flatMap(([className, commands]) =>
  constantsOf([`VIRTIO_NET_CTRL_${className}_`], commands),
);

const constants: readonly Constant[] = [
  ...constantsOf(['VIRTIO_NET_F_', 'VIRTIO_F_', 'VIRTIO_RING_F_', 'VHOST_F_', 'VHOST_USER_F_'], Feature),
  ...bitsOf('VIRTIO_CONFIG_S_', StatusBit).map(({ names, value }) => ({
    names: names.map((name) => name.replace('DEVICE_NEEDS', 'NEEDS')),
    value,
  })),
  { names: ['VRING_DESC_F_NEXT'], value: ring.DescFlag.NEXT },
  { names: ['VRING_DESC_F_WRITE'], value: ring.DescFlag.WRITE },
  { names: ['VRING_DESC_F_INDIRECT'], value: ring.DescFlag.INDIRECT },
  { names: ['VRING_PACKED_DESC_F_AVAIL'], value: ring.DescFlagBit.AVAIL },
  { names: ['VRING_PACKED_DESC_F_USED'], value: ring.DescFlagBit.USED },
  { names: ['VRING_AVAIL_F_NO_INTERRUPT'], value: ring.AvailFlag.NO_INTERRUPT },
  { names: ['VRING_USED_F_NO_NOTIFY'], value: ring.UsedFlag.NO_NOTIFY },
  ...constantsOf(['VRING_PACKED_EVENT_FLAG_'], ring.RingEvent),
  { names: ['VRING_PACKED_EVENT_F_WRAP_CTR'], value: ring.RING_EVENT_WRAP_BIT },
  { names: ['VRING_DESC_ALIGN_SIZE'], value: ring.splitRingParts(1).desc.alignment },
  { names: ['VRING_AVAIL_ALIGN_SIZE'], value: ring.splitRingParts(1).driver.alignment },
  { names: ['VRING_USED_ALIGN_SIZE'], value: ring.splitRingParts(1).device.alignment },
  ...bitsOf('VIRTIO_NET_HDR_F_', header.NetHeaderFlagBit),
  ...constantsOf(['VIRTIO_NET_HDR_GSO_'], header.GsoType),
  ...bitsOf('VIRTIO_NET_HDR_GSO_', header.GsoFlagBit),
  ...constantsOf(['VIRTIO_NET_HASH_REPORT_'], header.HashReport),
  ...bitsOf('VIRTIO_NET_S_', config.NetStatusBit),
  { names: ['VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN'], value: config.QUEUE_PAIRS_MIN },
  { names: ['VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX'], value: config.QUEUE_PAIRS_MAX },
  ...bitsOf('VIRTIO_NET_RSS_HASH_TYPE_', config.HashTypeBit),
  ...bitsOf('VIRTIO_NET_HASH_TUNNEL_TYPE_', config.HashTunnelTypeBit),
  ...constantsOf(['VIRTIO_NET_CTRL_'], control.ControlClass),
  ...commandConstants,
  ...constantsOf(['VIRTIO_NET_'], control.ControlAck),
  ...constantsOf(['VIRTIO_PCI_CAP_'], pci.PciCapType, '_CFG').map(({ names, value }) => ({
    names: names.map((name) => name.replace('PCI_CFG_CFG', 'PCI_CFG')),
    value,
  })),
  { names: ['VIRTIO_MSI_NO_VECTOR'], value: pci.NO_VECTOR },
  { names: ['VIRTIO_PCI_ISR_CONFIG'], value: pci.Isr.CONFIG },
  { names: ['VIRTIO_PCI_COMMON_Q_NDATA'], value: pci.virtioPciCommonCfg.fields.queue_notif_config_data.offset },
  { names: ['VIRTIO_PCI_COMMON_Q_RESET'], value: pci.virtioPciCommonCfg.fields.queue_reset.offset },
  { names: ['VIRTIO_PCI_COMMON_ADM_Q_IDX'], value: pci.virtioPciCommonCfg.fields.admin_queue_index.offset },
  { names: ['VIRTIO_PCI_COMMON_ADM_Q_NUM'], value: pci.virtioPciCommonCfg.fields.admin_queue_num.offset },
  { names: ['VIRTIO_PCI_HOST_FEATURES'], value: pci.virtioPciLegacy.fields.device_features.offset },
  { names: ['VIRTIO_PCI_GUEST_FEATURES'], value: pci.virtioPciLegacy.fields.driver_features.offset },
  { names: ['VIRTIO_PCI_QUEUE_PFN'], value: pci.virtioPciLegacy.fields.queue_address.offset },
  { names: ['VIRTIO_PCI_QUEUE_NUM'], value: pci.virtioPciLegacy.fields.queue_size.offset },
  { names: ['VIRTIO_PCI_QUEUE_SEL'], value: pci.virtioPciLegacy.fields.queue_select.offset },
  { names: ['VIRTIO_PCI_QUEUE_NOTIFY'], value: pci.virtioPciLegacy.fields.queue_notify.offset },
  { names: ['VIRTIO_PCI_STATUS'], value: pci.virtioPciLegacy.fields.device_status.offset },
  { names: ['VIRTIO_PCI_ISR'], value: pci.virtioPciLegacy.fields.isr_status.offset },
  {
    names: ['VIRTIO_MSI_CONFIG_VECTOR'],
    value: pci.virtioPciLegacy.bytes + pci.virtioPciLegacyMsix.fields.config_msix_vector.offset,
  },
  {
    names: ['VIRTIO_MSI_QUEUE_VECTOR'],
    value: pci.virtioPciLegacy.bytes + pci.virtioPciLegacyMsix.fields.queue_msix_vector.offset,
  },
  { names: ['VIRTIO_PCI_VRING_ALIGN'], value: pci.LEGACY_QUEUE_ALIGNMENT },
  { names: ['PCI_STD_HEADER_SIZEOF'], value: pci.pciHeader.bytes },
  { names: ['PCI_COMMAND'], value: pci.pciHeader.fields.command.offset },
  { names: ['PCI_STATUS'], value: pci.pciHeader.fields.status.offset },
  { names: ['PCI_CLASS_REVISION'], value: pci.pciHeader.fields.revision_id.offset },
  { names: ['PCI_HEADER_TYPE'], value: pci.pciHeader.fields.header_type.offset },
  { names: ['PCI_BASE_ADDRESS_0'], value: pci.pciHeader.fields.bars.offset },
  { names: ['PCI_SUBSYSTEM_VENDOR_ID'], value: pci.pciHeader.fields.subsystem_vendor_id.offset },
  { names: ['PCI_SUBSYSTEM_ID'], value: pci.pciHeader.fields.subsystem_id.offset },
  { names: ['PCI_CAPABILITY_LIST'], value: pci.pciHeader.fields.capabilities_pointer.offset },
  { names: ['PCI_INTERRUPT_PIN'], value: pci.pciHeader.fields.interrupt_pin.offset },
  ...bitsOf('PCI_COMMAND_', pci.PciCommandBit),
  { names: ['PCI_STATUS_CAP_LIST'], value: pci.PciStatus.CAPABILITIES },
  { names: ['PCI_BASE_ADDRESS_SPACE_IO'], value: pci.PciBar.IO },
  { names: ['PCI_BASE_ADDRESS_MEM_TYPE_64'], value: pci.PciBar.TYPE_64 },
  { names: ['PCI_BASE_ADDRESS_MEM_PREFETCH'], value: pci.PciBar.PREFETCHABLE },
  { names: ['PCI_CAP_ID_VNDR'], value: pci.PciCapabilityId.VENDOR },
  { names: ['PCI_CAP_ID_MSIX'], value: pci.PciCapabilityId.MSIX },
  { names: ['PCI_MSIX_FLAGS'], value: pci.pciMsixCap.fields.message_control.offset },
  { names: ['PCI_MSIX_TABLE'], value: pci.pciMsixCap.fields.table.offset },
  { names: ['PCI_MSIX_PBA'], value: pci.pciMsixCap.fields.pba.offset },
  { names: ['PCI_MSIX_FLAGS_QSIZE'], value: pci.MSIX_TABLE_SIZE_MASK },
  { names: ['PCI_MSIX_FLAGS_MASKALL'], value: pci.MsixControl.FUNCTION_MASK },
  { names: ['PCI_MSIX_FLAGS_ENABLE'], value: pci.MsixControl.ENABLE },
  { names: ['PCI_MSIX_TABLE_BIR'], value: pci.MSIX_BAR_MASK },
  { names: ['PCI_MSIX_ENTRY_SIZE'], value: pci.MSIX_TABLE_ENTRY_BYTES },
  { names: ['VFIO_API_VERSION'], value: vfio.VFIO_API_VERSION },
  ...constantsOf(['VFIO_'], vfio.VfioExtension),
  ...constantsOf(['VFIO_'], vfio.VfioRequest),
  ...bitsOf('VFIO_GROUP_FLAGS_', vfio.VfioGroupFlagBit),
  ...bitsOf('VFIO_DEVICE_FLAGS_', vfio.VfioDeviceFlagBit),
  ...bitsOf('VFIO_REGION_INFO_FLAG_', vfio.VfioRegionFlagBit),
  ...constantsOf(['VFIO_REGION_INFO_CAP_'], vfio.VfioRegionCap),
  ...bitsOf('VFIO_IRQ_INFO_', vfio.VfioIrqFlagBit),
  ...bitsOf('VFIO_IRQ_SET_', vfio.VfioIrqSetFlagBit),
  ...bitsOf('VFIO_IOMMU_INFO_', vfio.VfioIommuInfoFlagBit),
  ...bitsOf('VFIO_DMA_MAP_FLAG_', vfio.VfioDmaMapFlagBit),
  ...bitsOf('VFIO_DMA_UNMAP_FLAG_', vfio.VfioDmaUnmapFlagBit),
  { names: ['VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE'], value: vfio.VfioIommuCap.IOVA_RANGE },
  { names: ['VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION'], value: vfio.VfioIommuCap.MIGRATION },
  { names: ['VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL'], value: vfio.VfioIommuCap.DMA_AVAIL },
];

/** Enumerators have no #ifdef: they are there in every version. */
const enumerators: readonly Constant[] = [
  { names: ['VFIO_PCI_BAR0_REGION_INDEX'], value: vfio.VfioPciRegion.BAR0 },
  { names: ['VFIO_PCI_ROM_REGION_INDEX'], value: vfio.VfioPciRegion.ROM },
  { names: ['VFIO_PCI_CONFIG_REGION_INDEX'], value: vfio.VfioPciRegion.CONFIG },
  { names: ['VFIO_PCI_VGA_REGION_INDEX'], value: vfio.VfioPciRegion.VGA },
  { names: ['VFIO_PCI_INTX_IRQ_INDEX'], value: vfio.VfioPciIrq.INTX },
  { names: ['VFIO_PCI_MSI_IRQ_INDEX'], value: vfio.VfioPciIrq.MSI },
  { names: ['VFIO_PCI_MSIX_IRQ_INDEX'], value: vfio.VfioPciIrq.MSIX },
  { names: ['VFIO_PCI_ERR_IRQ_INDEX'], value: vfio.VfioPciIrq.ERR },
  { names: ['VFIO_PCI_REQ_IRQ_INDEX'], value: vfio.VfioPciIrq.REQ },
];

/**
 * What Linux 6.1 headers (Debian 12) do not have: not covered on that machine, and nothing else may be missing anywhere.
 * Newer headers have some of it, which is then compared.
 */
const newerThanHeaders = new Set(
  `
    virtio_net_config.supported_tunnel_types
    virtio_pci_common_cfg.queue_notif_config_data virtio_pci_common_cfg.queue_reset
    virtio_pci_common_cfg.admin_queue_index virtio_pci_common_cfg.admin_queue_num
    VIRTIO_NET_F_PROTOCOL_FEATURES VIRTIO_NET_F_NOTIFICATION_DATA VIRTIO_NET_F_NOTIF_CONFIG_DATA
    VIRTIO_NET_F_ADMIN_VQ VIRTIO_NET_F_SUSPEND VIRTIO_NET_F_DEVICE_STATS VIRTIO_NET_F_HASH_TUNNEL
    VIRTIO_NET_F_VQ_NOTF_COAL VIRTIO_NET_F_GUEST_USO4 VIRTIO_NET_F_GUEST_USO6 VIRTIO_NET_F_HOST_USO
    VIRTIO_NET_F_GUEST_HDRLEN VIRTIO_NET_F_RSS_CONTEXT VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO
    VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO
    VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO_CSUM VIRTIO_NET_F_OUT_NET_HEADER VIRTIO_NET_F_IPSEC VIRTIO_CONFIG_S_SUSPEND
    VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM VIRTIO_NET_HDR_F_SECURITY VIRTIO_NET_HDR_F_SECURITY_ERR
    VIRTIO_NET_HDR_F_SECURITY_SA_SOFT_EXPIRY_WARN VIRTIO_NET_HDR_GSO_UDP_L4 VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV4
    VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV6 VIRTIO_NET_HASH_TUNNEL_TYPE_GRE_2784 VIRTIO_NET_HASH_TUNNEL_TYPE_GRE_2890
    VIRTIO_NET_HASH_TUNNEL_TYPE_GRE_7676 VIRTIO_NET_HASH_TUNNEL_TYPE_GRE_UDP VIRTIO_NET_HASH_TUNNEL_TYPE_VXLAN
    VIRTIO_NET_HASH_TUNNEL_TYPE_VXLAN_GPE VIRTIO_NET_HASH_TUNNEL_TYPE_GENEVE VIRTIO_NET_HASH_TUNNEL_TYPE_IPIP
    VIRTIO_NET_HASH_TUNNEL_TYPE_NVGRE VIRTIO_NET_CTRL_HASH_TUNNEL VIRTIO_NET_CTRL_STATS VIRTIO_NET_CTRL_RSS_CTX
    VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET VIRTIO_NET_CTRL_HASH_TUNNEL_SET
    VIRTIO_NET_CTRL_STATS_QUERY VIRTIO_NET_CTRL_STATS_GET VIRTIO_NET_CTRL_RSS_CTX_CAP_GET
    VIRTIO_NET_CTRL_RSS_CTX_ADD VIRTIO_NET_CTRL_RSS_CTX_MOD VIRTIO_NET_CTRL_RSS_CTX_DEL
    VIRTIO_PCI_CAP_VENDOR_CFG VIRTIO_PCI_COMMON_ADM_Q_IDX VIRTIO_PCI_COMMON_ADM_Q_NUM
  `
    .trim()
    .split(/\s+/),
);

const linuxHeaders = `
#define class class_
#include <linux/virtio_net.h>
#undef class
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_pci.h>
#include <linux/vhost_types.h>
#include <linux/vhost.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <cstddef>
#include <cstdio>
#define FIELD(S, F)                                                          \\
  []<class T>() -> long {                                                    \\
    if constexpr (requires(T t) { t.F; }) return (long)__builtin_offsetof(T, F); \\
    else return -1;                                                          \\
  }.template operator()<S>()
`;

/** The headers are C: an inline function in them converts from void* as C++ does not. */
const linuxOptions = ['-std=c++20', '-fpermissive', '-w'] as const;

/** Compiles and runs a program; returns its lines `name value` as a map. */
async function printed(source: string, ...options: string[]): Promise<ReadonlyMap<string, number>> {
  const folder = await mkdtemp(join(tmpdir(), 'spec-offsets-'));
  try {
    const file = join(folder, 'offsets.cc');
    const program = join(folder, 'offsets');
    await writeFile(file, source);
    const build = spawnSync('g++', [...options, '-o', program, file], { encoding: 'utf8', timeout: 60_000 });
    assert.is(build.status, 0, `g++ failed: ${build.error?.message ?? ''}${build.stderr}`);
    const run = spawnSync(program, { encoding: 'utf8', timeout: 10_000 });
    assert.is(run.status, 0, run.stderr);
    return new Map(
      run.stdout
        .trim()
        .split('\n')
        .map((line) => line.split(' '))
        .map(([name, value]) => [name!, Number(value)]),
    );
  } finally {
    await rm(folder, { recursive: true });
  }
}

const fieldsOf = (pair: Pair): { key: string; member: string; offset: number; document: string }[] =>
  pair.table.order.flatMap((field) => {
    const name = pair.names?.[field.name] === undefined ? field.name : pair.names[field.name];
    return name === null || name === undefined
      ? []
      : [{ key: `${pair.struct}.${name}`, member: name, offset: field.offset, document: field.name }];
  });

function linuxProgram(): string {
  const lines = pairs.flatMap((pair) => [
    `std::printf("${pair.struct} %zu\\n", sizeof(struct ${pair.struct}));`,
    ...fieldsOf(pair).map(
      ({ key, member }) => `std::printf("${key} %ld\\n", FIELD(struct ${pair.struct}, ${member}));`,
    ),
  ]);
  const constantLines = constants.flatMap(({ names }) => [
    ...names.flatMap((name, index) => [
      index === 0 ? `#if defined(${name})` : `#elif defined(${name})`,
      `std::printf("${names[0]} %lld\\n", (long long)(${name}));`,
    ]),
    '#endif',
  ]);
  const enumeratorLines = enumerators.map(({ names }) => `std::printf("${names[0]} %d\\n", (int)${names[0]});`);
  return `${linuxHeaders}\nint main() {\n${[...lines, ...constantLines, ...enumeratorLines].join('\n')}\n}\n`;
}

test('structures and constants are those of the Linux headers', async () => {
  const found = await printed(linuxProgram(), ...linuxOptions);
  const notCovered: string[] = [];
  const wrong: string[] = [];
  for (const pair of pairs) {
    const bytes = found.get(pair.struct);
    for (const { key, offset, document } of fieldsOf(pair)) {
      const theirs = found.get(key);
      if (theirs === -1 && newerThanHeaders.has(`${pair.struct}.${document}`)) notCovered.push(key);
      else if (theirs !== offset) wrong.push(`${key}: ours ${offset}, header ${theirs}`);
    }
    const mayDiffer = pair.isPrefix === true || notCovered.some((name) => name.startsWith(`${pair.struct}.`));
    if (!mayDiffer && bytes !== pair.table.bytes)
      wrong.push(`${pair.struct}: ours ${pair.table.bytes}, header ${bytes}`);
  }
  for (const { names, value } of [...constants, ...enumerators]) {
    const theirs = found.get(names[0]!);
    if (theirs === undefined && newerThanHeaders.has(names[0]!)) notCovered.push(names[0]!);
    else if (theirs !== value) wrong.push(`${names[0]}: ours ${value}, header ${theirs}`);
  }
  assert.equal(wrong, []);
  console.log(`not covered by the installed headers (${notCovered.length}): ${notCovered.join(' ')}`);
});

test('the copy job is that of the addon', async () => {
  const { CopyDirection, CopyJob, CopyStatus } = await import('../../native/index.js');
  const here = dirname(fileURLToPath(import.meta.url));
  const root = join(here, '..', '..', here.includes(`${join('dist', 'test')}`) ? '..' : '');
  const sources = join(root, 'native', 'src');
  assert.ok(existsSync(join(sources, 'copy_engine.h')));
  const members: Readonly<Record<string, string>> = {
    GUEST_LOW: 'guestLow',
    GUEST_HIGH: 'guestHigh',
    POOL_OFFSET: 'poolOffset',
    LENGTH: 'length',
    DIRECTION: 'direction',
    STATUS: 'status',
    SOURCE: 'source',
  };
  const values: Readonly<Record<string, string>> = {
    FROM_GUEST: 'kFromGuest',
    TO_GUEST: 'kToGuest',
    OK: 'kCopyOk',
    OUTSIDE_MEMORY: 'kOutsideMemory',
    OUTSIDE_POOL: 'kOutsidePool',
    FAULT: 'kFault',
    READ_ONLY: 'kReadOnly',
    NO_TRANSLATION: 'kNoTranslation',
    NO_PERMISSION: 'kNoPermission',
  };
  const print = (name: string, expression: string): string => `std::printf("${name} %ld\\n", (long)(${expression}));`;
  const found = await printed(
    `#include <cstdio>
#include <vector>
#include "copy_engine.h"
using namespace virtio_pmd;
int main() {
${print('WORDS', 'sizeof(CopyJob) / 4')}
${print('WORDS_SHIFT', '__builtin_ctzl(sizeof(CopyJob) / 4)')}
${Object.entries(members)
  .map(([name, member]) => print(name, `offsetof(CopyJob, ${member}) / 4`))
  .join('\n')}
${Object.entries(values)
  .map(([name, value]) => print(name, value))
  .join('\n')}
}
`,
    '-std=c++17',
    '-D_GNU_SOURCE',
    `-I${sources}`,
  );
  assert.equal(Object.fromEntries(found), { ...CopyJob, ...CopyDirection, ...CopyStatus });
});

test('a ring is as large as the headers compute it, virtio 1.2 §2.7', async () => {
  const sizes = [1, 2, 256, 32768];
  const found = await printed(
    `${linuxHeaders}
int main() {
${sizes
  .map(
    (size) => `{ struct vring vr; vring_init(&vr, ${size}, (void*)0x10000, 4096);
std::printf("used_event_${size} %ld\\n", (long)((char*)&vring_used_event(&vr) - (char*)vr.avail));
std::printf("avail_event_${size} %ld\\n", (long)((char*)&vring_avail_event(&vr) - (char*)vr.used)); }`,
  )
  .join('\n')}
}
`,
    ...linuxOptions,
  );
  for (const size of sizes) {
    assert.is(ring.usedEventOffset(size), found.get(`used_event_${size}`));
    assert.is(ring.availEventOffset(size), found.get(`avail_event_${size}`));
    const parts = ring.splitRingParts(size);
    assert.equal([parts.desc.bytes, parts.driver.bytes, parts.device.bytes], [16 * size, 6 + 2 * size, 6 + 8 * size]);
  }
});

test('the net header is 10, 12, 20, 24 or 32 bytes, by the accepted features (virtio 1.2 §5.1.6)', () => {
  const bytes = (...bits: number[]): number => header.netHeaderBytes(FeatureSet.of(...bits));
  assert.is(bytes(), 10);
  assert.is(bytes(Feature.MRG_RXBUF), 12);
  assert.is(bytes(Feature.VERSION_1), 12);
  assert.is(bytes(Feature.VERSION_1, Feature.HASH_REPORT), 20);
  assert.is(bytes(Feature.VERSION_1, Feature.GUEST_UDP_TUNNEL_GSO), 24);
  assert.is(bytes(Feature.VERSION_1, Feature.HOST_UDP_TUNNEL_GSO, Feature.HASH_REPORT), 24);
  assert.is(bytes(Feature.VERSION_1, Feature.OUT_NET_HEADER), 32);
  assert.is(bytes(Feature.VERSION_1, Feature.IPSEC, Feature.HASH_REPORT), 32);
});

test.run();
