/** What is looked at once for the machine: hugepages, the IOMMU, VFIO, limits and rights. */

import { memorySize, plural } from '../output.js';
import { type MachineCheck, notApplicable, type Outcome, ok, trouble } from './finding.js';
import { lockedBytes, mappingsNeeded, needsHugepages, PAGE_SIZES, pageSize, pagesNeeded } from './needs.js';
import type { Situation } from './situation.js';
import { Capability, type Capability as CapabilityNumber, capabilityName } from './user.js';

const IOMMU_GROUPS = '/sys/kernel/iommu_groups';
/** What Linux calls groups that VFIO made up, without an IOMMU. */
const MADE_UP = 'vfio-noiommu';
const VFIO_CONTAINER = '/dev/vfio/vfio';
const VFIO_DRIVER = '/sys/bus/pci/drivers/vfio-pci';
const NOIOMMU_SWITCH = '/sys/module/vfio/parameters/enable_unsafe_noiommu_mode';
const ENTRY_LIMIT = '/sys/module/vfio_iommu_type1/parameters/dma_entry_limit';
const NO_DEVICE = 'no device is to be driven';

const usesVfio = (situation: Situation): boolean => situation.driven.some(({ access }) => access !== 'sysfs');
const wantsIommu = (situation: Situation): boolean => situation.driven.some(({ access }) => access === 'vfio');
const isPhysical = (situation: Situation): boolean =>
  situation.driven.some(({ addressing }) => addressing === 'physical');

/** Free and all hugepages of a size; undefined where the kernel has no pages of it. */
function hugepages({ system }: Situation, folder: string): { free: number; all: number } | undefined {
  const read = (name: string) => system.text(`/sys/kernel/mm/hugepages/${folder}/${name}`);
  const [free, all] = [read('free_hugepages'), read('nr_hugepages')];
  return free === undefined || all === undefined ? undefined : { free: Number(free), all: Number(all) };
}

function hugepageState(situation: Situation): string {
  const sizes = Object.values(PAGE_SIZES).map(({ name, folder }) => {
    const pages = hugepages(situation, folder);
    return pages === undefined ? `none of ${name} in this kernel` : `${pages.free} of ${pages.all} of ${name} free`;
  });
  return sizes.join(', ');
}

function examineHugepages(situation: Situation): Outcome {
  const state = hugepageState(situation);
  const { name, folder, boot } = pageSize(situation);
  const needed = pagesNeeded(situation);
  const pages = hugepages(situation, folder);
  if (!needsHugepages(situation)) {
    const instead = (pages?.free ?? 0) < needed ? '; ordinary pages are used instead' : '';
    return ok(`${state}${instead}`);
  }
  const requirement = `${plural(needed, 'page')} of ${name}, free`;
  if (pages === undefined) return trouble(state, requirement, `boot with hugepagesz=${boot} hugepages=${needed}`);
  if (pages.free >= needed) return ok(`${state}; ${needed} are needed`);
  const all = pages.all - pages.free + needed;
  return trouble(state, requirement, `echo ${all} > /sys/kernel/mm/hugepages/${folder}/nr_hugepages`);
}

/** The least that the control groups of this process leave it of hugepages, and where that is said. */
function controlGroupLimit({ system }: Situation, control: string): { file: string; bytes: number } | undefined {
  const own = (system.text('/proc/self/cgroup') ?? '').split('\n').map((line) => line.split(':'));
  const files = own.flatMap(([, controllers, path = '/']) => {
    const [root, name] = controllers === '' ? ['/sys/fs/cgroup', 'max'] : ['/sys/fs/cgroup/hugetlb', 'limit_in_bytes'];
    if (controllers !== '' && controllers !== 'hugetlb') return [];
    const parts = path.split('/').filter(Boolean);
    return [...parts.keys(), parts.length].map((count) =>
      [root, ...parts.slice(0, count), `hugetlb.${control}.${name}`].join('/'),
    );
  });
  const limits = files.map((file) => ({ file, bytes: Number(system.text(file) ?? 'max') }));
  const sound = limits.filter(({ bytes }) => !Number.isNaN(bytes));
  return sound.sort((a, b) => a.bytes - b.bytes)[0];
}

