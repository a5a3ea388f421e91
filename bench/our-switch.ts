/** Our end on the host's side between two guests: the bundled back-end as a learning switch. */

import { DeviceThread, Feature, NetDevice, switchPort, VhostUserServer } from 'virtio-pmd';

import { socketsOf } from './ends.js';
import { answer, type OurEndRole, serve } from './our-end-child.js';
import type { OurEndOptions } from './our-ends.js';
import { TransmitRings } from './transmit-rings.js';

async function open({ socket, core, queues, mergeable }: OurEndOptions): Promise<OurEndRole> {
  const thread = await DeviceThread.start({ cpu: core, idle: 'spin' });
  const sockets = socketsOf(socket);
  const rings = new TransmitRings(sockets.length * queues, (features) => answer({ type: 'connected', features }));
  const listen = (path: string): Promise<VhostUserServer> =>
    VhostUserServer.listen(path, {
      createDevice: () =>
        rings.device(
          new NetDevice(thread, {
            port: switchPort(),
            queuePairs: queues,
            without: mergeable ? [] : [Feature.MRG_RXBUF],
          }),
        ),
      onEvent: (event) => rings.onEvent(event, path),
    });
  const servers = await Promise.all(sockets.map(listen));
  return {
    begin: () => {},
    packets: () => rings.packets(queues),
    close: async () => {
      for (const server of servers) await server.close();
      await thread.stop();
    },
  };
}

await serve(open);
