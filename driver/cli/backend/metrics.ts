/** What the daemon counts, as Prometheus and OpenMetrics have it. */

import { readdirSync } from 'node:fs';
import { Counter, Gauge, type OpenMetricsContentType, Registry } from 'prom-client';
import { packageVersion } from '../version.js';
import type { Connection, SocketEvent } from './connections.js';
import { type Labels, type Metric, snakeCase } from './metric.js';
import { portCounters, type RingCounts, ringCounters } from './statistics.js';
import { switchMetrics } from './switch-metrics.js';
import type { SwitchView } from './switch-view.js';

type AnyRegistry = Registry | Registry<OpenMetricsContentType>;

/** Where the numbers come from. */
export interface MetricsSource {
  readonly connections: readonly Connection[];
  /** Names of all sockets. */
  readonly sockets: readonly string[];
  /** What connects the guests, where something does. */
  readonly switch?: SwitchView | undefined;
}

const RING_LABELS = ['socket', 'connection', 'queue'];
const MICROSECONDS = 1e-6;
/** Of a port's counters the one that also goes back: it is a metric of its own. */
const STATIONS = 'stations';

/** Counters of a ring that are metrics by themselves. */
const RING_COUNTERS = {
  packets: 'Packets moved, by queue; receiveq is to the guest, transmitq from it.',
  bytes: 'Bytes of these packets.',
  polls: 'Looks at the ring.',
  emptyPolls: 'Looks at the ring that found nothing.',
  callsSent: 'Notifications sent to the guest.',
  callsSaved: 'Bursts that needed no notification.',
  noBuffer: "Times that the back-end's own buffers ran out.",
} as const satisfies Partial<Record<keyof RingCounts, string>>;

/** Counts what is only told as events. */
class EventCounts {
  readonly #counts = new Map<string, { readonly labels: Labels; value: number }>();

  add(labels: Labels, by: number): void {
    const key = JSON.stringify(labels);
    const value = (this.#counts.get(key)?.value ?? 0) + by;
    this.#counts.set(key, { labels, value });
  }

  get samples(): (readonly [labels: Labels, value: number])[] {
    return [...this.#counts.values()].map(({ labels, value }) => [labels, value]);
  }
}

export class Metrics {
  readonly #source: MetricsSource;
  readonly #made = new EventCounts();
  readonly #errors = new EventCounts();
  readonly #text: Registry;
  readonly #openMetrics: Registry<OpenMetricsContentType>;

  constructor(source: MetricsSource) {
    this.#source = source;
    for (const socket of source.sockets) this.#made.add({ socket }, 0);
    const metrics = [
      ...this.#ringMetrics(),
      ...this.#socketMetrics(),
      ...switchMetrics(() => this.#source.switch),
      ...processMetrics(),
    ];
    this.#text = filled(new Registry(), metrics);
    const openMetrics = new Registry<OpenMetricsContentType>();
    openMetrics.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
    this.#openMetrics = filled(openMetrics, metrics);
  }

  /** Takes what is counted of events. */
  take({ socket, event }: SocketEvent): void {
    if (event.type === 'connected') this.#made.add({ socket }, 1);
    if (event.type === 'error') {
      this.#errors.add({ socket, outcome: event.outcome, code: event.error.code }, 1 + event.suppressed);
    }
  }

  /** All of it, in the format that the asking side accepts. */
  async print(accept = ''): Promise<{ readonly type: string; readonly text: string }> {
    const registry: AnyRegistry = accept.includes('application/openmetrics-text') ? this.#openMetrics : this.#text;
    return { type: registry.contentType, text: await registry.metrics() };
  }

  #ringMetrics(): Metric[] {
    const metrics = Object.entries(RING_COUNTERS).map(
      ([counter, help]): Metric => ({
        name: `virtio_pmd_${snakeCase(counter)}_total`,
        help,
        labels: RING_LABELS,
        samples: () => this.#rings().map(([labels, counts]) => [labels, counts[counter as keyof typeof RING_COUNTERS]]),
      }),
    );
    const drops: Metric = {
      name: 'virtio_pmd_drops_total',
      help: 'Packets dropped, by reason.',
      labels: [...RING_LABELS, 'reason'],
      samples: () =>
        this.#rings().flatMap(([labels, counts]) =>
          Object.entries(counts.drops).map(
            ([reason, value]) => [{ ...labels, reason: snakeCase(reason) }, value] as const,
          ),
        ),
    };
    const port: Metric = {
      name: 'virtio_pmd_port_total',
      help: "What the connection's port has counted, by its names.",
      labels: ['socket', 'connection', 'counter'],
      samples: () =>
        this.#source.connections.flatMap((connection) =>
          Object.entries(portCounters(connection))
            .filter(([counter]) => counter !== STATIONS)
            .map(
              ([counter, value]) =>
                [
                  { socket: connection.socket, connection: connection.number, counter: snakeCase(counter) },
                  value,
                ] as const,
            ),
        ),
    };
    return [...metrics, drops, port];
  }

