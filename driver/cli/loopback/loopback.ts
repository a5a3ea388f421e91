/** `virtio-pmd loopback`: sets it up, lets it run, reports, and says how it ended. */

import { ErrorCode, Feature, type Launched, launch, type Port, VirtioError } from '../../index.js';
import { asVirtioError, ExitStatus, printError, statusOf } from '../failure.js';
import type { Interrupt } from '../interrupt.js';
import { plural, print } from '../output.js';
import { type Capture, loadCapture } from './capture.js';
import { TrafficCounters } from './counters.js';
import { LARGEST_PACKET, type LoopbackOptions, packetLimit } from './options.js';
import { checkOutput } from './output-file.js';
import { lengthsOf } from './pattern.js';
import type { Difference } from './queue-traffic.js';
import { type LoopbackResult, makeResult } from './result.js';
import { type Stand, openStand } from './stand.js';
import { resultTable } from './table.js';
import { Watch } from './watch.js';
import type { TrafficFindings, TrafficOrder } from './worker.js';

/** Runs the command; returns its exit status. */
export async function loopback(options: LoopbackOptions, interrupt: Interrupt): Promise<number> {
  const result = await runLoopback(options, interrupt);
  const { error, began } = result;
  // A failure before the first packet has no table, but scripts always get their object, unless usage was wrong.
  const isShown = options.json ? error?.code !== ErrorCode.INVALID_ARGUMENT : began;
  if (isShown) await print(options.json ? `${JSON.stringify(result.json)}\n` : resultTable(result));
  if (error !== undefined && !(interrupt.status !== undefined && error.code === ErrorCode.ABORTED)) printError(error);
  return interrupt.status ?? (error === undefined ? ExitStatus.SUCCESS : statusOf(error));
}

/** Never throws: what went wrong is part of the result. */
async function runLoopback(options: LoopbackOptions, interrupt: Interrupt): Promise<LoopbackResult> {
  const counters = TrafficCounters.create(options.queues);
  let capture: Capture | undefined;
  let stand: Stand | undefined;
  let watch: Watch | undefined;
  let error: VirtioError | undefined;
  const note = (failure: unknown): void => {
    error ??= asVirtioError(failure);
  };
  try {
    checkOutput(options);
    if (options.pcapIn !== undefined) capture = await loadCapture(options.pcapIn, interrupt.signal);
    stand = await openStand(options, interrupt);
    watch = new Watch(stand.port, counters, options, packetLimit(options, capture?.packets), interrupt.signal);
    await stand.port.start();
    checkDevice(options, stand.port, longestPacket(options, capture));
    const traffic = await launchTraffic(options, stand.port, counters, capture);
    note(await runTraffic(traffic, watch, counters, options));
  } catch (failure) {
    note(failure);
  }
  watch?.close();
  try {
    await stand?.port.close();
  } catch (failure) {
    note(failure);
  }
  return makeResult({ options, counters, capture, stand, watch, error });
}
