/**
 * `virtio-pmd loopback`: sets it up, lets it run, reports, and says how it ended.
 *
 * Threads come up beside the rest of the command: it is loaded when they are on their way, and the report behind the traffic.
 */

import { statSync } from 'node:fs';
import { ErrorCode, VirtioError } from '../../errors.js';
import type { Launched, Port } from '../../index.js';
import { launch } from '../../net/launch.js';
import { Feature } from '../../spec/features.js';
import { VLAN_TAG_BYTES } from '../../spec/internet.js';
import { asVirtioError, ExitStatus, printError, statusOf } from '../failure.js';
import type { Interrupt } from '../interrupt.js';
import { count, plural, print } from '../output.js';
import type { Capture } from './capture-content.js';
import { TrafficCounters } from './counters.js';
import { ControlOnlooker, type Onlooker } from './onlooker.js';
import { type LoopbackOptions, packetLimit } from './options.js';
import { lengthsOf } from './pattern.js';
import type { LoopbackResult } from './result.js';
import { openStand, type Stand } from './stand.js';
import type { Watch } from './watch.js';
import type { TrafficFindings, TrafficOrder } from './worker.js';

/** Runs the command; returns its exit status. */
export async function loopback(
  options: LoopbackOptions,
  interrupt: Interrupt,
  onlooker: Onlooker = new ControlOnlooker(options.controlSocket, interrupt),
): Promise<number> {
  const result = await runLoopback(options, interrupt, onlooker);
  const { error } = result;
  // A failure before the first packet leaves nothing to show in a table; scripts get their object all the same.
  const isUsage = error?.code === ErrorCode.INVALID_ARGUMENT;
  if (options.json === true && !isUsage) await print(`${JSON.stringify(result.json)}\n`);
  else if (options.json !== true && result.json.seconds > 0) {
    const { resultTable } = await import('./table.js');
    await print(await resultTable(result));
  }
  if (error !== undefined) printError(error);
  return interrupt.status ?? (error === undefined ? ExitStatus.SUCCESS : statusOf(error));
}

/** What a run has opened so far. */
interface Opened {
  stand?: Stand;
  watch?: Watch;
}

/** Never throws: what went wrong is part of the result. */
async function runLoopback(
  options: LoopbackOptions,
  interrupt: Interrupt,
  onlooker: Onlooker,
): Promise<LoopbackResult> {
  const counters = TrafficCounters.create(options.queues);
  const opened: Opened = {};
  let capture: Capture | undefined;
  let error: VirtioError | undefined;
  try {
    checkFiles(options);
    if (options.pcapIn !== undefined) capture = await readCapture(options.pcapIn, interrupt.signal);
    const packets = packetLimit(options, capture?.packets);
    const lengths = capture === undefined ? lengthsOf(options.size) : [capture.largest];
    const largest = lengths.reduce((longest, length) => Math.max(longest, length));
    const order = { ...orderOf(options), packets, largest, capture, memory: counters.memory };
    const started = startPort(opened, options, order, counters, interrupt, onlooker);
    // Its thread comes up while the port does.
    const traffic = await launchTraffic(
      started.then(({ stand }) => stand.port),
      order,
      options,
    );
    const running = await started;
    error = await runTraffic(traffic, running, counters, () => onlooker.begin(running.stand, options.queues));
  } catch (failure) {
    error = asVirtioError(failure);
  }
  const { stand, watch } = opened;
  watch?.close();
  await onlooker.end();
  try {
    await stand?.port.close();
  } catch (failure) {
    error ??= asVirtioError(failure);
  }
  // What was given up because of Ctrl-C did not fail.
  if (interrupt.status !== undefined && error?.code === ErrorCode.ABORTED) error = undefined;
  const { makeResult } = await import('./result.js');
  return makeResult({
    options,
    counters,
    capture,
    stand,
    reconnects: watch?.reconnects ?? 0,
    isInterrupted: interrupt.status !== undefined,
    error,
  });
}

async function readCapture(path: string, signal: AbortSignal): Promise<Capture> {
  const { loadCapture } = await import('./capture.js');
  return await loadCapture(path, signal);
}

