/** Made-up machines for the doctor: a tree of files as the kernel shows them, sound until something is changed. */

import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { examine } from '../../driver/cli/doctor/examination.js';
import type { Finding } from '../../driver/cli/doctor/finding.js';
import type { DoctorOptions } from '../../driver/cli/doctor/options.js';
import type { Targets } from '../../driver/cli/doctor/situation.js';
import { System, type SystemOptions } from '../../driver/cli/doctor/system.js';
import type { DeviceFacts } from '../../driver/pci/device-facts.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';

export const DEVICE = '0000:00:04.0';
export const ROOT_CAPABILITIES = '000001ffffffffff';
/** Neither root nor the owner of anything. */
export const STRANGER = 4242;

export const DEFAULTS: DoctorOptions = { pciAccess: 'vfio', queues: 1, ringSize: 256, burst: 32, memory: 'auto' };

/** What a device of two queue pairs behind an IOMMU answers. */
export const FACTS: DeviceFacts = {
  features: FeatureSet.of(Feature.VERSION_1, Feature.ACCESS_PLATFORM, Feature.MQ),
  queuePairs: 2,
  ringSizes: [1024, 256],
  interruptVectors: 6,
};

export interface FunctionShape {
  /** Default 0x1af4:0x1041, a network controller. */
  readonly vendor?: string;
  readonly device?: string;
  readonly class?: string;
  /** Default vfio-pci; empty for none. */
  readonly driver?: string;
  /** Default 3; empty for none. */
  readonly group?: string;
  /** Its interface, while virtio-pci has it. */
  readonly interface?: string;
  /** Feature bits that the kernel's driver took. */
  readonly features?: readonly number[];
}

export class DoctorMachine {
  readonly root = mkdtempSync(join(tmpdir(), 'dr-'));
  /** What of the machine is no file. */
  readonly system: { -readonly [K in keyof SystemOptions]: SystemOptions[K] } = {
    addresses: new Map(),
    probe: async () => FACTS,
    label: () => '?',
  };

