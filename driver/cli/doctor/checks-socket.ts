/** What is looked at for each vhost-user socket, and for the front-end that is at its other end. */

import { basename } from 'node:path';
import { caps } from '../../spec/caps.js';
import { memorySize, plural } from '../output.js';
import { notApplicable, type Outcome, ok, type SocketCheck, trouble } from './finding.js';
import { guestMemoryBytes, isQemu, memoryPaths, qemuDevice } from './front-end.js';
import type { DoctorOptions } from './options.js';
import { describeProcess } from './processes.js';
import type { Socket } from './socket.js';

const SELINUX = '/sys/fs/selinux/enforce';
/** Types of files that nobody gave one: confined programs may not use them. */
const UNLABELLED = /^(default|unlabeled|var_run|tmp|user_tmp|root|file|admin_home|user_home)_t$/;
const NO_FRONT_END = 'no front-end that names this socket is in sight';
/** Regions that front-ends without CONFIGURE_MEM_SLOTS may have; DPDK's is one. */
const WITHOUT_SLOTS = /virtio_user/;

function examinePath({ path }: Socket): Outcome {
  const bytes = Buffer.byteLength(path);
  if (bytes <= caps.socketPathBytes) return ok(`${bytes} bytes of ${caps.socketPathBytes}`);
  const short = `/run/${basename(path)}`;
  const fix = Buffer.byteLength(short) <= caps.socketPathBytes ? `use ${short}` : 'use a shorter name, below /run';
  return trouble(`${bytes} bytes`, `a path of ${caps.socketPathBytes} bytes at most`, fix);
}

function examineFolder(socket: Socket): Outcome {
  const { folder, folderState, user, state } = socket;
  if (folderState?.kind !== 'folder')
    return trouble(`no folder ${folder}`, 'a folder for the socket', `mkdir -p ${folder}`);
  const closed = socket.closedFolder;
  if (closed !== undefined)
    return trouble(`user ${user.uid} may not enter ${closed}`, 'to enter it', `chmod o+x ${closed}`);
  if (state !== undefined || user.mayUse(folderState, 3)) return ok(folder);
  return trouble(
    `user ${user.uid} may not make files in ${folder}`,
    'to make the socket there',
    `chown ${user.uid} ${folder}`,
  );
}

function examineFile(socket: Socket): Outcome {
  const { absolute, state, user } = socket;
  if (state === undefined) return ok('not there yet: a back-end can listen here');
  // It is somebody's, and no business of a back-end.
  if (state.kind !== 'socket') return trouble(`${absolute} is a ${state.kind}`, 'a socket', 'name another path');
  const mode = `mode ${state.mode.toString(8)}, owner ${state.uid}:${state.gid}`;
  // Connecting takes the right to write (unix(7)).
  if (user.mayUse(state, 2)) return ok(mode);
  return trouble(
    `${mode}: user ${user.uid} may not connect`,
    'the right to write it',
    `chown ${user.uid} ${absolute} # or start the back-end with --socket-mode 660 --socket-group GROUP`,
  );
}

function examineListener(socket: Socket): Outcome {
  if (socket.state === undefined) return notApplicable('there is no socket yet');
  if (socket.state.kind !== 'socket') return notApplicable('it is no socket');
  const { listener } = socket;
  if (listener === 'there') return ok('somebody listens');
  if (listener === 'unknown')
    return notApplicable('nobody in sight; one may be in another network namespace, or have bound a relative path');
  return trouble(
    'nobody listens: it was left behind',
    'a back-end, or a front-end with server=on',
    `virtio-pmd backend --socket-path=${socket.path}`,
  );
}

function examineLabel(socket: Socket): Outcome {
  if (socket.system.text(SELINUX) !== '1') return notApplicable('SELinux does not enforce here');
  if (socket.state === undefined) return notApplicable('there is no socket yet');
  const label = socket.system.label(socket.absolute) ?? '';
  const type = label.split(':')[2] ?? '';
  if (!UNLABELLED.test(type)) return ok(label);
  const pattern = `${socket.folder}(/.*)?`;
  return trouble(
    label,
    'a type that virtual machines may use, such as qemu_var_run_t',
    `semanage fcontext -a -t qemu_var_run_t '${pattern}' && restorecon -R ${socket.folder}`,
  );
}

/** How memory of a front-end is shared, in the words of its own command line. */
function sharingAdvice(socket: Socket): string {
  const { frontEnd } = socket;
  if (frontEnd === undefined || !isQemu(frontEnd)) return 'cloud-hypervisor: --memory size=…,shared=on';
  const bytes = guestMemoryBytes(frontEnd);
  const size = bytes === undefined ? 'SIZE' : `${bytes / 2 ** 20}M`;
  return `QEMU: -object memory-backend-memfd,id=mem,size=${size},share=on -numa node,memdev=mem; libvirt: <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>`;
}

