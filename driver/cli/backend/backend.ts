/** `virtio-pmd backend`: runs until it is stopped, and tells what happens meanwhile. */

import { type Control, openControl } from '../control/open-control.js';
import { asVirtioError, ExitStatus, printError, statusOf } from '../failure.js';
import type { Interrupt } from '../interrupt.js';
import { MetricsServer } from '../metrics/metrics-server.js';
import { Daemon } from './daemon.js';
import { Metrics } from './metrics.js';
import type { BackendOptions } from './options.js';
import { backendSnapshots } from './port-snapshots.js';
import { Reporter } from './reporter.js';

/** Runs the command; returns its exit status: stopping it is how it ends well. */
export async function backend(options: BackendOptions, interrupt: Interrupt): Promise<number> {
  const reporter = new Reporter(options);
  try {
    await run(options, interrupt, reporter);
    return ExitStatus.SUCCESS;
  } catch (failure) {
    const error = asVirtioError(failure);
    reporter.failed(error);
    await reporter.flushed();
    printError(error);
    return statusOf(error);
  }
}

async function run(options: BackendOptions, interrupt: Interrupt, reporter: Reporter): Promise<void> {
  const names = options.fd === undefined ? (options.socketPath ?? []) : [`fd:${options.fd}`];
  let daemon: Daemon | undefined;
  let server: MetricsServer | undefined;
  let control: Control | undefined;
  const source = {
    get connections() {
      return daemon?.connections ?? [];
    },
    sockets: names,
    get switch() {
      return daemon?.switch;
    },
  };
  const metrics = new Metrics(source);
  try {
    reporter.watch(source);
    if (options.metrics !== undefined) {
      server = await MetricsServer.listen(options.metrics, metrics);
      reporter.serving(server.url);
    }
    daemon = await Daemon.start(options, interrupt, (event) => {
      metrics.take(event);
      reporter.take(event);
    });
    control = await openControl(options.controlSocket, backendSnapshots(source), interrupt);
    await Promise.race([daemon.over, aborted(interrupt.signal)]);
  } finally {
    reporter.unwatch();
    try {
      await control?.close();
      await daemon?.close();
    } finally {
      await server?.close();
      await reporter.flushed();
    }
  }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
