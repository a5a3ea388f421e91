/** Commands that start, stop, close, reset, attach and detach ports. */

import { type Command, command } from '../console/grammar.js';
import { attachPort, detachDevice, detachPort } from '../ports/attach.js';
import { closePorts, resetPorts, startPorts, stopPorts } from '../ports/lifecycle.js';
import type { PortChoice } from '../ports/selection.js';
import type { Testpmd } from '../testpmd.js';

const ACTIONS = {
  start: startPorts,
  stop: stopPorts,
  close: closePorts,
  reset: resetPorts,
} as const satisfies Record<string, (testpmd: Testpmd, choice: PortChoice) => Promise<unknown>>;

const operate = async (testpmd: Testpmd, action: keyof typeof ACTIONS, choice: PortChoice): Promise<void> => {
  await ACTIONS[action](testpmd, choice);
};

export const portCommands: readonly Command[] = [
  command('port {action:start|stop|close|reset} all', 'Does that with all ports.', (testpmd, { action }) =>
    operate(testpmd, action, 'all'),
  ),
  command('port {action:start|stop|close|reset} {port:u16}', 'Does that with one port.', (testpmd, { action, port }) =>
    operate(testpmd, action, port),
  ),
  command('port attach {device:text}', 'Adds a port: net_tap0,iface=tap0 or 0000:00:04.0.', (testpmd, { device }) =>
    attachPort(testpmd, device),
  ),
  command('port detach {port:u16}', 'Removes a stopped port with its device.', (testpmd, { port }) =>
    detachPort(testpmd, port),
  ),
  command('device detach {device:word}', 'Removes a device with its stopped port.', (testpmd, { device }) =>
    detachDevice(testpmd, device),
  ),
];
