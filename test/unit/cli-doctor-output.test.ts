/** What `virtio-pmd doctor` prints, and the status it ends with; on made-up machines and on this one. */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { doctor, targetsOf } from '../../driver/cli/doctor/doctor.js';
import type { DoctorOptions } from '../../driver/cli/doctor/options.js';
import { System } from '../../driver/cli/doctor/system.js';
import { VirtioError } from '../../driver/errors.js';
import { DEFAULTS, DEVICE, DoctorMachine } from '../support/doctor-machine.js';

const test = suite('virtio-pmd doctor: output');
const CLI = fileURLToPath(new URL('../../driver/cli/main.js', import.meta.url));

interface Entry {
  readonly check: string;
  readonly subject: string;
  readonly verdict: string;
  readonly value: string;
  readonly looksAt: string;
  readonly requirement?: string;
  readonly fix?: string;
}

/** Runs it on a made-up machine; what it printed, and its status. */
async function run(machine: DoctorMachine, names: readonly string[], options: Partial<DoctorOptions> = {}) {
  const printed: string[] = [];
  const { write } = process.stdout;
  process.stdout.write = ((text: string, done: () => void) => {
    printed.push(text);
    done();
    return true;
  }) as typeof write;
  try {
    const system = new System({ ...machine.system, root: machine.root });
    const status = await doctor(names, { ...DEFAULTS, ...options }, system);
    return { status, output: printed.join('') };
  } finally {
    process.stdout.write = write;
  }
}

test('all is well: the machine, its devices, a line a check, status 0', async () => {
  using machine = new DoctorMachine();
  machine.fn('0000:00:03.0', { driver: 'virtio-pci', interface: 'eth0', group: '2' });
  const { status, output } = await run(machine, []);
  assert.is(status, 0, output);
  const lines = output.trimEnd().split('\n');
  assert.match(
    lines[0]!,
    /^This machine: Debian GNU\/Linux 12 \(bookworm\), kernel 6\.1\.0-56-amd64, \S+, 2 processors, 0\.5 GiB/,
  );
  assert.ok(lines.includes('  0000:00:03.0  1af4:1041, virtio-pci, eth0, IOMMU group 2'), output);
  assert.ok(lines.includes('  0000:00:04.0  1af4:1041, vfio-pci, IOMMU group 3'), output);
  assert.ok(lines.includes('machine:') && lines.includes(`${DEVICE}:`), 'the device of the kernel is not examined');
  assert.ok(lines.includes('  ok       IOMMU group: 3, viable'), output);
  assert.match(lines.at(-1)!, /^All is well: 17 checks, \d+ of them not applicable here\.$/);
});

test('trouble: what there is, what is needed and what to do, in the check’s line; status 1', async () => {
  using machine = new DoctorMachine();
  machine.fn(DEVICE, { driver: 'virtio-pci' });
  const { status, output } = await run(machine, ['00:04.0']);
  assert.is(status, 1);
  assert.match(
    output,
    /^ {2}TROUBLE {2}driver: virtio-pci; needed: vfio-pci; do: virtio-pmd devbind --bind vfio-pci 0000:00:04\.0$/m,
  );
  assert.match(output, /^1 trouble in 17 checks/m);
});

test('no device that the kernel leaves alone: nothing is missing, and it says how to ask about one', async () => {
  using machine = new DoctorMachine();
  machine.withoutIommu();
  machine.fn(DEVICE, { driver: 'virtio-pci', group: '' });
  const { status, output } = await run(machine, []);
  assert.is(status, 0, output);
  assert.match(output, /The kernel has them all; to ask about one: virtio-pmd doctor 0000:00:04\.0/);
});

test('--json: an array, with the machine, each virtio device, and each check', async () => {
  using machine = new DoctorMachine();
  machine.hugepages('2048kB', 0, 0);
  const { status, output } = await run(machine, [], { json: true, memory: '2M' });
  assert.is(status, 1);
  assert.is(output.trimEnd().split('\n').length, 1);
  const entries = JSON.parse(output) as Entry[];
  assert.equal([entries[0]!.check, entries[0]!.verdict], ['machine', 'ok']);
  assert.equal([entries[1]!.check, entries[1]!.subject], ['function', DEVICE]);
  for (const entry of entries) {
    assert.ok(['ok', 'trouble', 'not applicable'].includes(entry.verdict), JSON.stringify(entry));
    assert.ok(entry.value !== '' && entry.looksAt !== '', JSON.stringify(entry));
    assert.is(entry.verdict === 'trouble', entry.fix !== undefined && entry.requirement !== undefined);
  }
  const [hugepages] = entries.filter(({ verdict }) => verdict === 'trouble');
  assert.is(hugepages?.fix, 'echo 4 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages');
});

test('names: addresses short and long, sockets by path; anything else is wrong usage', () => {
  assert.equal(targetsOf(['00:04.0', '0000:00:04.0', '/run/a.sock', 'vhost-user:/run/b', 'c.sock']), {
    addresses: ['0000:00:04.0'],
    sockets: ['/run/a.sock', '/run/b', 'c.sock'],
  });
  for (const name of ['eth0', '', '00:4.0', '00:04.8']) {
    const refused = (error: unknown) =>
      error instanceof VirtioError && /neither a PCI address.*nor the path/.test(error.message);
    assert.throws(() => targetsOf([name]), refused, name);
  }
});

const spawn = (...words: readonly string[]) =>
  spawnSync(process.execPath, [CLI, 'doctor', ...words], { encoding: 'utf8' });

test('on this machine: what it prints is sound, whatever it finds', () => {
  const { status, stdout, stderr } = spawn('--json');
  const entries = JSON.parse(stdout) as Entry[];
  assert.is(status, entries.some(({ verdict }) => verdict === 'trouble') ? 1 : 0, stderr);
  assert.match(entries[0]!.value, /kernel \d+\./);
  const table = spawn();
  assert.is(table.status, status);
  assert.match(table.stdout, /^This machine: .*\n(.*\n)*.*checks?, /);
  assert.is(table.stderr, '');
});

test('on this machine: a socket that listens, and a device that is not there', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'dr-'));
  const path = join(folder, 'vm.sock');
  const server = createServer();
  try {
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const found = spawn('--json', path);
    const entries = JSON.parse(found.stdout) as Entry[];
    const verdicts = entries
      .filter(({ subject }) => subject === path)
      .map(({ check, verdict }) => `${check} ${verdict}`);
    assert.equal(verdicts.slice(0, 4), ['path ok', 'folder ok', 'socket ok', 'listener ok']);
  } finally {
    server.close();
    rmSync(folder, { recursive: true });
  }
  const missing = spawn('ffff:ff:1f.7');
  assert.is(missing.status, 1);
  assert.match(missing.stdout, /TROUBLE {2}device: there is no such PCI device/);
});

test('wrong usage ends with status 2 and one line', () => {
  for (const [words, part] of [
    [['eth0'], /eth0 is neither/],
    [['--pci-access', 'uio'], /vfio or noiommu or sysfs/],
    [['--queues', '0'], /--queues/],
    [['--fast'], /unknown option/],
  ] as const) {
    const { status, stdout, stderr } = spawn(...words);
    assert.is(status, 2, stderr);
    assert.is(stdout, '');
    assert.match(stderr, part);
    assert.match(stderr, /^virtio-pmd: INVALID_ARGUMENT: .*\n$/);
  }
});

test.run();
