/** Command lines of `virtio-pmd backend` that can never work: one line says what is wrong, the status is 2, nothing was begun. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { makePcap, pattern } from '../support/capture-files.js';
import { runCli } from '../support/cli.js';
import { assertWrongUsage } from '../support/cli-usage.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 240;

const AT = '--socket-path=/tmp/never-made.sock';
const LONG_PATH = `/tmp/${'x'.repeat(103)}`;

/** What stands behind `backend`, and what its one line of complaint has to name. */
const WRONG: readonly (readonly [line: string, complaint: RegExp])[] = [
  ['', /say where: --socket-path=PATH, or --fd=FDNUM \(see virtio-pmd backend --help\)/],
  ['--nonsense', /unknown option '--nonsense' \(see virtio-pmd backend --help\)/],
  [`${AT} extra`, /virtio-pmd backend takes options only/],
  ['--socket-path', /option '--socket-path <PATH>' argument missing/],
  ['--socket-path=', /--socket-path takes a path, not empty/],
  [`--socket-path=${LONG_PATH}`, /a socket's path has 107 bytes at most, this one has 108/],
  [`--client --socket-path=${LONG_PATH}`, /a socket's path has 107 bytes at most, this one has 108/],
  [`${AT} ${AT}`, /--socket-path has \/tmp\/never-made\.sock twice/],
  [`${AT} --fd=3`, /--fd and --socket-path exclude each other/],
  ['--fd=', /--fd takes a number from 3 to .*, not empty/],
  ['--fd=2', /--fd takes a number from 3 to .*, not 2/],
  ['--fd=-1', /--fd takes .*, not -1/],
  ['--fd=three', /--fd takes .*, not three/],
  ['--fd=3 --client', /--client is about --socket-path, and --fd is one connection already/],
  ['--fd=3 --socket-mode=660', /--socket-mode is about --socket-path/],
  ['--fd=3 --max-connections=2', /--max-connections is about --socket-path/],
  [`${AT} --client --socket-mode=660`, /--socket-mode is about listening, and --client connects/],
  [`${AT} --client --socket-group=root`, /--socket-group is about listening/],
  [`${AT} --client --max-connections=1`, /--max-connections is about listening/],
  [`${AT} --socket-mode=8`, /--socket-mode takes three octal digits, such as 660, not 8/],
  [`${AT} --socket-mode=888`, /--socket-mode takes .*, not 888/],
  [`${AT} --socket-mode=u+w`, /--socket-mode takes .*, not u\+w/],
  [`${AT} --socket-mode=1777`, /--socket-mode takes .*, not 1777/],
  [`${AT} --socket-group=`, /--socket-group takes a group, not empty/],
  [`${AT} --socket-group=no-such-group`, /there is no group no-such-group in \/etc\/group \(.*its number\)/],
  [`${AT} --max-connections=0`, /--max-connections takes a number from 1 to 1,024, not 0/],
  [`${AT} --max-connections=1025`, /--max-connections takes .*, not 1025/],
  [`${AT} --queues=0`, /--queues takes a number from 1 to 128, not 0/],
  [`${AT} --queues=129`, /--queues takes .*, not 129/],
  [`${AT} --queues=two`, /--queues takes .*, not two/],
  [`${AT} --features=`, /--features takes names separated by commas, not empty/],
  [`${AT} --features=MRG_RXBUF,,`, /--features takes names separated by commas/],
  [`${AT} --features=MRG_RXBUF,-EVENT_IDX`, /--features has either names, or names with a minus before each/],
  [`${AT} --features=NONSENSE`, /--features: there is no feature NONSENSE/],
  [`${AT} --features=constructor`, /--features: there is no feature CONSTRUCTOR/],
  [`${AT} --features=-NONSENSE`, /--features: there is no feature NONSENSE/],
  [`${AT} --features=STANDBY`, /--features: this back-end has not got STANDBY \(it has .*MRG_RXBUF/],
  [`${AT} --features=-VERSION_1`, /--features: VERSION_1 cannot be left out/],
  [`${AT} --queues=2 --features=MQ`, /--features: MQ needs CTRL_VQ \(offer CTRL_VQ too, or leave MQ out\)/],
  [`${AT} --mode=hub`, /--mode takes echo or .*, not hub/],
  [`${AT} --mode=pcap`, /--mode pcap needs --pcap-in, --pcap-out or both/],
  [`${AT} --mode=sink --pcap-out=/tmp/x`, /--pcap-in and --pcap-out are about --mode pcap, not sink/],
  [`${AT} --pcap-in=`, /--pcap-in takes a path, not empty/],
  [`${AT} --pcap-out=`, /--pcap-out takes a path, not empty/],
  [`${AT} --rate=100`, /--rate is about --mode source, not echo/],
  [`${AT} --size=64`, /--size is about --mode source, not echo/],
  [`${AT} --mode=source --rate=0`, /--rate takes a number from 1 to 1,000,000,000, not 0/],
  [`${AT} --mode=source --size=59`, /--size takes 60 to 1518 bytes, or imix, not 59/],
  [`${AT} --mode=source --size=1519`, /--size takes .*, not 1519/],
  [`${AT} --mode=echo --tap=tap0`, /--tap is about --mode switch, not echo/],
  [`${AT} --tap=`, /--tap takes an interface of 1 to 15 characters, not empty/],
  [`${AT} --tap=sixteen-letters-`, /--tap takes .*, not sixteen-letters-/],
  [`${AT} --tap=a/b`, /--tap takes .*, not a\/b/],
  [`${AT} --lcores=99999`, /--lcores takes .*, not 99999/],
  [`${AT} --lcores=`, /--lcores takes .*, not empty/],
  [`${AT} --idle=rest`, /--idle takes spin or pause or yield or sleep, not rest/],
  [`${AT} --memory=3M`, /--memory takes auto or 4K or 2M or 1G, not 3M/],
  [`${AT} --stats=0`, /--stats takes a number of seconds from 0\.001 to 1,000,000, not 0/],
  [`${AT} --stats=often`, /--stats takes .*, not often/],
  [`${AT} --metrics=65536`, /--metrics takes a number from 0 to 65,535, not 65536/],
  [`${AT} --metrics=http`, /--metrics takes .*, not http/],
];

const assertWrong = (args: readonly string[], complaint: RegExp): Promise<void> =>
  assertWrongUsage(['backend', ...args], complaint);

const test = suite('wrong usage of virtio-pmd backend');

for (const [line, complaint] of WRONG) {
  test(line === '' ? 'no socket' : line, () => assertWrong(line.split(' ').filter(Boolean), complaint));
}

test('an output that would overwrite the input', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'x.pcap');
    const bytes = makePcap({ little: true, nanoseconds: true }, [{ seconds: 1, fraction: 1, bytes: pattern(64) }]);
    writeFileSync(path, bytes);
    await assertWrong([AT, '--pcap-in', path, '--pcap-out', join(folder, '.', 'x.pcap')], /overwrite/);
  }));

test('beside --print-capabilities all else is ignored, even what is wrong', async () => {
  const end = await runCli(['backend', '--nonsense', '--queues=0', '--print-capabilities', 'extra']);
  assert.is(end.status, 0, end.stderr);
  const { type, features } = JSON.parse(end.stdout) as { type: string; features: string[] };
  assert.is(type, 'net');
  assert.ok(features.includes('mode') && !features.includes('fd'), features.join());
  assert.is(end.stderr, '');
  assert.equal(end.left, []);
});

test.run();