function examineSharing(socket: Socket): Outcome {
  const { frontEnd } = socket;
  if (frontEnd === undefined) return notApplicable(NO_FRONT_END);
  if (!socket.isFrontEndVisible)
    return notApplicable(`the memory of ${describeProcess(frontEnd)} is not to be seen: run as root`);
  const shared = socket.sharedMemory.reduce((sum, { bytes }) => sum + bytes, 0);
  const guest = guestMemoryBytes(frontEnd);
  const value = `${describeProcess(frontEnd)} shares ${memorySize(shared)}`;
  const needed = guest ?? 1;
  if (shared >= needed) return ok(guest === undefined ? value : `${value} of ${memorySize(guest)}`);
  const all = guest === undefined ? 'its memory' : `all ${memorySize(guest)} of guest memory`;
  return trouble(value, `${all} in a file that is shared`, sharingAdvice(socket));
}

function examineRegions(socket: Socket): Outcome {
  const { frontEnd } = socket;
  if (frontEnd === undefined || !socket.isFrontEndVisible) return notApplicable(NO_FRONT_END);
  const regions = socket.sharedMemory;
  const isLimited = frontEnd.arguments.some((word) => WITHOUT_SLOTS.test(word));
  const most = isLimited ? caps.tableRegions : caps.memorySlots;
  const smallest = Math.min(...regions.map(({ bytes }) => bytes));
  const value =
    regions.length === 0 ? 'none' : `${plural(regions.length, 'file')}, the smallest of ${memorySize(smallest)}`;
  if (regions.length <= most) return ok(`${value}; ${most} at most`);
  return trouble(value, `${most} memory regions at most`, 'DPDK: --single-file-segments; or larger hugepages');
}

/** Memory in a file outside of a hugetlbfs is on ordinary pages, and the file fills the disk. */
function examinePages(socket: Socket): Outcome {
  const { frontEnd, system } = socket;
  if (frontEnd === undefined) return notApplicable(NO_FRONT_END);
  const paths = memoryPaths(frontEnd);
  if (paths.length === 0) return notApplicable('its memory is in no named file');
  const mounts = (system.text('/proc/mounts') ?? '').split('\n').map((line) => line.split(' '));
  const places = mounts.filter(([, , type]) => type === 'hugetlbfs' || type === 'tmpfs').map(([, place]) => place!);
  const outside = paths.find((path) => !places.some((place) => path === place || path.startsWith(`${place}/`)));
  if (outside === undefined) return ok(paths.join(', '));
  return trouble(
    `${outside} is no mounted hugetlbfs`,
    'guest memory on hugepages',
    'name a folder below a mounted hugetlbfs, such as /dev/hugepages, as mem-path; or use memory-backend-memfd with hugetlb=on',
  );
}

function examineQueues(socket: Socket, { queues }: DoctorOptions): Outcome {
  const device = socket.frontEnd === undefined ? undefined : qemuDevice(socket.frontEnd, socket.absolute);
  if (device === undefined) return notApplicable(NO_FRONT_END);
  const value = `queues=${device.queues}, mq=${device.isMultiqueue ? 'on' : 'off'}, vectors=${device.vectors ?? 'default'}`;
  const guestHas = device.isMultiqueue ? device.queues : 1;
  const vectors = 2 * queues + 2;
  const isShort = queues > 1 && device.vectors !== undefined && device.vectors > 0 && device.vectors < vectors;
  if (guestHas >= queues && !isShort) return ok(value);
  return trouble(
    value,
    `${queues} queue pairs`,
    `QEMU: -netdev vhost-user,id=${device.netdev},…,queues=${queues} -device virtio-net-pci,netdev=${device.netdev},mq=on,vectors=${vectors}; back-end: --queues ${queues}`,
  );
}

function examineRingSize(socket: Socket, { ringSize }: DoctorOptions): Outcome {
  const device = socket.frontEnd === undefined ? undefined : qemuDevice(socket.frontEnd, socket.absolute);
  if (device === undefined) return notApplicable(NO_FRONT_END);
  const value = `receive ${device.receiveRingSize}, transmit ${device.transmitRingSize}`;
  if (Math.min(device.receiveRingSize, device.transmitRingSize) >= ringSize)
    return ok(`${value}; ${ringSize} asked for`);
  return trouble(
    value,
    `rings of ${ringSize}`,
    `QEMU: -device virtio-net-pci,rx_queue_size=${ringSize},tx_queue_size=${ringSize}`,
  );
}

export const SOCKET_CHECKS: readonly SocketCheck[] = [
  { name: 'path', looksAt: 'the length of the path', examine: examinePath },
  { name: 'folder', looksAt: 'whether the folder is there, and may be used', examine: examineFolder },
  { name: 'socket', looksAt: 'what the file is, and who may connect', examine: examineFile },
  { name: 'listener', looksAt: '/proc/net/unix', examine: examineListener },
  { name: 'SELinux', looksAt: 'the label of the socket', examine: examineLabel },
  { name: 'shared memory', looksAt: 'the memory of the front-end, in /proc/PID/maps', examine: examineSharing },
  { name: 'memory regions', looksAt: 'the files of that memory', examine: examineRegions },
  { name: 'guest pages', looksAt: 'where the front-end keeps memory files', examine: examinePages },
  { name: 'guest queues', looksAt: 'the front-end’s queues, mq and vectors, against --queues', examine: examineQueues },
  { name: 'guest rings', looksAt: 'the front-end’s ring sizes, against --ring-size', examine: examineRingSize },
];
