/**
 * QEMU's own network device, driven in the guest through VFIO: each of its features on and off, and each command of its
 * control queue by what it does to packets. Frames go through taps, which have several queues and net headers.
 *
 * At full counts all combinations run with 10,000 packets each, otherwise a sample that has every pair of values.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { featureName } from '../../driver/spec/features.js';
import { VLAN_TAG_BYTES } from '../../driver/spec/internet.js';
import { DRIVER_MODULES, makeHugepages, runCli, runProgram } from '../support/guest-driver.js';
import {
  acceptedOf,
  type DeviceFeatures,
  describeDevice,
  ETHERNET_BYTES,
  offeredOf,
  PARAMETERS,
  pairsOf,
  propertiesOf,
  type TrafficTask,
} from '../support/guest-features.js';
import type { TrafficLine } from '../support/guest-features-program.js';
import { bootGuest, type Guest } from '../support/guest-machine.js';
import { ReflectingTaps } from '../support/guest-taps.js';
import { allCombinationsOf, pairwiseSampleOf } from '../support/pairwise.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';

export const timeBoundSeconds = 360;
export const fullTimeBoundSeconds = 14_400;

const plan = suite("features of QEMU's own device");
const test = skipWithoutRoot(
  skipWithout(suite("features of QEMU's own device, run"), 'qemu', 'kernel', 'busybox', 'iproute2', 'python3'),
);
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const packets = full ? 10_000 : 500;
const TRAFFIC_PROGRAM = new URL('../support/guest-features-program.js', import.meta.url);
const CONTROL_PROGRAM = new URL('../support/guest-control-program.js', import.meta.url);
const HUGEPAGES = 48;
/** Slots of the root bus that are free, from this one on. */
const FIRST_SLOT = 4;
const SLOTS = 24;
/** More than the longest packets of the traffic need. */
const TAP_MTU = 9000;

const CHOSEN: readonly DeviceFeatures[] = full ? allCombinationsOf(PARAMETERS) : pairwiseSampleOf(PARAMETERS);
/** Those whose commands are tried, on either kind of ring. */
const COMMANDED: readonly DeviceFeatures[] = [true, false].map((packed) => ({
  packed,
  event_idx: true,
  indirect_desc: true,
  mrg_rxbuf: true,
  mq: true,
  rss: true,
  hash: true,
  host_mtu: 0,
  ctrl_guest_offloads: true,
}));
const TRAFFIC_SLOTS = SLOTS - COMMANDED.length;

const slotOf = (index: number): string => (FIRST_SLOT + index).toString(16).padStart(2, '0');
const addressOf = (index: number): string => `0000:00:${slotOf(index)}.0`;

plan('the sample is small, and all combinations are 512', () => {
  assert.is(allCombinationsOf(PARAMETERS).length, 512);
  assert.ok(pairwiseSampleOf(PARAMETERS).length <= TRAFFIC_SLOTS);
});

/** Boots a guest with these devices, bound to vfio-pci. */
async function withDevices(devices: readonly DeviceFeatures[], use: (guest: Guest) => Promise<void>): Promise<void> {
  await using taps = await ReflectingTaps.create(devices.map(pairsOf), TAP_MTU);
  await using guest = await bootGuest({
    iommu: true,
    hostRoot: true,
    memoryMb: 768,
    modules: DRIVER_MODULES,
    arguments: devices.flatMap((device, index) => [
      ...taps.netdev(index, `n${index}`),
      '-device',
      [
        `virtio-net-pci,netdev=n${index},id=card${index},addr=0x${slotOf(index)}`,
        'romfile=,disable-legacy=on,iommu_platform=on',
        propertiesOf(device),
      ].join(),
    ]),
  });
  await makeHugepages(guest, HUGEPAGES);
  const bound = await runCli(guest, 'devbind', '--bind', 'vfio-pci', ...devices.map((_, index) => addressOf(index)));
  assert.is(bound.status, 0, bound.output);
  await use(guest);
  assert.not.match(await guest.run('dmesg'), /DMAR:.*fault|BUG:|Call Trace/i);
}

/** Fails where something else was negotiated than the device has, or not every packet came back as it was sent. */
function assertLine(line: TrafficLine, device: DeviceFeatures): void {
  const name = describeDevice(device);
  for (const [feature, isAccepted] of acceptedOf(device))
    assert.is(line.accepted.includes(feature), isAccepted, `${name}: ${featureName(feature)}`);
  for (const [feature, isOffered] of offeredOf(device))
    assert.is(line.offered.includes(feature), isOffered, `${name}: ${featureName(feature)} offered`);
  if (device.host_mtu !== 0) assert.is(line.maxFrameBytes, device.host_mtu + ETHERNET_BYTES + VLAN_TAG_BYTES, name);
  const { SENT, RECEIVED, VERIFIED, LOST, REORDERED, CORRUPT } = line.totals;
  assert.equal(
    { SENT, RECEIVED, VERIFIED, LOST, REORDERED, CORRUPT, difference: line.difference, broken: line.broken },
    {
      ...{ SENT: packets, RECEIVED: packets, VERIFIED: packets, LOST: 0, REORDERED: 0, CORRUPT: 0 },
      ...{ difference: undefined, broken: undefined },
    },
    name,
  );
  assert.equal(
    line.received,
    new Array(pairsOf(device)).fill(packets / pairsOf(device)),
    `${name}: each queue its own`,
  );
}

async function assertTraffic(guest: Guest, devices: readonly DeviceFeatures[]): Promise<void> {
  const tasks = devices.map((device, index): TrafficTask => ({ address: addressOf(index), device, packets }));
  const output = await runProgram(guest, TRAFFIC_PROGRAM, JSON.stringify(tasks));
  const lines = output.split('\n').filter((line) => line.startsWith('{'));
  assert.is(lines.length, devices.length, output);
  for (const [index, device] of devices.entries()) assertLine(JSON.parse(lines[index]!) as TrafficLine, device);
}

/** Tries the commands; the device announces itself whenever it was heard, from before the program waits for it. */
async function assertCommands(guest: Guest, index: number, { packed }: DeviceFeatures): Promise<void> {
  const options = JSON.stringify({ ring: packed ? 'packed' : 'split' });
  const announcing = setInterval(() => {
    const self = { initial: 50, max: 50, rounds: 3, step: 0, interfaces: [`card${index}`] };
    guest.qmp.execute('announce-self', self).catch(() => undefined);
  }, 1000);
  try {
    const output = await runProgram(guest, CONTROL_PROGRAM, addressOf(index), options);
    assert.match(output, /^done announcements$/m);
  } finally {
    clearInterval(announcing);
  }
}

for (let first = 0; first < CHOSEN.length; first += TRAFFIC_SLOTS) {
  const devices = CHOSEN.slice(first, first + TRAFFIC_SLOTS);
  // One machine for both: starting it takes longer than all the rest.
  const commanded = first === 0 ? COMMANDED : [];
  const name = `devices ${first + 1} to ${first + devices.length} of ${CHOSEN.length}, ${packets} packets each`;
  test(`${name}${commanded.length > 0 ? '; every command, over either kind of ring' : ''}`, () =>
    withDevices([...devices, ...commanded], async (guest) => {
      await assertTraffic(guest, devices);
      for (const [index, device] of commanded.entries()) await assertCommands(guest, devices.length + index, device);
    }));
}

plan.run();
test.run();
