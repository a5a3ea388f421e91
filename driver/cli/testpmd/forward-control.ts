/** Starting and stopping to forward: the checks before, and what testpmd says. */

import { showForwardStatistics } from './commands/show-forwarding.js';
import { echoPlanText } from './forward-plan.js';
import { forwardSettingsOf } from './forward-settings-of.js';
import type { StreamSetup } from './lcore/stream.js';
import { refusal } from './options/refusal.js';
import { forwardConfiguration, rxTxConfiguration } from './reports/forward-configuration.js';
import type { Testpmd } from './testpmd.js';

/**
 * @param txFirst bursts that each stream sends before it forwards
 * @throws VirtioError INVALID_ARGUMENT where testpmd ends: without the queues that the mode needs
 */
export async function startForwarding(testpmd: Testpmd, txFirst: number): Promise<void> {
  const { output, settings, forwarding } = testpmd;
  requireQueues(testpmd);
  if (testpmd.allPorts.some(({ status }) => status !== 'started')) {
    return output.warn('Not all ports were started');
  }
  if (forwarding.isRunning) return output.warn('Packet forwarding already started');
  testpmd.layOut();
  const { plan } = testpmd;
  if (plan.mode === 'icmpecho' && settings.verbose > 0) output.write(echoPlanText(plan));
  output.write(forwardConfiguration(plan, settings));
  if (plan.mode === 'flowgen') {
    for (const port of plan.ports) output.say(`  number of flows for port ${port}: ${settings.flowgenFlows}`);
  }
  await forwarding.start(plan, forwardSettingsOf(testpmd), {
    devices: new Map(testpmd.allPorts.map(({ id, device }) => [id, device])),
    flush: settings.flushRx,
    txFirst,
    isEnabled: (stream) => isEnabled(testpmd, stream),
    onReady: () => {
      output.write(rxTxConfiguration(settings, testpmd.allPorts, testpmd.forwardLcoreCount, testpmd.forwardPortCount));
      for (const port of testpmd.allPorts) port.statisticsAtStart = port.device.statistics();
    },
  });
}

/** Whether both queues of a stream are started. */
function isEnabled({ ports }: Testpmd, { rxPort, rxQueue, txPort, txQueue }: StreamSetup): boolean {
  const rx = ports.get(rxPort)?.rxQueues[rxQueue];
  const tx = ports.get(txPort)?.txQueues[txQueue];
  return rx?.state !== 'stopped' && tx?.state !== 'stopped';
}

function requireQueues({ settings }: Testpmd): void {
  const { forwardMode: mode, rxQueues, txQueues } = settings;
  if (mode === 'rxonly' && rxQueues === 0) throw refusal('rxq are 0, cannot use rxonly fwd mode');
  if (mode === 'txonly' && txQueues === 0) throw refusal('txq are 0, cannot use txonly fwd mode');
  if (mode !== 'rxonly' && mode !== 'txonly' && (rxQueues === 0 || txQueues === 0)) {
    throw refusal(`Either rxq or txq are 0, cannot use ${mode} fwd mode`);
  }
}

export async function stopForwarding(testpmd: Testpmd): Promise<void> {
  const { output, forwarding } = testpmd;
  if (!forwarding.isRunning) return output.warn('Packet forwarding not started');
  output.write('Telling cores to stop...\nWaiting for lcores to finish...\n');
  await forwarding.stop();
  showForwardStatistics(testpmd);
  output.write('\nDone.\n');
}

/** Has what runs take over what was set. */
export const updateForwarding = async (testpmd: Testpmd): Promise<void> =>
  testpmd.forwarding.update(forwardSettingsOf(testpmd));
