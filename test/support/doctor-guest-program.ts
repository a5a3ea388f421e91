/**
 * What the doctor's guest does, in one process: a guest without a processor of its own takes seconds to start one.
 *
 * Run in the guest as root, from its host's files. Ends with status 0 when all is as it should be.
 */

import { spawn, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Command } from 'commander';
import * as assert from 'uvu/assert';

import { devbindCommand } from '../../driver/cli/devbind/command.js';
import { doctorCommand } from '../../driver/cli/doctor/command.js';
import { asVirtioError, printError } from '../../driver/cli/failure.js';
import { Interrupt } from '../../driver/cli/interrupt.js';
import { loopbackCommand } from '../../driver/cli/loopback/command.js';
import { openPort } from '../../driver/open.js';

const PACKETS = process.env['VIRTIO_PMD_FULL'] === '1' ? 10_000 : 300;
/** Rounds of looking and putting right: what is behind a trouble shows only after it. */
const ROUNDS = 5;
const DEVICES = '/sys/bus/pci/devices';
/** Behind the IOMMU, its addresses translated; behind it, two functions of one group. */
const ALONE = '0000:00:09.0';
const SHARED = '0000:00:0a.0';
const SIBLING = '0000:00:0a.1';

interface Entry {
  readonly check: string;
  readonly verdict: string;
  readonly value: string;
  readonly fix: string;
}

const interrupt = Interrupt.install();

/** Runs `virtio-pmd …` as the command line does; its status, and what it printed. */
async function cli(...words: readonly string[]): Promise<{ status: number; output: string; errors: string }> {
  const printed = { stdout: '', stderr: '' };
  let status = 0;
  const finish = (value: number) => {
    status = value;
  };
  const program = new Command('virtio-pmd').exitOverride();
  program.addCommand(doctorCommand(finish)).addCommand(devbindCommand(finish));
  program.addCommand(loopbackCommand(interrupt, finish));
  const original = { stdout: process.stdout.write, stderr: process.stderr.write };
  for (const name of ['stdout', 'stderr'] as const) {
    process[name].write = ((text: string | Uint8Array, done?: () => void) => {
      printed[name] += text.toString();
      if (typeof done === 'function') done();
      return true;
    }) as typeof original.stdout;
  }
  try {
    await program.parseAsync([...words], { from: 'user' });
  } catch (error) {
    status = 1;
    printError(asVirtioError(error));
  } finally {
    process.stdout.write = original.stdout;
    process.stderr.write = original.stderr;
  }
  return { status, output: printed.stdout, errors: printed.stderr };
}

/** What the doctor found to be missing; fails unless its status goes with that. */
async function troubles(...words: readonly string[]): Promise<Entry[]> {
  const { status, output } = await cli('doctor', '--json', ...words);
  const found = (JSON.parse(output) as Entry[]).filter(({ verdict }) => verdict === 'trouble');
  assert.is(status, found.length > 0 ? 1 : 0, output);
  return found;
}
const checks = async (...words: readonly string[]): Promise<string[]> =>
  (await troubles(...words)).map(({ check }) => check);

/** Does what the doctor says, as it says it, until it says no more; resolves to the commands. */
async function putRight(...words: readonly string[]): Promise<string[]> {
  const done: string[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const found = await troubles(...words);
    if (found.length === 0) return done;
    for (const { fix } of found) {
      const [program, ...rest] = fix.split(' ');
      const end = program === 'virtio-pmd' ? await cli(...rest) : spawnSync('sh', ['-c', fix], { encoding: 'utf8' });
      assert.is(end.status, 0, `${fix}: ${JSON.stringify(end)}`);
      done.push(fix);
    }
  }
  throw new Error(`it is not well after ${done.join(', ')}`);
}

async function assertLoopback(device: string, ...more: readonly string[]): Promise<void> {
  const words = ['loopback', '--json', '--device', device, '--packets', String(PACKETS), '--size', 'imix', ...more];
  const { status, output, errors } = await cli(...words);
  assert.is(status, 0, `${device}: ${output}${errors}`);
  assert.is((JSON.parse(output) as { verified: number }).verified, PACKETS);
}

async function assertFails(words: readonly string[], line: RegExp): Promise<void> {
  const { status, output, errors } = await cli(...words);
  assert.is(status, 1, output);
  assert.match(errors, line);
}

/** A device of the kernel's becomes the driver's. */
async function bindDevice(): Promise<void> {
  assert.equal(await checks('00:09.0'), ['driver']);
  await assertFails(
    ['loopback', '--device', ALONE],
    /^virtio-pmd: WRONG_STATE: .* is bound to the driver virtio-pci.*devbind --bind/m,
  );
  assert.equal(await putRight('00:09.0'), [`virtio-pmd devbind --bind vfio-pci ${ALONE}`]);
  assert.match((await cli('doctor', ALONE)).output, /DMA addresses: the driver’s own.*ACCESS_PLATFORM/);
  await assertLoopback(ALONE);
}

