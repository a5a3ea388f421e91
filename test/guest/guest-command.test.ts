/** `npm run guest`: a virtual machine, its device driven there, and the object that scripts read. */

import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { type CliEnd, runCli } from '../support/cli.js';
import { skipWithout } from '../support/skip.js';

export const timeBoundSeconds = 300;
export const fullTimeBoundSeconds = 900;

const test = skipWithout(suite('npm run guest'), 'qemu', 'kernel', 'busybox');
const full = process.env['VIRTIO_PMD_FULL'] === '1';
const PACKETS = full ? 10_000 : 500;
const SCRIPT = fileURLToPath(new URL('../guest-command.js', import.meta.url));
const TIMEOUT_MS = 280_000;

const runGuest = (...words: readonly string[]): Promise<CliEnd> =>
  runCli(words, { script: SCRIPT, timeoutMs: TIMEOUT_MS });

interface Way {
  readonly words: readonly string[];
  readonly mode: 'pa' | 'va';
}

const TRANSLATED: Way = { words: ['--translated', '--queues', '2', '--ring-size', '1024'], mode: 'va' };
const OTHERS: readonly Way[] = [
  { words: [], mode: 'pa' },
  { words: ['--no-iommu', '--size', 'imix'], mode: 'pa' },
];

for (const { words, mode } of full ? [TRANSLATED, ...OTHERS] : [TRANSLATED]) {
  test(`--json ${words.join(' ')}: the object of loopback, and what it is about`, async () => {
    const { status, stdout, stderr, left } = await runGuest('--json', '--packets', String(PACKETS), ...words);
    assert.is(status, 0, stderr + stdout);
    assert.equal(left, []);
    const json = JSON.parse(stdout) as Record<string, unknown>;
    assert.equal([json['ok'], json['sent'], json['verified'], json['lost']], [true, PACKETS, PACKETS, 0]);
    assert.equal(json['device'], { bdf: '0000:00:09.0', id: '1af4:1041' });
    assert.equal([json['iova_mode'], json['transport']], [mode, 'pci-modern']);
    assert.match(json['kernel'] as string, /^\d+\.\d+/);
    assert.ok((json['boot_s'] as number) > 0);
    if (words.includes('--queues')) assert.equal([json['queues'], json['ringSize']], [2, 1024]);
  });
}

test('help; an IOMMU that is to translate and not to be there', async () => {
  const help = await runGuest('--help');
  assert.is(help.status, 0);
  assert.match(help.stdout, /^Usage: npm run guest .*--translated/);
  const wrong = await runGuest('--translated', '--no-iommu');
  assert.is(wrong.status, 2);
  assert.match(wrong.stderr, /^virtio-pmd: INVALID_ARGUMENT: --translated needs the IOMMU.*\n$/);
});

test.run();
