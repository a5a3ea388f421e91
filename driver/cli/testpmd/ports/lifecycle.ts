/** Starting, stopping, closing and resetting ports: what testpmd says, and in which order. */

import { complainOfMissingStatistics } from '../commands/show-ports.js';
import { errnoOf, errnoText } from '../errno.js';
import { macText } from '../reports/words.js';
import type { TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';
import { configurePort } from './configure.js';
import { checkLinks } from './link-check.js';
import { chosenPorts, notForwarding, type PortChoice } from './selection.js';

/** Configures where that is due, and starts; returns whether nothing made it give up. */
export async function startPorts(testpmd: Testpmd, choice: PortChoice): Promise<boolean> {
  const { output, settings } = testpmd;
  const ports = chosenPorts(testpmd, choice);
  if (ports === undefined) return true;
  const started: TestPort[] = [];
  let allWereStarted = ports.length > 0;
  for (const port of ports) {
    if (port.status !== 'stopped') {
      output.warn(`Port ${port.id} is now not stopped`);
      continue;
    }
    allWereStarted = false;
    if (!(await configurePort(testpmd, port))) return false;
    if (await startOne(testpmd, port)) started.push(port);
  }
  if (started.length > 0 && settings.linkCheck) await checkLinks(testpmd);
  else if (allWereStarted) output.warn('Please stop the ports first');
  for (const port of started) complainOfMissingStatistics(testpmd, port);
  output.say('Done');
  return true;
}

async function startOne(testpmd: Testpmd, port: TestPort): Promise<boolean> {
  const { output } = testpmd;
  port.status = 'handling';
  try {
    await port.device.start();
  } catch (error) {
    port.status = 'stopped';
    testpmd.log(error);
    output.warn(`Fail to start port ${port.id}: ${errnoText(errnoOf(error))}`);
    return false;
  }
  port.status = 'started';
  await restoreModes(port);
  port.macAddress = port.device.info().macAddress;
  output.say(`Port ${port.id}: ${macText(port.macAddress)}`);
  return true;
}

/** A device forgets its modes at a start; ethdev sets them again. */
async function restoreModes({ device, promiscuous, allMulticast }: TestPort): Promise<void> {
  if (promiscuous) await device.setPromiscuous?.(true).catch(() => undefined);
  if (allMulticast) await device.setAllMulticast?.(true).catch(() => undefined);
}

export async function stopPorts(testpmd: Testpmd, choice: PortChoice, { checksLinks = true } = {}): Promise<void> {
  const { output, settings } = testpmd;
  const ports = chosenPorts(testpmd, choice);
  if (ports === undefined) return;
  output.say('Stopping ports...');
  let stopped = 0;
  for (const port of notForwarding(testpmd, ports)) {
    if (port.status !== 'started') continue;
    port.status = 'handling';
    try {
      await testpmd.forwarding.release(port.id);
      await port.device.stop();
      port.status = 'stopped';
      stopped++;
    } catch (error) {
      // It may be tried again.
      port.status = 'started';
      testpmd.log(error);
      output.warn(`rte_eth_dev_stop failed for port ${port.id}`);
    }
  }
  if (stopped > 0 && settings.linkCheck && checksLinks) await checkLinks(testpmd);
  output.say('Done');
}

export async function closePorts(testpmd: Testpmd, choice: PortChoice): Promise<void> {
  const { output } = testpmd;
  const ports = chosenPorts(testpmd, choice);
  if (ports === undefined) return;
  output.say('Closing ports...');
  for (const port of notForwarding(testpmd, ports)) {
    if (port.status === 'started') output.warn(`Cannot close started device (port ${port.id})`);
    else await closeOne(testpmd, port);
  }
  output.say('Done');
}

/** Closes the device, whatever it says, and forgets the port. */
export async function closeOne(testpmd: Testpmd, port: TestPort): Promise<void> {
  try {
    try {
      await testpmd.forwarding.release(port.id);
    } finally {
      await port.device.close();
    }
  } catch (error) {
    testpmd.log(error);
  }
  port.status = 'closed';
  testpmd.removePort(port);
  testpmd.output.say(`Port ${port.id} is closed`);
}

/** As ethdev's reset: only kinds of ports that have one do it, which none of ours is; the others answer -ENOTSUP. */
export async function resetPorts(testpmd: Testpmd, choice: PortChoice): Promise<void> {
  const { output } = testpmd;
  const ports = chosenPorts(testpmd, choice);
  if (ports === undefined) return;
  if (ports.some(({ status }) => status !== 'stopped')) {
    return output.warn('Can not reset port(s), please stop port(s) first.');
  }
  output.say('Resetting ports...');
  for (const { id } of notForwarding(testpmd, ports)) output.warn(`Failed to reset port ${id}. diag=-95`);
  output.say('Done');
}