function examineControlGroup(situation: Situation): Outcome {
  if (!needsHugepages(situation)) return notApplicable('no hugepages are needed');
  const { bytes, control } = pageSize(situation);
  const limit = controlGroupLimit(situation, control);
  const needed = pagesNeeded(situation) * bytes;
  if (limit === undefined) return ok('the control group sets no limit');
  if (limit.bytes >= needed) return ok(`${memorySize(limit.bytes)} allowed`);
  const requirement = `${memorySize(needed)} of hugepages`;
  return trouble(`the control group allows ${memorySize(limit.bytes)}`, requirement, `echo max > ${limit.file}`);
}

/** Why there is no IOMMU, by the tables of the firmware, and what turns one on. */
function iommuAdvice({ system }: Situation): string {
  const tables = system.names('/sys/firmware/acpi/tables');
  if (tables.includes('DMAR')) return 'boot with intel_iommu=on: the firmware has an IOMMU that the kernel leaves off';
  if (tables.includes('IVRS')) return 'boot with amd_iommu=on: the firmware has an IOMMU that the kernel leaves off';
  return (
    'QEMU: -machine q35 -device intel-iommu,intremap=on before other devices; ' +
    'or without one, as root: --pci-access sysfs, or virtio-pmd devbind --noiommu --bind vfio-pci and --pci-access noiommu'
  );
}

function examineIommu(situation: Situation): Outcome {
  const { system } = situation;
  const groups = system.names(IOMMU_GROUPS).filter((group) => system.text(`${IOMMU_GROUPS}/${group}/name`) !== MADE_UP);
  if (groups.length > 0) return ok(plural(groups.length, 'group'));
  if (!wantsIommu(situation))
    return notApplicable(situation.driven.length === 0 ? NO_DEVICE : 'done without, as asked');
  return trouble('none', 'an IOMMU between the device and memory', iommuAdvice(situation));
}

function examineVfio(situation: Situation): Outcome {
  if (!usesVfio(situation)) return notApplicable(situation.driven.length === 0 ? NO_DEVICE : 'sysfs is used');
  const { system, user } = situation;
  if (!system.has(VFIO_DRIVER)) return trouble('the driver vfio-pci is not loaded', 'vfio-pci', 'modprobe vfio-pci');
  const container = system.state(VFIO_CONTAINER);
  if (container === undefined) return trouble(`no ${VFIO_CONTAINER}`, 'the VFIO container', 'modprobe vfio-pci');
  if (user.mayUse(container, 6)) return ok(`vfio-pci is loaded, ${VFIO_CONTAINER} may be opened`);
  return trouble(
    `${VFIO_CONTAINER} may not be opened by user ${user.uid}`,
    'to read and write it',
    `chmod 666 ${VFIO_CONTAINER}`,
  );
}

function examineNoIommu(situation: Situation): Outcome {
  const setting = situation.system.text(NOIOMMU_SWITCH);
  const isOn = setting === 'Y' || setting === '1';
  const chosen = situation.driven.filter(({ access }) => access === 'noiommu');
  if (chosen.length === 0) {
    return notApplicable(isOn ? 'allowed in this kernel, and not asked for' : 'not asked for (--pci-access noiommu)');
  }
  const requirement = 'VFIO that may do without an IOMMU';
  if (setting === undefined) {
    return trouble(
      'this kernel has it not, or vfio is not loaded',
      requirement,
      'modprobe vfio-pci; on a kernel without CONFIG_VFIO_NOIOMMU, such as Debian’s, use --pci-access sysfs',
    );
  }
  if (isOn) return ok('allowed: the devices reach all memory of this machine');
  const names = chosen.map(({ address }) => address).join(' ');
  return trouble('the switch is off', requirement, `virtio-pmd devbind --noiommu --bind vfio-pci ${names}`);
}