/** Opens a port and starts it, when it takes the traffic. @throws VirtioError ABORTED after Ctrl-C */
async function startPort(
  opened: Opened,
  options: LoopbackOptions,
  { packets, largest, capture }: TrafficOrder,
  counters: TrafficCounters,
  interrupt: Interrupt,
  { ownsTerminal }: Onlooker,
): Promise<Required<Opened>> {
  const stand = await openStand(options, interrupt);
  opened.stand = stand;
  const { Watch } = await import('./watch.js');
  const watch = new Watch(stand.port, counters, { ...options, packets, isQuiet: ownsTerminal }, interrupt.signal);
  opened.watch = watch;
  await stand.port.start();
  checkDevice(stand.port, options, largest, capture !== undefined);
  if (interrupt.signal.aborted) throw new VirtioError(ErrorCode.ABORTED, 'stopped before the first packet');
  return { stand, watch };
}

const orderOf = ({ queues, size, burst, ringSize, verify, pcapOut, idle }: LoopbackOptions) => ({
  queues,
  size,
  burst,
  ringSize,
  verify,
  pcapOut,
  idle,
});

const launchTraffic = (port: Promise<Port>, order: TrafficOrder, { lcores }: LoopbackOptions): Promise<Launched> =>
  launch(port, new URL('./worker.js', import.meta.url), {
    data: order,
    lcores: lcores === undefined ? undefined : lcores.slice(0, 1),
  });

/** Lets the traffic run to its end while somebody looks; returns what was wrong with it, if anything was. */
async function runTraffic(
  traffic: Launched,
  { stand, watch }: Required<Opened>,
  counters: TrafficCounters,
  look: () => Promise<void>,
): Promise<VirtioError | undefined> {
  let failure: VirtioError | undefined;
  try {
    await look();
    failure = await watch.untilOver(traffic);
  } finally {
    await traffic.stop();
  }
  const [findings] = (await traffic.finished) as [TrafficFindings];
  const { verdict } = await import('./verdict.js');
  return verdict(failure, findings, counters.totals(), stand.port.transportKind === 'vhost-user');
}

/** What is to be written must not be what is read. */
function checkFiles({ pcapIn, pcapOut }: LoopbackOptions): void {
  if (pcapIn === undefined || pcapOut === undefined) return;
  const input = statSync(pcapIn, { throwIfNoEntry: false });
  const output = statSync(pcapOut, { throwIfNoEntry: false });
  if (input === undefined || output === undefined || !input.isFile()) return;
  if (input.dev !== output.dev || input.ino !== output.ino) return;
  throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `--pcap-out would overwrite the capture of --pcap-in, ${pcapIn}`, {
    value: pcapOut,
    advice: 'name another file',
  });
}

/** Longest packet that the device takes, an MTU leaving room for a VLAN tag; those of the command itself have no VLAN tag, those of a capture may. */
function packetBytesMax(port: Port, isCapture: boolean): number {
  const limit = port.maxFrameBytes ?? Number.POSITIVE_INFINITY;
  return isCapture || port.features?.has(Feature.MTU) !== true ? limit : limit - VLAN_TAG_BYTES;
}

/** Finds packets that cannot come through this device before one is sent. */
function checkDevice(port: Port, { ringSize }: LoopbackOptions, largest: number, isCapture: boolean): void {
  const limit = packetBytesMax(port, isCapture);
  if (largest > limit) {
    throw new VirtioError(
      ErrorCode.INVALID_ARGUMENT,
      `packets of ${count(largest)} bytes are more than the ${count(limit)} that ${port.address} takes`,
      { value: largest, requirement: 'virtio 1.2 §5.1.4.2', advice: 'send shorter ones, or raise its MTU' },
    );
  }
  const buffers = Math.ceil(largest / port.pool.dataBytes);
  if (buffers > 1 && port.features?.has(Feature.MRG_RXBUF) !== true) {
    throw new VirtioError(
      ErrorCode.FEATURE_MISSING,
      `packets of ${count(largest)} bytes need ${plural(buffers, 'buffer')}, and ${port.address} lacks MRG_RXBUF`,
      { value: largest, requirement: 'virtio 1.2 §5.1.6.3.2', advice: `send ${port.pool.dataBytes} bytes or less` },
    );
  }
  // A quarter of a ring, at most 64 entries, may be waiting to be filled.
  if (buffers > ringSize - Math.min(64, ringSize / 4)) {
    throw new VirtioError(
      ErrorCode.INVALID_ARGUMENT,
      `packets of ${count(largest)} bytes need ${plural(buffers, 'buffer')}, more than a ring of ${ringSize} always has`,
      { value: ringSize, advice: `use a --ring-size of ${2 ** Math.ceil(Math.log2((buffers * 4) / 3))} or more` },
    );
  }
}
