/** What is looked at for each device that is to be driven. */

import type { Device } from './device.js';
import { type DeviceCheck, notApplicable, type Outcome, ok, trouble } from './finding.js';
import type { DoctorOptions } from './options.js';
import { describeProcess } from './processes.js';

const NOT_VIRTIO = 'it is no virtio network device';
/** Rings shorter than this many bursts run dry between two polls. */
const BURSTS_IN_RING = 4;

function examineDevice(device: Device): Outcome {
  if (!device.isThere) {
    return trouble('there is no such PCI device', 'a device of this machine', 'virtio-pmd devbind --status');
  }
  if (device.isVirtioNet) return ok(`${device.fn?.id}, a virtio network device`);
  return trouble(
    `${device.identity}, not a virtio network device`,
    'a virtio network device (1af4:1000 or 1af4:1041)',
    'virtio-pmd devbind --status',
  );
}

function examineDriver(device: Device): Outcome {
  if (!device.isVirtioNet) return notApplicable(NOT_VIRTIO);
  const driver = device.fn?.driver;
  const { address, access } = device;
  const value = driver ?? 'none';
  if (access === 'sysfs') {
    const isFree = driver === undefined || driver === 'uio_pci_generic' || driver === 'vfio-pci';
    return isFree ? ok(value) : trouble(value, 'no driver', `virtio-pmd devbind --unbind ${address}`);
  }
  if (driver === 'vfio-pci') return ok(value);
  const noIommu = access === 'noiommu' ? '--noiommu ' : '';
  return trouble(value, 'vfio-pci', `virtio-pmd devbind ${noIommu}--bind vfio-pci ${address}`);
}

function examineTraffic(device: Device): Outcome {
  const { fn, address } = device;
  if (fn === undefined || fn.interfaces.length === 0) return notApplicable('it has no interface in the kernel');
  const names = fn.interfaces.join(', ');
  if (!fn.carriesDefaultRoute && !fn.carriesLogin) return ok(`${names} carries neither default route nor login`);
  return trouble(
    `${names} carries ${fn.carriesDefaultRoute ? 'the default route' : 'a login over SSH'}`,
    'a device that this machine can do without',
    `virtio-pmd devbind --status # and take another; or, to lose this one: devbind --force --bind vfio-pci ${address}`,
  );
}

function examineGroup(device: Device): Outcome {
  if (!device.isVirtioNet) return notApplicable(NOT_VIRTIO);
  if (device.access === 'sysfs') return notApplicable('sysfs needs none');
  const group = device.fn?.iommuGroup;
  if (group === undefined) {
    if (device.access === 'noiommu') return notApplicable('VFIO makes one up when it gets the device');
    return trouble(
      'none: it is behind no IOMMU',
      'an IOMMU group',
      'put it behind the IOMMU (not on a bus with bypass_iommu), or without, as root: --pci-access sysfs',
    );
  }
  if (device.isWithoutIommu !== (device.access === 'noiommu')) {
    const [is, way] = device.isWithoutIommu
      ? ['made up by VFIO, without an IOMMU', 'noiommu']
      : ['of an IOMMU', 'vfio'];
    return trouble(`${group}, ${is}`, `a group for --pci-access ${device.access}`, `use --pci-access ${way}`);
  }
  const obstacles = device.groupObstacles;
  if (obstacles.length === 0) return ok(`${group}, viable`);
  const named = obstacles.map(({ address, driver }) => `${address} with ${driver}`).join(', ');
  const addresses = obstacles.map(({ address }) => address).join(' ');
  return trouble(
    `${group}, not viable: ${named}`,
    'every function of the group with vfio-pci or no driver',
    `virtio-pmd devbind --bind vfio-pci ${addresses}`,
  );
}

function examineAccess(device: Device): Outcome {
  const [holder] = device.holders;
  if (holder !== undefined) {
    return trouble(
      `in use by ${describeProcess(holder)}`,
      'nobody else who drives it',
      `stop process ${holder.pid} in its own way, or take another device: virtio-pmd devbind --status`,
    );
  }
  const file = device.groupFile;
  if (file === undefined) {
    return notApplicable(device.access === 'sysfs' ? 'sysfs is used' : 'vfio-pci does not have it');
  }
  const state = device.system.state(file);
  if (state === undefined) return trouble(`${file} is not there`, 'the file of its group', 'modprobe vfio-pci');
  const { user } = device;
  if (!user.mayUse(state, 6)) {
    return trouble(
      `${file} may not be opened by user ${user.uid}`,
      'to read and write it',
      `chown ${user.uid} ${file}`,
    );
  }
  if (device.refusal === undefined) return ok(`${file} may be opened`);
  const { message, advice = 'see dmesg', code } = device.refusal;
  return trouble(`${code}: ${message}`, 'a device that opens', advice);
}

