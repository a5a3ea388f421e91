/** `capture start|stop`: the packets of ports into a pcapng file, while they are forwarded. Beyond testpmd. */

import { createPcapng } from '../../../pcap/pcapng-writer.js';
import { asVirtioError } from '../../failure.js';
import { type Command, command } from '../console/grammar.js';
import type { CaptureOrder } from '../lcore/capture-observer.js';
import type { TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';

const MODULE = new URL('../lcore/capture-observer.js', import.meta.url);

/** Captures the ports into one file, in which each is an interface. */
async function start({ forwarding, output }: Testpmd, ports: readonly TestPort[], path: string): Promise<void> {
  try {
    const interfaces = ports.map(({ id, device, macAddress }) => ({
      name: device.name,
      description: `port ${id}`,
      macAddress,
    }));
    createPcapng(path, 'virtio-pmd testpmd', interfaces);
    for (const [source, { id }] of ports.entries()) {
      await forwarding.observe(id, { module: MODULE, data: { path, source } satisfies CaptureOrder });
    }
  } catch (error) {
    output.warn(`Capture failed: ${asVirtioError(error).toLine()}`);
    return;
  }
  output.say(`Capturing ${ports.map(({ id }) => `port ${id}`).join(', ')} to ${path}`);
}

async function stop({ forwarding, output }: Testpmd, ports: readonly TestPort[]): Promise<void> {
  for (const { id } of ports) await forwarding.observe(id, undefined);
  output.say('Capture stopped');
}

const one = (testpmd: Testpmd, id: number): readonly TestPort[] => {
  const port = testpmd.portOf(id);
  return port === undefined ? [] : [port];
};

export const captureCommands: readonly Command[] = [
  command(
    'capture start {port:u16} {path:word}',
    'packets of a port into a pcapng file',
    async (testpmd, { port, path }) => {
      const ports = one(testpmd, port);
      if (ports.length > 0) await start(testpmd, ports, path);
    },
  ),
  command('capture start all {path:word}', 'packets of all ports into a pcapng file', (testpmd, { path }) =>
    start(testpmd, testpmd.allPorts, path),
  ),
  command('capture stop {port:u16}', 'no more packets of a port', async (testpmd, { port }) => {
    const ports = one(testpmd, port);
    if (ports.length > 0) await stop(testpmd, ports);
  }),
  command('capture stop all', 'no more packets of any port', (testpmd) => stop(testpmd, testpmd.allPorts)),
];
