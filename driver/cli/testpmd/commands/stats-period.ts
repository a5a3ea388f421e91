/** `--stats-period`: statistics of all ports, again and again, until a signal comes. */

import { setTimeout as sleep } from 'node:timers/promises';
import { type LivePort, liveView } from '../reports/live-view.js';
import type { TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';
import { showStatistics } from './show-ports.js';

const MS_PER_SECOND = 1000;
/** What testpmd puts in front: an empty screen, and the cursor at its beginning. */
const CLEARED = '\x1b[2J\x1b[1;1H';
const HOME = '\x1b[H';
const CLEAR_LINE = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';

/** Shows them every `statsPeriod` seconds: as a table that stays where it is on a terminal, else as testpmd does. */
export async function showPeriodically(testpmd: Testpmd, signal: AbortSignal): Promise<void> {
  const { output, settings } = testpmd;
  const isLive = process.stdout.isTTY === true && !settings.json;
  if (isLive) output.write(CLEARED);
  while (!signal.aborted) {
    if (isLive) output.write(await framed(testpmd));
    else showAll(testpmd);
    await sleep(settings.statsPeriod * MS_PER_SECOND, undefined, { signal }).catch(() => undefined);
  }
}

function showAll(testpmd: Testpmd): void {
  if (!testpmd.settings.json) testpmd.output.write(`${CLEARED}\nPort statistics ====================================`);
  for (const port of testpmd.allPorts) showStatistics(testpmd, port);
}

/** The table over the one before: nothing flickers, and nothing of a longer one is left. */
async function framed({ allPorts }: Testpmd): Promise<string> {
  const table = await liveView(allPorts.map(livePort));
  const lines = `virtio-pmd testpmd, Ctrl-C ends it\n${table}`.replaceAll('\n', `${CLEAR_LINE}\n`);
  return `${HOME}${lines}${CLEAR_BELOW}`;
}

function livePort({ id, device, meter }: TestPort): LivePort {
  const statistics = device.statistics();
  return { id, name: device.name, isUp: device.link().up, statistics, rates: meter.next(statistics) };
}
