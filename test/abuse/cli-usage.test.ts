/** Command lines that can never work: one line says what is wrong, the status is 2, and nothing was begun. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { suite } from 'uvu';

import { makePcap, pattern } from '../support/capture-files.js';
import { assertWrongUsage } from '../support/cli-usage.js';
import { withFolder } from '../support/temp-folder.js';

const LONG_PATH = `/tmp/${'x'.repeat(103)}`;

/** A command line, and what its one line of complaint has to name. */
const WRONG: readonly (readonly [line: string, complaint: RegExp])[] = [
  ['', /no command was given \(see virtio-pmd --help\)/],
  ['nonsense', /unknown command 'nonsense' \(see virtio-pmd --help\)/],
  ['--nonsense', /unknown option '--nonsense' \(see virtio-pmd --help\)/],
  ['loopback --nonsense', /unknown option '--nonsense' \(see virtio-pmd loopback --help\)/],
  ['loopback --packet 3', /unknown option '--packet': is it --packets\? \(see virtio-pmd loopback --help\)/],
  ['loopback extra', /virtio-pmd loopback takes options only/],
  ['loopback --size', /option '--size <BYTES>' argument missing/],
  ['loopback --size 0', /--size takes 64 to 65550 bytes, or imix, not 0/],
  ['loopback --size 63', /--size takes .*, not 63/],
  ['loopback --size 65551', /--size takes 64 to 65550 bytes, or imix, not 65551/],
  ['loopback --size 99999999999999999999', /--size takes/],
  ['loopback --size -1', /--size takes .*, not -1/],
  ['loopback --size 64.5', /--size takes .*, not 64\.5/],
  ['loopback --size 0x40', /--size takes .*, not 0x40/],
  ['loopback --size large', /--size takes .*, not large/],
  ['loopback --packets 0', /--packets takes a number from 1 to/],
  ['loopback --packets 1e6', /--packets takes .*, not 1e6/],
  ['loopback --duration 0', /--duration takes a number of seconds/],
  ['loopback --duration forever', /--duration takes .*, not forever/],
  ['loopback --queues 0', /--queues takes a number from 1 to 128, not 0/],
  ['loopback --queues 129', /--queues takes .*, not 129/],
  ['loopback --burst 513', /--burst takes a number from 1 to 512, not 513/],
  ['loopback --ring-size 100', /--ring-size is a power of two, not 100/],
  ['loopback --ring-size 65536', /--ring-size takes a number from 4 to 32,768, not 65536/],
  ['loopback --ring round', /--ring takes split or packed, not round/],
  ['loopback --transport carrier-pigeon', /--transport takes pci or vhost-user, not carrier-pigeon/],
  ['loopback --memory 3M', /--memory takes auto or 4K or 2M or 1G, not 3M/],
  ['loopback --idle rest', /--idle takes spin or pause or yield or sleep, not rest/],
  ['loopback --lcores 0,99999', /--lcores takes .*, not 0,99999/],
  ['loopback --lcores 0,0,0', /--lcores takes one to 2 processors/],
  ['loopback --lcores one', /--lcores takes .*, not one/],
  ['loopback --demand NONSENSE', /--demand: there is no feature NONSENSE/],
  ['loopback --demand constructor', /--demand: there is no feature constructor/],
  ['loopback --transport pci --connect /tmp/x', /--connect is about vhost-user, and --transport is pci/],
  ['loopback --transport pci --socket-path /tmp/x', /--socket-path is about vhost-user/],
  [
    'loopback --connect /tmp/x --socket-path /tmp/y',
    /'--connect <PATH>' cannot be used with option '--socket-path <PATH>'/,
  ],
  ['loopback --connect /tmp/x --lcores 0,0', /--lcores has one processor with --connect/],
  ['loopback --reconnect', /--reconnect is about the back-end of --connect/],
  ['loopback --pcap-in x --size 64', /'--pcap-in <FILE>' cannot be used with option '--size <BYTES>'/],
  [`loopback --connect ${LONG_PATH}`, /a socket's path has 107 bytes at most, this one has 108/],
  [`loopback --socket-path ${LONG_PATH}`, /a socket's path has 107 bytes at most, this one has 108/],
  ['loopback --size 9000 --ring-size 4', /packets of 9,000 bytes need 5 buffers.*use a --ring-size of 8 or more/],
  ['loopback --size 65550 --ring-size 32', /packets of 65,550 bytes need 3\d buffers.*use a --ring-size of 64 or more/],
];

const test = suite('wrong usage of the command line');

for (const [line, complaint] of WRONG) {
  test(line === '' ? 'nothing at all' : line, () => assertWrongUsage(line.split(' ').filter(Boolean), complaint));
}

test('empty paths', async () => {
  for (const option of ['--connect', '--socket-path', '--pcap-in', '--pcap-out']) {
    await assertWrongUsage(['loopback', option, ''], new RegExp(`${option} takes a path, not empty`));
  }
});

test('wrong usage prints no object either', async () => {
  await assertWrongUsage(['loopback', '--json', '--size', '0'], /--size/);
  await assertWrongUsage(['loopback', '--json', '--size', '65550', '--ring-size', '32'], /3\d buffers/);
});

test('an output that would overwrite the input', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.pcap');
    const bytes = makePcap({ little: true, nanoseconds: true }, [{ seconds: 1, fraction: 1, bytes: pattern(64) }]);
    writeFileSync(path, bytes);
    await assertWrongUsage(
      ['loopback', '--pcap-in', path, '--pcap-out', path],
      /--pcap-out would overwrite the capture of --pcap-in/,
    );
    await assertWrongUsage(['loopback', '--pcap-in', path, '--pcap-out', join(folder, '.', 'x.pcap')], /overwrite/);
  }));

test.run();
