/** What every exporter has, under the usual names. */

import { readdirSync } from 'node:fs';
import { packageVersion } from '../version.js';
import type { Metric } from './metric.js';

const MICROSECONDS = 1e-6;

export function processMetrics(): Metric[] {
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