  /** A guest with an IOMMU, as root, with one device that is bound to vfio-pci. */
  constructor() {
    this.file('/etc/os-release', 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n');
    this.file('/proc/sys/kernel/osrelease', '6.1.0-56-amd64\n');
    this.file(
      '/proc/cpuinfo',
      'processor\t: 0\nflags\t\t: fpu hypervisor\nprocessor\t: 1\nflags\t\t: fpu hypervisor\n',
    );
    this.file('/proc/meminfo', 'MemTotal:         524288 kB\n');
    this.file('/proc/net/unix', 'Num       RefCount Protocol Flags    Type St Inode Path\n');
    this.file('/proc/mounts', 'hugetlbfs /dev/hugepages hugetlbfs rw 0 0\n');
    this.file('/proc/self/pagemap');
    this.user(0, ROOT_CAPABILITIES);
    this.memlock('unlimited');
    this.hugepages('2048kB', 48, 48);
    this.hugepages('1048576kB', 0, 0);
    this.file('/dev/vfio/vfio');
    this.file('/sys/module/vfio_iommu_type1/parameters/dma_entry_limit', '65535\n');
    this.folder('/sys/bus/pci/drivers/vfio-pci');
    this.fn(DEVICE);
  }

  /** Where a path of the machine is on this one. */
  path(path: string): string {
    return join(this.root, path);
  }

  file(path: string, text = '', mode = 0o644): void {
    mkdirSync(dirname(this.path(path)), { recursive: true });
    writeFileSync(this.path(path), text, { mode });
  }

  folder(path: string): void {
    mkdirSync(this.path(path), { recursive: true });
  }

  link(path: string, target: string): void {
    mkdirSync(dirname(this.path(path)), { recursive: true });
    this.remove(path);
    symlinkSync(target, this.path(path));
  }

  remove(path: string): void {
    rmSync(this.path(path), { recursive: true, force: true });
  }

  /** Who looks. */
  user(uid: number, capabilities = '0000000000000000', groups = ''): void {
    const ids = `${uid}\t${uid}\t${uid}\t${uid}`;
    this.file('/proc/self/status', `Uid:\t${ids}\nGid:\t${ids}\nGroups:\t${groups}\nCapEff:\t${capabilities}\n`);
  }

  memlock(limit: number | 'unlimited'): void {
    const line = `Max locked memory         ${limit}              ${limit}              bytes     \n`;
    this.file(
      '/proc/self/limits',
      `Limit                     Soft Limit           Hard Limit           Units     \n${line}`,
    );
  }

  hugepages(size: '2048kB' | '1048576kB', all: number, free: number): void {
    this.file(`/sys/kernel/mm/hugepages/hugepages-${size}/nr_hugepages`, `${all}\n`);
    this.file(`/sys/kernel/mm/hugepages/hugepages-${size}/free_hugepages`, `${free}\n`);
  }

  /** A PCI function, anew where there is one. */
  fn(address: string, shape: FunctionShape = {}): void {
    const { vendor = '0x1af4', device = '0x1041', driver = 'vfio-pci', group = '3' } = shape;
    const folder = `/sys/bus/pci/devices/${address}`;
    this.remove(folder);
    this.file(`${folder}/vendor`, `${vendor}\n`);
    this.file(`${folder}/device`, `${device}\n`);
    this.file(`${folder}/class`, `${shape.class ?? '0x020000'}\n`);
    if (driver !== '') this.link(`${folder}/driver`, `../../drivers/${driver}`);
    if (shape.interface !== undefined) this.folder(`${folder}/virtio0/net/${shape.interface}`);
    if (shape.features !== undefined) {
      const digits = Array.from({ length: 64 }, (_, bit) => (shape.features?.includes(bit) === true ? '1' : '0'));
      this.file(`${folder}/virtio0/features`, `${digits.join('')}\n`);
      this.folder('/sys/bus/virtio/drivers/virtio_net');
      this.link(`${folder}/virtio0/driver`, '../../../../virtio/drivers/virtio_net');
    }
    if (group === '') return;
    this.link(`${folder}/iommu_group`, `../../../../kernel/iommu_groups/${group}`);
    this.folder(`/sys/kernel/iommu_groups/${group}/devices/${address}`);
    if (driver === 'vfio-pci') this.file(`/dev/vfio/${group}`);
  }

  /** Takes the IOMMU away, with the groups of all functions. */
  withoutIommu(): void {
    this.remove('/sys/kernel/iommu_groups');
    this.remove(`/sys/bus/pci/devices/${DEVICE}/iommu_group`);
  }

  /** VFIO without an IOMMU, allowed and in use, as `devbind --noiommu --bind vfio-pci` leaves it. */
  withNoIommuVfio(): void {
    this.file('/sys/module/vfio/parameters/enable_unsafe_noiommu_mode', 'Y\n');
    this.file('/sys/kernel/iommu_groups/3/name', 'vfio-noiommu\n');
    this.file('/dev/vfio/noiommu-3');
  }

  /** A program that runs, with its descriptors and its memory. */
  process(
    pid: number,
    name: string,
    words: readonly string[],
    more: { readonly open?: readonly string[]; readonly maps?: readonly string[] } = {},
  ): void {
    this.file(`/proc/${pid}/comm`, `${name}\n`);
    this.file(`/proc/${pid}/cmdline`, `${words.join('\0')}\0`);
    this.file(`/proc/${pid}/maps`, `${(more.maps ?? []).join('\n')}\n`);
    for (const [fd, path] of (more.open ?? []).entries()) this.link(`/proc/${pid}/fd/${fd}`, path);
  }

  async examine(targets: Partial<Targets> = {}, options: Partial<DoctorOptions> = {}): Promise<readonly Finding[]> {
    const system = new System({ ...this.system, root: this.root });
    const asked = { addresses: [], sockets: [], ...targets };
    return (await examine(system, asked, { ...DEFAULTS, ...options })).findings;
  }

  [Symbol.dispose](): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}

/** A line of /proc/PID/maps. */
export function mapping(megabytes: number, kind: 'shared' | 'private', path: string, inode: number): string {
  const start = 0x7f0000000000n;
  const end = start + BigInt(megabytes) * 0x100000n;
  const rights = kind === 'shared' ? 'rw-s' : 'rw-p';
  return `${start.toString(16)}-${end.toString(16)} ${rights} 00000000 00:01 ${inode}                       ${path}`;
}

const isTrouble = (finding: Finding): boolean => finding.verdict === 'trouble';

/** What there is to say, a line each: `IOMMU group: 3, not viable: …; needed: …; do: …`. */
export const troubles = (findings: readonly Finding[]): string[] =>
  findings.filter(isTrouble).map((finding) => {
    const { check, value } = finding;
    return finding.verdict === 'trouble'
      ? `${check}: ${value}; needed: ${finding.requirement}; do: ${finding.fix}`
      : '';
  });

/** What a check found of the only subject that it was run on. */
export function findingOf(findings: readonly Finding[], check: string): Finding {
  const [found, more] = findings.filter((finding) => finding.check === check);
  if (found === undefined || more !== undefined) throw new Error(`not one finding of ${check}`);
  return found;
}
