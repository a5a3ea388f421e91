/** Commands for what is forwarded and how: modes, bursts, ports and lcores, packets that are made. */

import { type Command, command } from '../console/grammar.js';
import { updateForwarding } from '../forward-control.js';
import {
  numberList,
  setForwardLcoreCount,
  setForwardLcoreMask,
  setForwardLcores,
  setForwardPortCount,
  setForwardPortMask,
  setForwardPorts,
} from '../forward-sets.js';
import {
  MAX_SPLIT,
  setBurst,
  setForwardMode,
  setRxHeaders,
  setRxOffsets,
  setRxSegments,
  setTxSegments,
} from '../packet-settings.js';
import { MAX_SEGMENTS } from '../settings.js';
import { MAX_PORTS, type Testpmd } from '../testpmd.js';

const MODES = 'io|mac|macswap|flowgen|rxonly|txonly|csum|icmpecho|noisy|5tswap|shared-rxq';
/** The greatest number of lcores (`RTE_MAX_LCORE`). */
const MAX_LCORES = 128;

function setVerbose({ output, settings }: Testpmd, level: number): void {
  output.say(`Change verbose level from ${settings.verbose} to ${level}`);
  settings.verbose = level;
}

const numbers = {
  nbport: setForwardPortCount,
  nbcore: setForwardLcoreCount,
  burst: setBurst,
  verbose: setVerbose,
} as const satisfies Record<string, (testpmd: Testpmd, value: number) => void>;

async function setNumber(testpmd: Testpmd, what: keyof typeof numbers, value: number): Promise<void> {
  numbers[what](testpmd, value);
  if (what === 'nbport' || what === 'nbcore') testpmd.layOut();
  await updateForwarding(testpmd);
}

/** What changes who forwards waits for a stop. */
function whileStopped(testpmd: Testpmd, change: () => void): void {
  if (testpmd.forwarding.isRunning) {
    testpmd.output.warn('Please stop forwarding first');
    return;
  }
  change();
  testpmd.layOut();
}

function setList(testpmd: Testpmd, what: 'corelist' | 'portlist', list: string): void {
  const [item, limit] = what === 'corelist' ? ['core', MAX_LCORES] : ['port', MAX_PORTS];
  const items = numberList(testpmd.output, list, `${item}`, Number(limit), true);
  if (items === undefined) return;
  if (what === 'corelist') setForwardLcores(testpmd, items);
  else setForwardPorts(testpmd, items);
}

function setMode(testpmd: Testpmd, mode: string, retry: boolean): void {
  testpmd.settings.retry = retry;
  setForwardMode(testpmd, mode);
}

/** Applies a list of how packets are to be cut, at the next start of the ports. */
function setSplit(
  testpmd: Testpmd,
  list: string,
  item: string,
  set: (testpmd: Testpmd, values: readonly number[]) => void,
): void {
  const values = numberList(testpmd.output, list, item, MAX_SPLIT);
  if (values !== undefined) set(testpmd, values);
  for (const port of testpmd.allPorts) port.needsQueues = true;
}

export const setForwardingCommands: readonly Command[] = [
  command(`set fwd {mode:${MODES}}`, 'what is done with the packets', (testpmd, { mode }) =>
    setMode(testpmd, mode, false),
  ),
  command(`set fwd {mode:${MODES}} retry`, 'the same, trying again what a queue does not take', (testpmd, { mode }) =>
    setMode(testpmd, mode, true),
  ),
  command(
    'set burst tx delay {delay:u32} retry {tries:u32}',
    'microseconds between tries, and how many there are',
    async (testpmd, { delay, tries }) => {
      testpmd.settings.burstTxDelay = delay;
      testpmd.settings.burstTxRetries = tries;
      await updateForwarding(testpmd);
    },
  ),
  command(
    'set {what:nbport|nbcore|burst|verbose} {value:u16}',
    'how many ports and lcores forward, packets of a burst',
    (testpmd, { what, value }) => setNumber(testpmd, what, value),
  ),
  command('set {what:corelist|portlist} {list:word}', 'who forwards, in this order: 0,1', (testpmd, { what, list }) =>
    whileStopped(testpmd, () => setList(testpmd, what, list)),
  ),
  command('set coremask {mask:u64}', 'which lcores forward', (testpmd, { mask }) =>
    whileStopped(testpmd, () => setForwardLcoreMask(testpmd, mask)),
  ),
  command('set portmask {mask:u64}', 'which ports forward', (testpmd, { mask }) =>
    whileStopped(testpmd, () => setForwardPortMask(testpmd, mask)),
  ),
  command(
    'set txpkts {lengths:word}',
    'segments of the packets that txonly makes: 64 or 64,128',
    (testpmd, { lengths }) => {
      const values = numberList(testpmd.output, lengths, 'segment lengths', MAX_SEGMENTS);
      if (values !== undefined) setTxSegments(testpmd, values);
    },
  ),
  command('set rxoffs {offsets:word}', 'where received packets are to be cut', (testpmd, { offsets }) => {
    setSplit(testpmd, offsets, 'segment offsets', setRxOffsets);
  }),
  command('set rxpkts {lengths:word}', 'segments that received packets are to be cut into', (testpmd, { lengths }) => {
    setSplit(testpmd, lengths, 'segment lengths', setRxSegments);
  }),
  command(
    'set rxhdrs {headers:word}',
    'headers that received packets are to be cut behind: eth,ipv4',
    (testpmd, { headers }) => {
      setRxHeaders(testpmd, headers);
      for (const port of testpmd.allPorts) port.needsQueues = true;
    },
  ),
  command(
    'set txsplit {split:word}',
    'whether they are cut into segments: off, on or rand',
    ({ output, settings }, { split }) => {
      if (split === 'off' || split === 'on' || split === 'rand') settings.txSplit = split;
      else output.warn(`unknown value: "${split}"`);
    },
  ),
  command(
    'set txtimes {times:word}',
    'nanoseconds between bursts and between packets',
    ({ output, settings }, { times }) => {
      const [inter, intra] = numberList(output, times, 'tx times', 2) ?? [];
      if (inter !== undefined && intra !== undefined) settings.txTimes = [inter, intra];
    },
  ),
  command(
    'set flush_rx {state:on|off}',
    'whether queues are emptied before forwarding starts',
    ({ settings }, { state }) => {
      settings.flushRx = state === 'on';
    },
  ),
  command(
    'set link_check {state:on|off}',
    'whether links are looked at when ports start and stop',
    ({ settings }, { state }) => {
      settings.linkCheck = state === 'on';
    },
  ),
  command('set xstats-hide-zero {state:on|off}', 'whether statistics of 0 are shown', ({ settings }, { state }) => {
    settings.xstatsHideZero = state === 'on';
  }),
  command('set record-core-cycles {state:on|off}', 'whether busy cycles are counted', async (testpmd, { state }) => {
    testpmd.settings.recordCoreCycles = state === 'on';
    await updateForwarding(testpmd);
  }),
  command(
    'set record-burst-stats {state:on|off}',
    'whether sizes of bursts are counted',
    async (testpmd, { state }) => {
      testpmd.settings.recordBurstStats = state === 'on';
      await updateForwarding(testpmd);
    },
  ),
  command('set log {type:word} {level:u32}', 'accepted: NODE_DEBUG=virtio-pmd is the log here', () => undefined),
  command('set default', 'all ports and one lcore forward again, to the first peers', (testpmd) => {
    testpmd.output.say('Reset to default forwarding configuration...');
    testpmd.resetForwarding();
  }),
];
