/** Commands for single queues: stopping and starting, rings, and what is left in them. */

import { type Command, command } from '../console/grammar.js';
import { Errno } from '../errno.js';
import { attempt } from '../ports/ethdev.js';
import { isQueue } from '../ports/reconfiguration.js';
import type { Direction, QueueSettings } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';

type QueueKind = 'rxq' | 'txq';
const directionOf = (kind: QueueKind): Direction => (kind === 'rxq' ? 'rx' : 'tx');

async function operate(
  testpmd: Testpmd,
  id: number,
  kind: QueueKind,
  queue: number,
  action: 'start' | 'stop',
): Promise<void> {
  const { output, forwarding } = testpmd;
  if (forwarding.isRunning) return output.warn('Please stop forwarding first');
  const port = testpmd.portOf(id);
  if (port === undefined) return;
  if (port.status !== 'started') return output.warn(`Please start port ${id} first`);
  const direction = directionOf(kind);
  if (!isQueue(testpmd, direction, queue)) return;
  const { device } = port;
  const doing = action === 'start' ? device.startQueue?.(direction, queue) : device.stopQueue?.(direction, queue);
  if ((await attempt(testpmd, doing)) === Errno.ENOTSUP) return output.warn('Function not supported in PMD');
  const settings = port.queues(direction)[queue];
  if (settings !== undefined) settings.state = action === 'start' ? 'started' : 'stopped';
}

/** Changes a queue's settings for the next start of its port. */
function change(
  testpmd: Testpmd,
  id: number,
  kind: QueueKind,
  queue: number,
  apply: (settings: QueueSettings) => void,
): void {
  const port = testpmd.portOf(id);
  if (port === undefined || !isQueue(testpmd, directionOf(kind), queue)) return;
  const settings = port.queues(directionOf(kind))[queue];
  if (settings === undefined) return;
  apply(settings);
  port.needsQueues = true;
}

function setRingSize(testpmd: Testpmd, port: number, kind: QueueKind, queue: number, entries: number): void {
  const free = testpmd.settings.rxThresholds.free ?? -1;
  if (kind === 'rxq' && entries !== 0 && entries <= free) {
    if (testpmd.portOf(port) === undefined || !isQueue(testpmd, 'rx', queue)) return;
    testpmd.output.warn(`Invalid rx ring_size, must > rx_free_thresh: ${free}`);
    return;
  }
  change(testpmd, port, kind, queue, (settings) => {
    settings.descriptors = entries;
  });
}

function defer(testpmd: Testpmd, id: number, kind: QueueKind, queue: number, on: boolean): void {
  const port = testpmd.portOf(id);
  if (port === undefined) return;
  if (port.status === 'started') {
    testpmd.output.warn(`Please stop port ${id} first`);
    return;
  }
  change(testpmd, id, kind, queue, (settings) => {
    settings.deferredStart = on;
  });
}

/** No port here has its queues set up while it runs. */
function setUp(testpmd: Testpmd, id: number, kind: QueueKind, queue: number): void {
  const { output } = testpmd;
  const port = testpmd.portOf(id);
  if (port === undefined) return;
  const direction = directionOf(kind);
  const name = direction.toUpperCase();
  if (!isQueue(testpmd, direction, queue)) {
    output.warn(`Invalid ${direction} queue`);
    return;
  }
  if (direction === 'tx' && (port.txQueues[queue]?.descriptors ?? 0) < testpmd.settings.txSegments.length) {
    output.warn(`Failed to setup ${name} queue: not enough descriptors`);
    return;
  }
  if (port.status === 'started') output.warn(`Failed to setup ${name} queue`);
  else port.needsQueues = true;
}

/** No driver here, as in DPDK, tells ethdev about its queues, so there is nothing to be cleaned. */
function cleanUp({ output, ports, forwarding }: Testpmd, id: number, queue: number): void {
  if (forwarding.isRunning) {
    output.warn('Please stop forwarding first');
    return;
  }
  const port = ports.get(id);
  if (port === undefined) output.warn(`Invalid port_id=${id}`);
  else if (queue >= (port.configured?.txQueues ?? 0)) output.warn(`Invalid Tx queue_id=${queue}`);
  output.warn(`Failed to get port ${id} Tx queue ${queue} info`);
}

export const portQueueCommands: readonly Command[] = [
  command(
    'port {port:u16} {kind:rxq|txq} {queue:u16} {action:start|stop}',
    'starts or stops a queue',
    (testpmd, { port, kind, queue, action }) => operate(testpmd, port, kind, queue, action),
  ),
  command(
    'port {port:u16} {kind:rxq|txq} {queue:u16} setup',
    'sets a queue up again',
    (testpmd, { port, kind, queue }) => setUp(testpmd, port, kind, queue),
  ),
  command(
    'port {port:u16} {kind:rxq|txq} {queue:u16} deferred_start {state:on|off}',
    'whether a queue waits for a command of its own',
    (testpmd, { port, kind, queue, state }) => defer(testpmd, port, kind, queue, state === 'on'),
  ),
  command(
    'port config {port:u16} {kind:rxq|txq} {queue:u16} ring_size {entries:u16}',
    'entries of a ring',
    (testpmd, { port, kind, queue, entries }) => setRingSize(testpmd, port, kind, queue, entries),
  ),
  command('port cleanup {port:u16} txq {queue:u16} {count:u32}', 'frees what was sent', (testpmd, { port, queue }) =>
    cleanUp(testpmd, port, queue),
  ),
];
