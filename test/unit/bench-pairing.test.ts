/** A pairing of our own two ends, each in a process of its own: it starts, takes turns, stands still between them, ends. */

import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { Pairing, type PairingOptions } from '../../bench/pairing.js';
import { choosePaths } from '../../bench/paths.js';
import { processorTime } from '../../bench/processor-time.js';
import { scenario } from '../../bench/scenario.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { skipUnless } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';

const test = skipUnless(suite('bench pairing'), availableParallelism() >= 2, 'needs two processors');

const optionsFor = (folder: string, path: string): PairingOptions => ({
  ...scenario({ path: choosePaths(path)[0]! }),
  folder,
  cores: { host: 1, guest: 0 },
  memory: 'no-huge',
});

/** The processes that we started and that still run. */
function children(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => parentOf(pid) === process.pid);
}

function parentOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return undefined;
  }
}

for (const path of ['split_mergeable', 'split_non_mergeable']) {
  test(`${path}: frames go round in a turn, nothing runs between turns, nothing is left`, async () => {
    await withFolder(async (folder) => {
      const pairing = await Pairing.start('ours-ours', optionsFor(folder, path));
      try {
        const pids = children();
        assert.is(pids.length, 2);
        const frozenAt = processorTime(pids);
        await new Promise((resolve) => setTimeout(resolve, 100));
        assert.ok(processorTime(pids) - frozenAt < 50e6, 'two spinning threads would have used 200 ms');
        // A thousand frames are in flight: when more came back than were ever sent, they go round. On a busy machine that
        // takes more than one turn.
        let seen = 0;
        for (let turns = 0; turns < 50 && seen <= 1024; turns++) {
          const turn = await pairing.turn({ settleMs: 10, measureMs: 100 });
          seen += turn.rate * 0.1;
          assert.ok(turn.taken >= 0);
        }
        assert.ok(seen > 1024, `${seen} frames in 50 turns`);
      } finally {
        await pairing.close();
      }
      assert.equal(children(), []);
      assert.equal(readdirSync(folder), []);
    });
  });
}

test('a path that our ends do not take is refused by name, and nothing is left', async () => {
  await withFolder(async (folder) => {
    try {
      // Vector instructions are DPDK's own; the packed ring in order is what the others would have to agree on.
      await Pairing.start('ours-ours', optionsFor(folder, 'packed_vectorized')).then((pairing) => pairing.close());
    } catch (error) {
      assert.ok(error instanceof VirtioError);
      assert.is(error.code, ErrorCode.UNSUPPORTED);
      assert.match(error.message, 'did not negotiate packed_vectorized');
    }
    assert.equal(children(), []);
  });
});

test.run();
