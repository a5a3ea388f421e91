/** Every command in the README and in docs/ works as it stands there, and prints what the page says. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { blocksOf, commandsOf, type DocBlock, docPages, missingLine, outputOf } from '../support/doc-blocks.js';
import { type BackgroundRun, DocMachine } from '../support/doc-machine.js';
import { ALL_PEERS, type PeerName } from '../support/peers.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';

export const timeBoundSeconds = 600;

const root = fileURLToPath(new URL('../../../', import.meta.url)).replace(/\/$/, '');
const BLOCK_MS = 60_000;
/** What runs in the background may take so long to print the rest. */
const REST_MS = 15_000;

const isCommands = ({ language }: DocBlock): boolean => language === 'sh' || language === 'console';
const whereOf = ({ page, line }: DocBlock): string => `${page}:${line}`;
const peersOf = ({ words }: DocBlock): PeerName[] => (words.get('needs')?.split(',') ?? []) as PeerName[];

const isRunHere = ({ words }: DocBlock): boolean => !words.has('elsewhere') && !words.has('guest');

/** Runs a page's blocks in order; what is left running ends with it. */
async function runPage(blocks: readonly DocBlock[]): Promise<void> {
  await using machine = await DocMachine.start(root);
  const running: { readonly block: DocBlock; readonly run: BackgroundRun }[] = [];
  for (const block of blocks) {
    const commands = commandsOf(block);
    if (block.words.has('background')) {
      running.push({ block, run: await machine.start(commands, block.words.get('ready')!) });
      continue;
    }
    const { status, output } = await machine.run(commands, BLOCK_MS);
    assert.is(status !== 0, block.words.has('fails'), `${whereOf(block)} ended with ${status}:\n${output}`);
    const missing = missingLine(outputOf(block), output);
    assert.is(missing, undefined, `${whereOf(block)}: this is not in what it printed:\n${missing}\n\n${output}`);
  }
  for (const { block, run } of running) {
    const expected = outputOf(block);
    for (const deadline = Date.now() + REST_MS; missingLine(expected, run.output()) !== undefined; await pause(100)) {
      if (Date.now() < deadline) continue;
      const missing = missingLine(expected, run.output());
      assert.unreachable(`${whereOf(block)}: this is not in what it printed:\n${missing}\n\n${run.output()}`);
    }
    const status = run.status();
    const mayEnd = status === undefined || status === 0 || block.words.has('ends');
    assert.ok(mayEnd, `${whereOf(block)} ended with ${status}:\n${run.output()}`);
  }
}

const pages = docPages(root).map((page) => ({ page, blocks: blocksOf(root, page).filter(isCommands) }));

for (const { page, blocks } of pages) {
  if (process.argv[2] !== undefined && !page.includes(process.argv[2])) continue;
  const here = blocks.filter(isRunHere);
  if (here.length === 0) continue;
  const peers = [...new Set<PeerName>(['iproute2', ...here.flatMap(peersOf)])];
  const test = skipWithoutRoot(skipWithout(suite(page), ...peers));
  test(`the commands of ${page}`, () => runPage(here));
  test.run();
}

const others = suite('documentation');

others('what is run elsewhere is run there, and what is needed is a peer', () => {
  for (const { blocks } of pages) {
    for (const block of blocks) {
      const elsewhere = block.words.get('elsewhere');
      if (elsewhere !== undefined)
        assert.ok(existsSync(join(root, elsewhere)), `${whereOf(block)}: ${elsewhere} is there`);
      for (const peer of peersOf(block)) assert.ok(ALL_PEERS.includes(peer), `${whereOf(block)}: ${peer} is a peer`);
      assert.ok(commandsOf(block).trim() !== '', `${whereOf(block)} has commands`);
    }
  }
});

others.run();
