/** Every command in the documentation that is meant for a guest works in one, as it stands there. */

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { echoPort } from '../../driver/backend/ports/built-in.js';
import { blocksOf, commandsOf, docPages } from '../support/doc-blocks.js';
import { GuestBackend } from '../support/guest-backend.js';
import { DRIVER_MODULES } from '../support/guest-driver.js';
import { bootGuest, type Guest } from '../support/guest-machine.js';
import { skipWithout } from '../support/skip.js';

export const timeBoundSeconds = 300;
export const fullTimeBoundSeconds = 900;

const test = skipWithout(suite('documentation, in a guest'), 'qemu', 'kernel', 'busybox');

const root = fileURLToPath(new URL('../../../', import.meta.url)).replace(/\/$/, '');
const BLOCK_MS = 280_000;
const PROGRAM = join(root, 'dist/driver/cli/main.js');
/**
 * What a guest has not: npm, which takes half a minute on an emulated processor and finds what is known here; and modules of
 * its kernel among the host's files, so that they are loaded when it boots.
 */
const HELPERS = `
npx() { [ "$1" = virtio-pmd ]; shift; '${process.execPath}' '${PROGRAM}' "$@"; }
modprobe() { [ -d "/sys/module/$(echo "$1" | tr - _)" ]; }
`;

async function runCommands(guest: Guest, commands: string): Promise<string> {
  const script = Buffer.from(`set -euo pipefail\ncd '${root}'\n${HELPERS}\n${commands}`).toString('base64');
  return await guest.run(`echo ${script} | base64 -d > /host/run/commands; chroot /host /bin/bash /run/commands`, {
    timeoutMs: BLOCK_MS,
  });
}

test('the blocks for guests, page by page', async () => {
  const blocks = docPages(root).flatMap((page) => blocksOf(root, page).filter(({ words }) => words.has('guest')));
  assert.ok(blocks.length >= 5, `${blocks.length} blocks`);
  await using backend = await GuestBackend.start({ port: echoPort(), iommu: true });
  await using guest = await bootGuest({
    iommu: true,
    hostRoot: true,
    memoryMb: 768,
    modules: [...DRIVER_MODULES, 'virtio_net'],
    cards: [
      { path: backend.path, properties: ['addr=0x4', 'disable-legacy=on', 'iommu_platform=on', 'ats=on'] },
      { path: backend.path, properties: ['addr=0x5', 'disable-legacy=on'] },
    ],
  });
  for (const block of blocks) {
    await runCommands(guest, commandsOf(block)).catch((error: Error) => {
      assert.unreachable(`${block.page}:${block.line}: ${error.message}`);
    });
  }
  assert.equal(backend.errors, []);
});

test.run();