/** Somebody else has the group; the doctor names who, and how to have it back. */
async function takeFromHolder(): Promise<void> {
  const group = readlinkSync(`${DEVICES}/${ALONE}/iommu_group`).split('/').at(-1);
  const holder = spawn('sh', ['-c', `exec 3<>/dev/vfio/${group}; exec sleep 600`], { stdio: 'ignore' });
  const ended = new Promise((resolve) => holder.once('exit', resolve));
  const isHeld = (): boolean => readFileSync(`/proc/${holder.pid}/comm`, 'latin1').trim() === 'sleep';
  for (const deadline = Date.now() + 60_000; !isHeld(); await delay(100)) {
    assert.ok(Date.now() < deadline, 'the group was not opened');
  }
  const [held] = await troubles(ALONE);
  assert.is(held?.value, `in use by sleep ${holder.pid}`);
  await assertFails(['loopback', '--device', ALONE], /^virtio-pmd: IN_USE: 0000:00:09\.0 is in use/m);
  // It may be somebody's virtual machine: the doctor has nobody killed.
  assert.match(held!.fix, `stop process ${holder.pid}`);
  holder.kill();
  await ended;
  assert.equal(await checks(ALONE), []);
}

/** Two functions of one group: neither goes without the other. */
async function completeGroup(): Promise<void> {
  await cli('devbind', '--bind', 'vfio-pci', SHARED);
  const [group] = await troubles(SHARED);
  assert.match(group?.value ?? '', /not viable: 0000:00:0a\.1 with virtio-pci$/);
  const refused =
    /^virtio-pmd: WRONG_STATE: .*not viable.*0000:00:0a\.1 with virtio-pci.*devbind --bind vfio-pci 0000:00:0a\.1/m;
  await assertFails(['loopback', '--device', SHARED], refused);
  assert.equal(await putRight(SHARED), [`virtio-pmd devbind --bind vfio-pci ${SIBLING}`]);
  await assertLoopback(SHARED);
  // One process has both: VFIO gives the group out once.
  const port = await openPort(SHARED);
  await port.start();
  await assertLoopback(SIBLING);
  assert.is(port.state, 'started');
  await port.close();
}

/** More than the device has; what is no virtio network device, and what is not there. */
async function askTooMuch(): Promise<void> {
  assert.equal(await checks(ALONE, '--queues', '2', '--ring-size', '1024'), ['queues', 'ring size']);
  assert.equal(await checks(ALONE, '--queues', '4', '--interrupts'), ['queues', 'interrupts']);
  assert.match((await troubles('00:00.0'))[0]?.value ?? '', /^8086:.*not a virtio network device/);
  assert.match((await troubles('00:1e.7'))[0]?.value ?? '', /^there is no such PCI device/);
}

/** The function behind the bus that goes around the IOMMU: VFIO cannot have it, this kernel's never does without, sysfs can. */
async function goAround(): Promise<void> {
  const isAround = (address: string): boolean =>
    readFileSync(`${DEVICES}/${address}/class`, 'latin1').startsWith('0x0200') &&
    !readdirSync(`${DEVICES}/${address}`).includes('iommu_group');
  const [around, ...more] = readdirSync(DEVICES).filter(isAround);
  assert.ok(around !== undefined && more.length === 0, 'one device goes around the IOMMU');
  assert.ok((await checks(around)).includes('IOMMU group'));
  await assertFails(
    ['loopback', '--device', around],
    /^virtio-pmd: UNSUPPORTED: .* is behind no IOMMU.*noiommu or sysfs/m,
  );
  const noIommu = ['devbind', '--noiommu', '--bind', 'vfio-pci', around];
  await assertFails(noIommu, /^virtio-pmd: UNSUPPORTED: this kernel has no VFIO without an IOMMU.*sysfs/m);
  assert.ok((await checks(around, '--pci-access', 'noiommu')).includes('VFIO without IOMMU'));
  const done = (await putRight(around, '--pci-access', 'sysfs')).join('; ');
  assert.match(done, /^echo \d+ > \/sys\/kernel\/mm\/hugepages\/.*; virtio-pmd devbind --unbind/);
  await assertLoopback(around, '--pci-access', 'sysfs');
}

for (const step of [bindDevice, takeFromHolder, completeGroup, askTooMuch, goAround]) {
  await step();
  console.log(`done: ${step.name}`);
}
