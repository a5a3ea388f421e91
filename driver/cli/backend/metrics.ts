/** What the daemon counts, as Prometheus and OpenMetrics have it. */

import { type Labels, type Metric, snakeCase } from '../metrics/metric.js';
import { SnapshotMetrics } from '../metrics/snapshot-metrics.js';
import type { Connection, SocketEvent } from './connections.js';
import { backendSnapshots, CONNECTION_LABELS } from './port-snapshots.js';
import { portCounters } from './statistics.js';
import { switchMetrics } from './switch-metrics.js';
import type { SwitchView } from './switch-view.js';

/** Where the numbers come from. */
export interface MetricsSource {
  readonly connections: readonly Connection[];
  /** Names of all sockets. */
  readonly sockets: readonly string[];
  /** What connects the guests, where something does. */
  readonly switch?: SwitchView | undefined;
}

/** Of a port's counters the one that also goes back: it is a metric of its own. */
const STATIONS = 'stations';

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
  readonly #metrics: SnapshotMetrics;

  constructor(source: MetricsSource) {
    this.#source = source;
    for (const socket of source.sockets) this.#made.add({ socket }, 0);
    this.#metrics = new SnapshotMetrics(backendSnapshots(source), CONNECTION_LABELS, [
      this.#portMetric(),
      ...this.#socketMetrics(),
      ...switchMetrics(() => this.#source.switch),
    ]);
  }

  /** Takes what is counted of events. */
  take({ socket, event }: SocketEvent): void {
    if (event.type === 'connected') this.#made.add({ socket }, 1);
    if (event.type === 'error') {
      this.#errors.add({ socket, outcome: event.outcome, code: event.error.code }, 1 + event.suppressed);
    }
  }

  /** All of it, in the format that the asking side accepts. */
  print(accept?: string): Promise<{ readonly type: string; readonly text: string }> {
    return this.#metrics.print(accept);
  }

  #portMetric(): Metric {
    return {
      name: 'virtio_pmd_port_total',
      help: "What the connection's port has counted, by its names.",
      labels: [...CONNECTION_LABELS, 'counter'],
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
}