/** The rights that reaching a device takes, with what for. */
function examineRights(situation: Situation): Outcome {
  const { driven, user, system } = situation;
  if (driven.length === 0) return notApplicable(NO_DEVICE);
  const needed = new Map<CapabilityNumber, string>();
  if (isPhysical(situation)) needed.set(Capability.SYS_ADMIN, 'to know physical addresses');
  if (driven.some(({ access }) => access === 'noiommu')) needed.set(Capability.SYS_RAWIO, 'for VFIO without an IOMMU');
  if (driven.some(({ access }) => access === 'sysfs'))
    needed.set(Capability.DAC_OVERRIDE, 'to open the device in sysfs');
  const missing = [...needed].filter(([capability]) => !user.can(capability));
  if (missing.length > 0) {
    const what = missing.map(([capability, why]) => `${capabilityName(capability)} ${why}`).join(', ');
    return trouble(
      `user ${user.uid} has not ${what}`,
      'root',
      'run as root, or give the device an IOMMU that it honours (iommu_platform=on)',
    );
  }
  if (isPhysical(situation) && !system.has('/proc/self/pagemap')) {
    return trouble('no /proc/self/pagemap', 'physical addresses', 'a kernel with CONFIG_PROC_PAGE_MONITOR');
  }
  return ok(needed.size === 0 ? `user ${user.uid} needs none` : `user ${user.uid} has what it takes`);
}

function examineMemlock(situation: Situation): Outcome {
  const { driven, user } = situation;
  if (driven.length === 0) return notApplicable(NO_DEVICE);
  const needed = lockedBytes(situation);
  const limit = user.memlockBytes === Number.POSITIVE_INFINITY ? 'unlimited' : memorySize(user.memlockBytes);
  if (user.memlockBytes >= needed) return ok(`${limit}; ${memorySize(needed)} are needed`);
  if (user.can(Capability.IPC_LOCK)) return ok(`${limit}, and this user may pass it`);
  const kilobytes = Math.ceil(needed / 1024);
  return trouble(
    limit,
    memorySize(needed),
    `ulimit -l ${kilobytes} # as root first: prlimit --pid $$ --memlock=${needed}; in a systemd unit: LimitMEMLOCK=${needed}`,
  );
}

function examineMappings(situation: Situation): Outcome {
  const text = situation.system.text(ENTRY_LIMIT);
  if (!wantsIommu(situation)) return notApplicable(situation.driven.length === 0 ? NO_DEVICE : 'no IOMMU is used');
  if (text === undefined) return notApplicable('vfio_iommu_type1 is not loaded');
  const needed = mappingsNeeded(situation);
  if (Number(text) >= needed) return ok(`${text} allowed; ${needed} are needed at most`);
  return trouble(`${text} allowed`, plural(needed, 'mapping'), `echo 65535 > ${ENTRY_LIMIT}`);
}

export const MACHINE_CHECKS: readonly MachineCheck[] = [
  {
    name: 'hugepages',
    looksAt: 'free hugepages of each size, against what rings and packets take',
    examine: examineHugepages,
  },
  { name: 'hugepage limit', looksAt: 'the hugetlb limit of the control group', examine: examineControlGroup },
  { name: 'IOMMU', looksAt: IOMMU_GROUPS, examine: examineIommu },
  { name: 'VFIO', looksAt: `the driver vfio-pci and ${VFIO_CONTAINER}`, examine: examineVfio },
  { name: 'VFIO without IOMMU', looksAt: NOIOMMU_SWITCH, examine: examineNoIommu },
  { name: 'rights', looksAt: 'the capabilities of this user', examine: examineRights },
  { name: 'memlock', looksAt: 'RLIMIT_MEMLOCK, against the memory that devices reach', examine: examineMemlock },
  { name: 'DMA mappings', looksAt: ENTRY_LIMIT, examine: examineMappings },
];
