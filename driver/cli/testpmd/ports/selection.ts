/** Ports that a command names: one by its number, or all. */

import type { TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';

export type PortChoice = number | 'all';

/** The ports that are meant; undefined, with testpmd's complaint, when there is no such port. */
export function chosenPorts(testpmd: Testpmd, choice: PortChoice): readonly TestPort[] | undefined {
  if (choice === 'all') return testpmd.allPorts;
  const port = testpmd.portOf(choice);
  return port === undefined ? undefined : [port];
}

/** Those of the ports that do not forward at this moment; the others are complained of. */
export function notForwarding(testpmd: Testpmd, ports: readonly TestPort[]): readonly TestPort[] {
  return ports.filter((port) => {
    if (!testpmd.isForwarding(port)) return true;
    testpmd.output.warn(`Please remove port ${port.id} from forwarding configuration.`);
    return false;
  });
}