function examineAddressing(device: Device): Outcome {
  if (!device.isVirtioNet) return notApplicable(NOT_VIRTIO);
  const { addressing, access } = device;
  if (addressing === 'translated') return ok('the driver’s own: the device keeps to the IOMMU (ACCESS_PLATFORM)');
  if (access !== 'vfio') return ok('physical: nothing stands between the device and memory');
  if (addressing === 'physical') return ok('physical: the device goes past the IOMMU (no ACCESS_PLATFORM)');
  return notApplicable('not known before vfio-pci has the device and this user may open it');
}

function examineQueues(device: Device, { queues }: DoctorOptions): Outcome {
  const { queuePairs } = device.facts;
  if (queuePairs === undefined) return notApplicable(`not known yet; ${queues} asked for`);
  if (queuePairs >= queues) return ok(`${queuePairs}; ${queues} asked for`);
  return trouble(
    `${queuePairs}`,
    `${queues} queue pairs`,
    `QEMU: -netdev …,queues=${queues} -device virtio-net-pci,mq=on,vectors=${2 * queues + 2}, and as many of the back-end; or --queues ${queuePairs}`,
  );
}

function examineRingSize(device: Device, { ringSize, burst }: DoctorOptions): Outcome {
  const [receive, transmit] = device.facts.ringSizes ?? [];
  const largest = Math.min(receive ?? Number.POSITIVE_INFINITY, transmit ?? Number.POSITIVE_INFINITY);
  const has = receive === undefined ? 'not known yet' : `receive ${receive}, transmit ${transmit}`;
  const gets = Math.min(largest, ringSize);
  if (gets < BURSTS_IN_RING * burst) {
    const fix = `use a burst of ${Math.floor(gets / BURSTS_IN_RING)}; QEMU: rx_queue_size=1024,tx_queue_size=1024`;
    return trouble(`rings of ${gets}, bursts of ${burst}`, `rings of ${BURSTS_IN_RING} bursts at least`, fix);
  }
  if (largest < ringSize) {
    const fix = `use --ring-size ${largest}; QEMU: rx_queue_size=${ringSize},tx_queue_size=${ringSize}`;
    return trouble(`${has}`, `rings of ${ringSize}`, fix);
  }
  return receive === undefined ? notApplicable(`${has}; ${ringSize} asked for`) : ok(`${has}; ${ringSize} asked for`);
}

function examineVectors(device: Device, options: DoctorOptions): Outcome {
  const vectors = device.facts.interruptVectors;
  const has = vectors === undefined ? 'not known to this user' : `${vectors} vectors`;
  if (options.interrupts !== true) return notApplicable(`${has}; none are needed to poll`);
  const needed = options.queues + 1;
  const requirement = `${needed} vectors: one for each receive queue, one for configuration`;
  if (device.access === 'sysfs') return trouble('none through sysfs', requirement, 'poll, or use VFIO behind an IOMMU');
  if (vectors === undefined) return notApplicable(`${has}; ${needed} are needed`);
  if (vectors >= needed) return ok(`${has}; ${needed} are needed`);
  return trouble(has, requirement, `QEMU: -device virtio-net-pci,vectors=${2 * options.queues + 2}`);
}

export const DEVICE_CHECKS: readonly DeviceCheck[] = [
  { name: 'device', looksAt: 'whether it is there, and a virtio network device', examine: examineDevice },
  { name: 'traffic', looksAt: 'default routes and logins over its interfaces', examine: examineTraffic },
  { name: 'driver', looksAt: 'the driver that has it', examine: examineDriver },
  { name: 'IOMMU group', looksAt: 'its group, and who has the other functions of that', examine: examineGroup },
  {
    name: 'access',
    looksAt: 'the files it is driven by: who may open them, and who has them open',
    examine: examineAccess,
  },
  { name: 'DMA addresses', looksAt: 'whether the device keeps to the IOMMU', examine: examineAddressing },
  { name: 'queues', looksAt: 'queue pairs, against --queues', examine: examineQueues },
  { name: 'ring size', looksAt: 'the largest rings, against --ring-size and --burst', examine: examineRingSize },
  { name: 'interrupts', looksAt: 'MSI-X vectors, against --queues with --interrupts', examine: examineVectors },
];