  #socketMetrics(): Metric[] {
    const { sockets } = this.#source;
    const open = (socket: string): number =>
      this.#source.connections.filter((connection) => connection.socket === socket).length;
    return [
      {
        name: 'virtio_pmd_connections',
        help: 'Front-ends that are connected now.',
        labels: ['socket'],
        samples: () => sockets.map((socket) => [{ socket }, open(socket)]),
      },
      {
        name: 'virtio_pmd_connections_made_total',
        help: 'Connections of front-ends so far.',
        labels: ['socket'],
        samples: () => this.#made.samples,
      },
      {
        name: 'virtio_pmd_errors_total',
        help: 'What guests and front-ends should not have done, by what came of it.',
        labels: ['socket', 'outcome', 'code'],
        samples: () => this.#errors.samples,
      },
    ];
  }

  #rings(): (readonly [labels: Labels, counts: RingCounts])[] {
    return this.#source.connections.flatMap((connection) =>
      ringCounters(connection).map(
        (counts) =>
          [{ socket: connection.socket, connection: connection.number, queue: counts.queue }, counts] as const,
      ),
    );
  }
}

/** What every exporter has, under the usual names. */
function processMetrics(): Metric[] {
  const build = { version: packageVersion(), node: process.versions.node };
  const single = (name: string, help: string, value: () => number): Metric => ({
    name,
    help,
    labels: [],
    samples: () => [[{}, value()]],
  });
  const processorSeconds = (): number => {
    const { user, system } = process.cpuUsage();
    return (user + system) * MICROSECONDS;
  };
  return [
    {
      name: 'virtio_pmd_build_info',
      help: 'Always 1; the labels say what runs.',
      labels: Object.keys(build),
      samples: () => [[build, 1]],
    },
    single('process_resident_memory_bytes', 'Memory of this process.', () => process.memoryUsage.rss()),
    // Looking takes one itself.
    single('process_open_fds', 'Open file descriptors.', () => readdirSync('/proc/self/fd').length - 1),
    single(
      'process_start_time_seconds',
      'When it was started, in seconds since 1970.',
      () => performance.timeOrigin / 1000,
    ),
    single('process_cpu_seconds_total', 'Processor time of all threads.', processorSeconds),
  ];
}

/** Puts the metrics into a registry. */
function filled<R extends AnyRegistry>(registry: R, metrics: readonly Metric[]): R {
  for (const { name, help, labels, samples } of metrics) {
    const Kind = name.endsWith('_total') ? Counter : Gauge;
    const metric: Counter | Gauge = new Kind({
      name,
      help,
      labelNames: [...labels],
      registers: [registry],
      collect: () => {
        metric.reset();
        for (const [values, value] of samples()) metric.inc(values, value);
      },
    });
  }
  return registry;
}
