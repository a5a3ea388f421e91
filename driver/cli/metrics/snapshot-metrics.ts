/** The metrics of a command, as Prometheus and OpenMetrics have them. */

import { Counter, Gauge, type OpenMetricsContentType, Registry } from 'prom-client';
import type { Snapshot } from '../snapshot/snapshot.js';
import { wantsOpenMetrics } from './accept.js';
import type { Metric } from './metric.js';
import { processMetrics } from './process-metrics.js';
import { queueMetrics } from './queue-metrics.js';

type AnyRegistry = Registry | Registry<OpenMetricsContentType>;

export class SnapshotMetrics {
  readonly #takeSnapshot: () => Snapshot;
  readonly #text: Registry;
  readonly #openMetrics: Registry<OpenMetricsContentType>;
  /** Taken once for all metrics that are read together. */
  #snapshot: Snapshot | undefined;

  /**
   * @param portLabels names of the labels that all ports of the snapshots have
   * @param more what the command counts beside its ports
   */
  constructor(takeSnapshot: () => Snapshot, portLabels: readonly string[], more: readonly Metric[] = []) {
    this.#takeSnapshot = takeSnapshot;
    const metrics = [
      ...queueMetrics(() => this.#snapshot?.ports ?? [], portLabels),
      this.#threadMetric(),
      ...more,
      ...processMetrics(),
    ];
    this.#text = filled(new Registry(), metrics);
    const openMetrics = new Registry<OpenMetricsContentType>();
    openMetrics.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
    this.#openMetrics = filled(openMetrics, metrics);
  }

  /** All of it, in the format that the asking side accepts. */
  async print(accept = ''): Promise<{ readonly type: string; readonly text: string }> {
    const registry: AnyRegistry = wantsOpenMetrics(accept) ? this.#openMetrics : this.#text;
    this.#snapshot = this.#takeSnapshot();
    return { type: registry.contentType, text: await registry.metrics() };
  }

  #threadMetric(): Metric {
    return {
      name: 'virtio_pmd_thread_cpu_seconds_total',
      help: 'Processor time of a thread; helpers of the engine are one, `others`.',
      labels: ['thread', 'id'],
      samples: () =>
        (this.#snapshot?.threads ?? []).map(({ name, id, cpuSeconds }) => [{ thread: name, id }, cpuSeconds]),
    };
  }
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
