/** `virtio-pmd doctor SOCKET` on made-up machines: troubles with a vhost-user socket, and with the front-end on it. */

import { chmodSync, mkdirSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import type { DoctorOptions } from '../../driver/cli/doctor/options.js';
import { DoctorMachine, findingOf, mapping, STRANGER, troubles } from '../support/doctor-machine.js';

const test = suite('virtio-pmd doctor: sockets');
const SOCKET = '/run/vm1.sock';

/** A machine with a socket that somebody listens on. */
class SocketMachine extends DoctorMachine {
  readonly #servers: Server[] = [];

  async listen(path = SOCKET): Promise<void> {
    this.folder(path.slice(0, path.lastIndexOf('/')));
    const server = createServer();
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(this.path(path), resolve));
    this.file('/proc/net/unix', `Num Path\n0000000000000000: 00000002 00000000 00010000 0001 01 31337 ${path}\n`);
  }

  /** A guest on the socket, by QEMU. */
  qemu(more: readonly string[], maps: readonly string[], netdev = '', device = ''): void {
    const words = [
      ...['/usr/bin/qemu-system-x86_64', '-chardev', `socket,id=c0,path=${SOCKET}`],
      ...['-netdev', `vhost-user,id=n0,chardev=c0${netdev}`, '-device', `virtio-net-pci,netdev=n0${device}`],
    ];
    this.process(99, 'qemu-system-x86', [...words, ...more], { maps });
  }

  override [Symbol.dispose](): void {
    for (const server of this.#servers) server.close();
    super[Symbol.dispose]();
  }
}

const RAM = mapping(512, 'shared', '/memfd:memory-backend-memfd (deleted)', 1027);
const OTHERS = ['55d0-55e0 r-xp 00000000 08:01 7 /usr/bin/qemu-system-x86_64', mapping(64, 'private', '[heap]', 0)];

interface Case {
  readonly name: string;
  readonly provoke: (machine: SocketMachine) => void | Promise<void>;
  readonly options?: Partial<DoctorOptions>;
  readonly path?: string;
  readonly found: readonly RegExp[];
}

const cases: readonly Case[] = [
  { name: 'a path where nothing is yet has none', provoke: (machine) => machine.folder('/run'), found: [] },
  { name: 'a socket with a listener has none', provoke: (machine) => machine.listen(), found: [] },
  {
    name: 'a guest whose memory is shared has none',
    provoke: async (machine) => {
      await machine.listen();
      machine.qemu(['-m', '512M'], [...OTHERS, RAM]);
    },
    found: [],
  },
  {
    name: '1: guest memory is not in a file',
    provoke: (machine) => {
      machine.folder('/run');
      machine.qemu(['-m', '512'], [...OTHERS, mapping(512, 'private', '', 0)]);
    },
    found: [
      /^shared memory: qemu-system-x86 99 shares 0\.0 MiB; needed: all 512\.0 MiB.*memory-backend-memfd,id=mem,size=512M,share=on.*libvirt/,
    ],
  },
  {
    name: '1: a memory back-end without share=on is a private mapping of its file',
    provoke: (machine) => {
      machine.folder('/run');
      machine.qemu(['-m', 'size=1G'], [mapping(1024, 'private', '/memfd:memory-backend-memfd (deleted)', 1027)]);
    },
    found: [/^shared memory: .*shares 0\.0 MiB; needed: all 1024\.0 MiB.*share=on/],
  },
  {
    name: '1: a part of the memory is shared',
    provoke: (machine) => {
      machine.folder('/run');
      machine.qemu(['-m', '1024M'], [RAM, mapping(512, 'private', '', 0)]);
    },
    found: [/^shared memory: .*shares 512\.0 MiB; needed: all 1024\.0 MiB/],
  },
  {
    name: '1: the same for another front-end',
    provoke: (machine) => {
      machine.folder('/run');
      const words = ['cloud-hypervisor', '--net', `vhost_user=true,socket=${SOCKET}`];
      machine.process(98, 'cloud-hypervisor', words, { maps: [mapping(512, 'private', '', 0)] });
    },
    found: [/^shared memory: cloud-hypervisor 98 shares 0\.0 MiB; .*shared=on/],
  },
  {
    name: '2: more memory regions than a table holds, with small pages',
    provoke: (machine) => {
      machine.folder('/run');
      const pages = Array.from({ length: 9 }, (_, index) =>
        mapping(2, 'shared', `/dev/hugepages/rtemap_${index}`, 50 + index),
      );
      const words = ['dpdk-testpmd', '--vdev', `net_virtio_user0,path=${SOCKET}`];
      machine.process(97, 'dpdk-testpmd', words, { maps: pages });
    },
    found: [
      /^memory regions: 9 files, the smallest of 2\.0 MiB; needed: 8 memory regions at most; do: DPDK: --single-file-segments/,
    ],
  },
  {
    name: '2: one file in many mappings is one region',
    provoke: (machine) => {
      machine.folder('/run');
      const pages = Array.from({ length: 9 }, () => mapping(2, 'shared', '/memfd:rte (deleted)', 50));
      machine.process(97, 'dpdk-testpmd', ['dpdk-testpmd', '--vdev', `virtio_user0,path=${SOCKET}`], { maps: pages });
    },
    found: [],
  },
  {
    name: '11: this user may not connect',
    provoke: async (machine) => {
      await machine.listen();
      machine.user(STRANGER);
      chmodSync(machine.path(SOCKET), 0o660);
    },
    found: [
      /^socket: mode 660, owner \d+:\d+: user 4242 may not connect; .*chown 4242 \/run\/vm1\.sock.*--socket-mode/,
    ],
  },
  {
    name: '11: a group that may connect is enough',
    provoke: async (machine) => {
      await machine.listen();
      machine.user(STRANGER, undefined, String(process.getgid?.() ?? 0));
      chmodSync(machine.path(SOCKET), 0o660);
    },
    found: [],
  },
  {
    name: '11: a folder on the way is closed',
    provoke: (machine) => {
      machine.folder('/run');
      machine.user(STRANGER);
      chmodSync(machine.path('/run'), 0o700);
    },
    found: [/^folder: user 4242 may not enter \/run; .*chmod o\+x \/run/],
  },
  {
    name: '11: no socket can be made in the folder',
    provoke: (machine) => {
      machine.folder('/run');
      machine.user(STRANGER);
    },
    found: [/^folder: user 4242 may not make files in \/run/],
  },
  {
    name: '11: there is no folder',
    provoke: () => {},
    found: [/^folder: no folder \/run; .*do: mkdir -p \/run$/],
  },
  {
    name: '11: a file of another kind is in the way',
    provoke: (machine) => machine.file(SOCKET),
    found: [/^socket: \/run\/vm1\.sock is a file; needed: a socket; do: name another path$/],
  },
  {
    name: '11: SELinux enforces, and the socket has no type of its own',
    provoke: async (machine) => {
      await machine.listen();
      machine.file('/sys/fs/selinux/enforce', '1');
      machine.system.label = () => 'unconfined_u:object_r:var_run_t:s0';
    },
    found: [
      /^SELinux: unconfined_u:object_r:var_run_t:s0; .*semanage fcontext .*qemu_var_run_t .*restorecon -R \/run$/,
    ],
  },
  {
    name: '11: SELinux is content with a type for virtual machines',
    provoke: async (machine) => {
      await machine.listen();
      machine.file('/sys/fs/selinux/enforce', '1');
      machine.system.label = () => 'system_u:object_r:qemu_var_run_t:s0';
    },
    found: [],
  },
  {
    name: '12: the path is longer than a socket’s name may be',
    provoke: (machine) => machine.folder(`/run/${'long/'.repeat(20)}`),
    path: `/run/${'long/'.repeat(20)}vm1.sock`,
    found: [/^path: 113 bytes; needed: a path of 107 bytes at most; do: use \/run\/vm1\.sock$/],
  },
  {
    name: '13: queues without mq=on, and too few vectors',
    provoke: (machine) => {
      machine.folder('/run');
      machine.qemu(['-m', '512M'], [RAM], ',queues=2', ',vectors=3');
    },
    options: { queues: 2 },
    found: [
      /^guest queues: queues=2, mq=off, vectors=3; .*vhost-user,id=n0,…,queues=2 .*mq=on,vectors=6; back-end: --queues 2$/,
    ],
  },
  {
    name: '13: queues as they should be',
    provoke: (machine) => {
      machine.folder('/run');
      machine.qemu(['-m', '512M'], [RAM], ',queues=2', ',mq=on,vectors=6');
    },
    options: { queues: 2 },
    found: [],
  },
  {
    name: '14: rings of 256, as QEMU has them unless told otherwise',
    provoke: (machine) => {
      machine.folder('/run');
      machine.qemu(['-m', '512M'], [RAM], '', ',rx_queue_size=1024');
    },
    options: { ringSize: 1024 },
    found: [/^guest rings: receive 1024, transmit 256; needed: rings of 1024; .*tx_queue_size=1024$/],
  },
  {
    name: '21: guest memory in a folder that no hugetlbfs is mounted on',
    provoke: (machine) => {
      machine.folder('/run');
      const object = 'memory-backend-file,id=mem,size=512M,mem-path=/mnt/huge,share=on';
      machine.qemu(['-m', '512M', '-object', object], [mapping(512, 'shared', '/mnt/huge/qemu', 9)]);
    },
    found: [/^guest pages: \/mnt\/huge is no mounted hugetlbfs; .*do: name a folder below a mounted hugetlbfs/],
  },
];

for (const { name, provoke, options = {}, path = SOCKET, found } of cases) {
  test(name, async () => {
    using machine = new SocketMachine();
    await provoke(machine);
    const lines = troubles(await machine.examine({ sockets: [path] }, options));
    assert.is(lines.length, found.length, `troubles: ${JSON.stringify(lines, undefined, 1)}`);
    for (const [index, part] of found.entries()) assert.match(lines[index]!, part);
  });
}

test('a socket that a process left behind', async () => {
  using machine = new SocketMachine();
  await machine.listen();
  machine.file('/proc/net/unix', 'Num Path\n');
  for (const [pid, words] of [
    [77, ['bash']],
    [2, []],
  ] as const) {
    machine.process(pid, 'any', words);
    machine.remove(`/proc/${pid}/cmdline`);
    machine.file(`/proc/${pid}/cmdline`, words.join('\0'));
  }
  for (const pid of ['self', 77]) machine.link(`/proc/${pid}/ns/net`, 'net:[4026531840]');
  const lines = troubles(await machine.examine({ sockets: [SOCKET] }));
  assert.is(lines.length, 1);
  assert.match(lines[0]!, /^listener: nobody listens.*do: virtio-pmd backend --socket-path=\/run\/vm1\.sock$/);
});

test('nobody in sight is no socket left behind where a listener may be out of sight', async () => {
  for (const hide of [
    (machine: SocketMachine) => {
      machine.file('/proc/net/unix', 'Num Path\n');
      machine.process(77, 'virtio-pmd', ['virtio-pmd']);
      machine.link('/proc/self/ns/net', 'net:[4026531840]');
      machine.link('/proc/77/ns/net', 'net:[4026532999]');
    },
    (machine: SocketMachine) =>
      machine.file('/proc/net/unix', 'Num Path\n0: 00000002 00000000 00010000 0001 01 31337 ./vm1.sock\n'),
    (machine: SocketMachine) => machine.remove('/proc/net/unix'),
  ]) {
    using machine = new SocketMachine();
    await machine.listen();
    hide(machine);
    const findings = await machine.examine({ sockets: [SOCKET] });
    assert.equal(troubles(findings), []);
    assert.match(findingOf(findings, 'listener').value, /another network namespace/);
  }
});

test('a back-end that names the socket is no front-end, and memory that cannot be seen is no verdict', async () => {
  using machine = new SocketMachine();
  mkdirSync(machine.path('/run'));
  machine.process(50, 'node', ['node', 'virtio-pmd', 'backend', `--socket-path=${SOCKET}`]);
  machine.process(51, 'dpdk-testpmd', ['dpdk-testpmd', '--vdev', `net_vhost0,iface=${SOCKET}`]);
  const before = await machine.examine({ sockets: [SOCKET] });
  assert.match(findingOf(before, 'shared memory').value, /no front-end/);
  machine.qemu(['-m', '512M'], []);
  machine.remove('/proc/99/maps');
  const after = await machine.examine({ sockets: [SOCKET] });
  assert.equal(troubles(after), []);
  assert.match(findingOf(after, 'shared memory').value, /qemu-system-x86 99 is not to be seen: run as root/);
});

test.run();
