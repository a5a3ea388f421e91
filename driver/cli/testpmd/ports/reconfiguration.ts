/** Changing what ports are configured with at their next start. */

import { canHaveQueues } from '../queue-limits.js';
import type { Direction, TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';
import { applyQueueSettings } from './queue-settings.js';

/** Whether all ports are stopped; says so where they are not. */
export function areAllStopped({ allPorts, output }: Testpmd): boolean {
  if (allPorts.every(({ status }) => status === 'stopped')) return true;
  output.warn('Please stop all ports first');
  return false;
}

/** Whether a port that there is, is stopped; says so where it is not. */
export function stoppedPort(testpmd: Testpmd, id: number): TestPort | undefined {
  const port = testpmd.portOf(id);
  if (port === undefined || port.status === 'stopped') return port;
  testpmd.output.warn(`Please stop port ${id} first`);
  return undefined;
}

/** Gives all ports the settings of the application again, for their next start. */
export function reconfigureAll(testpmd: Testpmd): void {
  testpmd.layOut();
  for (const port of testpmd.allPorts) {
    applyQueueSettings(port, testpmd.settings);
    reconfigure(port);
  }
}

export function reconfigure(port: TestPort): void {
  port.needsConfiguration = true;
  port.needsQueues = true;
}

/** Whether there is a queue of that number; says so where there is none. */
export function isQueue({ output, settings }: Testpmd, direction: Direction, queue: number): boolean {
  const count = direction === 'rx' ? settings.rxQueues : settings.txQueues;
  if (queue < count) return true;
  output.warn(`Invalid ${direction.toUpperCase()} queue ${queue} (must be < nb_${direction}q=${count})`);
  return false;
}

/** Sets how many queues all ports have. */
export function setQueueCount(testpmd: Testpmd, direction: Direction, count: number): void {
  const { output, settings } = testpmd;
  const others = direction === 'rx' ? settings.txQueues : settings.rxQueues;
  if (count === 0 && others === 0) {
    output.warn('Warning: Either rx or tx queues should be non zero');
    return;
  }
  if (!canHaveQueues(testpmd, direction, count)) return;
  settings[direction === 'rx' ? 'rxQueues' : 'txQueues'] = count;
  reconfigureAll(testpmd);
}

/** Sets how many entries the rings of all ports have. */
export function setRingSize(testpmd: Testpmd, direction: Direction, entries: number): void {
  const { output, settings } = testpmd;
  const name = direction === 'rx' ? 'rxd' : 'txd';
  for (const { id, device } of testpmd.allPorts) {
    const { rxDescriptors, txDescriptors } = device.info();
    const { max, min } = direction === 'rx' ? rxDescriptors : txDescriptors;
    if (entries > max) {
      output.warn(`Fail: input ${name} (${entries}) can't be greater than max_${direction}ds (${max}) of port ${id}`);
      return;
    }
    if (entries < min) {
      output.warn(`Fail: input ${name} (${entries}) can't be less than min_${direction}ds (${min}) of port ${id}`);
      return;
    }
  }
  settings[direction === 'rx' ? 'rxDescriptors' : 'txDescriptors'] = entries;
  reconfigureAll(testpmd);
}
