/** A back-end as a process of its own, to be killed: does what its parent says and reports what was counted. */

import { setTimeout as pause } from 'node:timers/promises';

import { DeviceThread } from '../../driver/backend/device-thread.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { echoPort } from '../../driver/backend/ports/built-in.js';
import { VhostUserServer } from '../../driver/backend/vhost-user-server.js';
import { TrafficCounters, type TrafficTotals } from '../../driver/cli/loopback/counters.js';
import { FOREIGN_COUNTER, type TrafficOrder } from './backend-dpdk-port.js';

/** What a child is told to be, in its one argument. */
export interface ChildOrder {
  readonly path: string;
  readonly role: 'server' | 'client';
  readonly queues: number;
  /**
   * Sends nothing before it is told to. Else it sends once all rings are enabled; then a starting DPDK throws away what comes
   * before its start is over.
   */
  readonly waits?: boolean;
  /** What to send; it sends everything back when not given. */
  readonly traffic?: Omit<TrafficOrder, 'memory' | 'first' | 'addresses' | 'packets'> & {
    readonly addresses: readonly number[];
  };
}

/** What a child reports. */
export interface ChildReport {
  readonly totals: TrafficTotals;
  /** Packets that came back and were sent by another process. */
  readonly foreign: number;
  readonly errors: readonly string[];
  /** Rings that are enabled now. */
  readonly enabled: number;
}

const PORT = new URL('./backend-dpdk-port.js', import.meta.url);
const REPORT_MS = 20;

async function main(order: ChildOrder): Promise<void> {
  const counters = TrafficCounters.create(order.queues);
  const errors: string[] = [];
  let isDraining = false;
  // Nothing is sent before all rings are enabled: what comes back through a transmitq that is not yet is dropped.
  counters.drain();
  const enabled = new Set<number>();
  const thread = await DeviceThread.start({ idle: 'yield', poolSize: 4096, ports: [PORT] });
  const port =
    order.traffic === undefined
      ? echoPort()
      : {
          module: PORT.href,
          options: {
            ...order.traffic,
            addresses: Uint8Array.from(order.traffic.addresses),
            packets: Number.POSITIVE_INFINITY,
            memory: counters.memory,
            first: new SharedArrayBuffer(5 * 8),
          } satisfies TrafficOrder,
        };
  const server = await (order.role === 'server' ? VhostUserServer.listen : VhostUserServer.connect)(order.path, {
    createDevice: () => new NetDevice(thread, { port, queuePairs: order.queues }),
    onEvent: (event) => {
      if (event.type === 'error' && event.outcome !== 'OK') errors.push(event.error.toLine());
      else if (event.type === 'disconnected') enabled.clear();
      else if (event.type === 'vring' && event.state === 'enabled') {
        enabled.add(event.ring);
        if (enabled.size === 2 * order.queues && !isDraining && order.waits !== true) send(counters);
      }
      if (event.type === 'vring' && event.state === 'disabled') enabled.delete(event.ring);
    },
  });
  const report = (): void => {
    const foreign = Array.from({ length: order.queues }, (_, queue) => counters.of(queue)[FOREIGN_COUNTER] ?? 0);
    process.send?.({
      totals: counters.totals(),
      foreign: foreign.reduce((sum, count) => sum + count),
      errors,
      enabled: enabled.size,
    } satisfies ChildReport);
  };
  const timer = setInterval(report, REPORT_MS);
  process.on('message', (what) => {
    if (what === 'drain') {
      isDraining = true;
      counters.drain();
    } else if (what === 'send') send(counters);
    else if (what === 'close') void close();
  });
  // A parent that is gone needs no back-end.
  process.on('disconnect', () => process.exit(0));
  const close = async (): Promise<void> => {
    clearInterval(timer);
    await server.close();
    await thread.stop();
    report();
    await pause(REPORT_MS);
    process.disconnect();
  };
}

/** Lets the port send. */
function send(counters: TrafficCounters): void {
  Atomics.store(new Int32Array(counters.memory.control), 0, 0);
}

await main(JSON.parse(process.argv[2]!) as ChildOrder);
