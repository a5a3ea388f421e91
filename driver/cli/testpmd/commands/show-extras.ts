/** `show port P features`, `show port P ring Q` and `explain path`: what a port's driver knows beyond testpmd. */

import { asVirtioError } from '../../failure.js';
import { type Command, command } from '../console/grammar.js';
import { features, path, ring } from '../reports/explanations.js';
import type { TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';
import { answer } from './answer.js';

const lacks = ({ output }: Testpmd, { id, device }: TestPort, what: string): void =>
  output.warn(`Port ${id} (${device.info().driverName}) has no ${what}`);

/** What a device tells, or undefined with a complaint where there is nothing to tell at the moment. */
function told<T>({ output }: Testpmd, port: TestPort, tell: () => T): T | undefined {
  try {
    return tell();
  } catch (error) {
    output.warn(`Port ${port.id}: ${asVirtioError(error).message}`);
    return undefined;
  }
}

function showFeatures(testpmd: Testpmd, id: number): void {
  const port = testpmd.portOf(id);
  if (port === undefined) return;
  const { device } = port;
  if (device.describeFeatures === undefined) {
    lacks(testpmd, port, 'features to negotiate');
    return;
  }
  const lines = told(testpmd, port, () => device.describeFeatures?.());
  if (lines !== undefined) answer(testpmd, 'features', { port: id, features: lines }, () => features(id, lines));
}

async function showRing(testpmd: Testpmd, id: number, queue: number): Promise<void> {
  const port = testpmd.portOf(id);
  if (port === undefined) return;
  const { device } = port;
  if (device.describeRing === undefined) {
    lacks(testpmd, port, 'rings to look at');
    return;
  }
  for (const direction of ['rx', 'tx'] as const) {
    try {
      const values = await device.describeRing(direction, queue);
      const title = `${direction === 'rx' ? 'Receive' : 'Transmit'} ring ${queue} of port ${id}`;
      answer(testpmd, 'ring', { port: id, direction, queue, ...values }, () => ring(title, values));
    } catch (error) {
      testpmd.output.warn(`${direction.toUpperCase()} ring ${queue} of port ${id}: ${asVirtioError(error).message}`);
    }
  }
}

function explainPath(testpmd: Testpmd, ports: readonly TestPort[]): void {
  for (const port of ports) {
    const { id, device } = port;
    if (device.describePath === undefined) {
      lacks(testpmd, port, 'choice of paths');
      continue;
    }
    const lines = told(testpmd, port, () => device.describePath?.());
    if (lines !== undefined) answer(testpmd, 'path', { port: id, lines }, () => path(id, device.name, lines));
  }
}

export const extraCommands: readonly Command[] = [
  command('show port {port:u16} features', 'each feature bit, and why it is on or off', (testpmd, { port }) =>
    showFeatures(testpmd, port),
  ),
  command(
    'show port {port:u16} ring {queue:u16}',
    'where a ring stands, and whose turn it is',
    (testpmd, { port, queue }) => showRing(testpmd, port, queue),
  ),
  command('explain path', 'the way that packets take through each driver, and why', (testpmd) =>
    explainPath(testpmd, testpmd.allPorts),
  ),
  command('explain path {port:u16}', 'the same for one port', (testpmd, { port }) => {
    const found = testpmd.portOf(port);
    if (found !== undefined) explainPath(testpmd, [found]);
  }),
];
