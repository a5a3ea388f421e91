/** Our end on the host's side: the bundled back-end on a socket, forwarding between packets of its own. */

import { DeviceThread, Feature, NetDevice, VhostUserServer } from 'virtio-pmd';

import { answer, type OurEndRole, serve } from './our-end-child.js';
import type { OurEndOptions } from './our-ends.js';
import type { OurHostPortOptions } from './our-host-port.js';
import { TransmitRings } from './transmit-rings.js';

/** Packets of the thread's pool, at least: its default. */
const POOL_SIZE_MIN = 8192;

async function open(options: OurEndOptions): Promise<OurEndRole> {
  const { socket, frames, core, burst, queues, ringSize, connections, mergeable } = options;
  const portModule = new URL('./our-host-port.js', import.meta.url);
  const begin = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
  const runs = frames.map(({ bytes, bursts }) => ({ bytes, count: Math.ceil((bursts * burst) / connections) }));
  const portOptions: OurHostPortOptions = { frames: runs, begin };
  const poolSize = Math.max(POOL_SIZE_MIN, 4 * ringSize * queues);
  const thread = await DeviceThread.start({ cpu: core, idle: 'spin', ports: [portModule], poolSize });
  const rings = new TransmitRings(connections * queues, (features) => answer({ type: 'connected', features }));
  const server = await VhostUserServer.listen(socket, {
    createDevice: () =>
      rings.device(
        new NetDevice(thread, {
          port: { module: portModule.href, options: portOptions },
          queuePairs: queues,
          without: mergeable ? [] : [Feature.MRG_RXBUF],
        }),
      ),
    onEvent: (event) => rings.onEvent(event),
  });
  return {
    begin: () => {
      Atomics.store(new Int32Array(begin), 0, 1);
    },
    packets: () => rings.packets(queues),
    close: async () => {
      await server.close();
      await thread.stop();
    },
  };
}

await serve(open);
