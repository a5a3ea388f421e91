/** What a port and its queues are configured with: the defaults of the application, and what commands changed. */

import { hasBit, RxOffload, TxOffload } from '../reports/bits-of-ethdev.js';
import type { Settings, Thresholds } from '../settings.js';
import type { Direction, QueueSettings, TestPort } from '../test-port.js';

const without = (offloads: bigint, bit: number): bigint => offloads & ~(1n << BigInt(bit));

/** Gives a port that was just found the offloads of the application. */
export function applyDefaultOffloads(port: TestPort, settings: Settings): void {
  const canFreeFast = hasBit(port.device.info().txOffloads, TxOffload.MBUF_FAST_FREE);
  port.rxOffloads = settings.rxOffloads;
  port.txOffloads = canFreeFast ? settings.txOffloads : without(settings.txOffloads, TxOffload.MBUF_FAST_FREE);
  port.rxQueues = [];
  port.txQueues = [];
  port.needsConfiguration = true;
  port.needsQueues = true;
}

/** Gives all queues of a port the rings and thresholds of the application, and the port its RSS. */
export function applyQueueSettings(port: TestPort, settings: Settings): void {
  const { rssTypes } = port.device.info();
  port.rssTypes = settings.rxQueues > 1 ? settings.rssTypes & rssTypes : 0n;
  if (port.rssTypes === 0n) {
    port.rxOffloads = without(port.rxOffloads, RxOffload.RSS_HASH);
    for (const queue of port.rxQueues) queue.offloads = without(queue.offloads, RxOffload.RSS_HASH);
  }
  fit(port, 'rx', settings.rxQueues, settings.rxDescriptors, settings.rxThresholds);
  fit(port, 'tx', settings.txQueues, settings.txDescriptors, settings.txThresholds);
}

function fit(port: TestPort, direction: Direction, count: number, descriptors: number, thresholds: Thresholds): void {
  const queues = port.queues(direction);
  queues.length = Math.min(queues.length, count);
  const offloads = direction === 'rx' ? port.rxOffloads : port.txOffloads;
  while (queues.length < count) queues.push(newQueue(offloads));
  for (const queue of queues) {
    queue.descriptors = descriptors;
    queue.thresholds = { ...thresholds };
  }
}

const newQueue = (offloads: bigint): QueueSettings => ({
  descriptors: 0,
  offloads,
  thresholds: {
    prefetch: undefined,
    host: undefined,
    writeBack: undefined,
    free: undefined,
    rs: undefined,
    dropEnable: false,
  },
  deferredStart: false,
  state: 'stopped',
});
