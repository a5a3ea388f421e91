/** Who looks on while testpmd runs: `virtio-pmd top` by the control socket, and Prometheus by `--metrics`. */

import { openControl } from '../control/open-control.js';
import type { Interrupt } from '../interrupt.js';
import { MetricsServer } from '../metrics/metrics-server.js';
import { SnapshotMetrics } from '../metrics/snapshot-metrics.js';
import type { PortSnapshot, QueueSnapshot } from '../snapshot/snapshot.js';
import { snapshots } from '../snapshot/take-snapshot.js';
import type { TestPort } from './test-port.js';
import type { Testpmd } from './testpmd.js';

const LABELS = ['port', 'device'] as const;

/** Lets itself be looked at; returns how to end that, before any port is closed. @throws VirtioError where what was asked for cannot be had */
export async function openToOnlookers(testpmd: Testpmd, interrupt: Interrupt): Promise<() => Promise<void>> {
  const { metricsPort, controlSocket } = testpmd.settings;
  const take = snapshots('testpmd', () => testpmd.allPorts.map(portSnapshot));
  const control = await openControl(controlSocket, take, interrupt);
  if (metricsPort === undefined) return () => control.close();
  try {
    const metrics = await MetricsServer.listen(metricsPort, new SnapshotMetrics(take, LABELS));
    testpmd.output.warn(`metrics at ${metrics.url}`);
    return async () => {
      await metrics.close();
      await control.close();
    };
  } catch (error) {
    await control.close();
    throw error;
  }
}

function portSnapshot({ id, device }: TestPort): PortSnapshot {
  const { driverName } = device.info();
  const queues = device.queueSnapshots?.() ?? wholeOf(device.statistics());
  return { name: `${id}: ${device.name}`, kind: driverName, labels: { port: id, device: device.name }, queues };
}

/** Of a port that counts no queues by themselves. */
function wholeOf(statistics: ReturnType<TestPort['device']['statistics']>): readonly QueueSnapshot[] {
  const { rxPackets, rxBytes, rxMissed, rxErrors, rxNoBuffer, txPackets, txBytes, txErrors } = statistics;
  const never = { polls: 0, emptyPolls: 0 };
  return [
    {
      ...{ name: 'rx', way: 'in', packets: rxPackets, bytes: rxBytes, noBuffer: rxNoBuffer, ...never },
      drops: { missed: rxMissed, errors: rxErrors },
    },
    { name: 'tx', way: 'out', packets: txPackets, bytes: txBytes, noBuffer: 0, ...never, drops: { errors: txErrors } },
  ];
}
