/** Our end on the host's side between two guests: the bundled back-end as a learning switch. */

import { DeviceThread, Feature, NetDevice, switchPort, VhostUserServer } from 'virtio-pmd';

import { socketsOf } from './ends.js';
import { answer, type OurEndRole, serve } from './our-end-child.js';
import type { OurEndOptions } from './our-ends.js';

/** Ring of the first pair that carries what the guest sends. */
const TRANSMITQ = 1;

async function open({ socket, core, mergeable }: OurEndOptions): Promise<OurEndRole> {
  const thread = await DeviceThread.start({ cpu: core, idle: 'spin' });
  const devices: NetDevice[] = [];
  const connected = new Set<number>();
  let features = '0x0';
  const listen = (path: string, port: number): Promise<VhostUserServer> =>
    VhostUserServer.listen(path, {
      createDevice: () => {
        devices[port] = new NetDevice(thread, { port: switchPort(), without: mergeable ? [] : [Feature.MRG_RXBUF] });
        return devices[port];
      },
      onEvent: (event) => {
        if (event.type === 'features') features = `0x${event.features.toU64().toString(16)}`;
        if (event.type === 'error') process.stderr.write(`${event.error.toLine()}\n`);
        // A front-end whose memory grows enables its rings again: that is no news.
        if (event.type !== 'vring' || event.ring !== TRANSMITQ || event.state !== 'enabled' || connected.has(port))
          return;
        connected.add(port);
        if (connected.size === servers.length) answer({ type: 'connected', features });
      },
    });
  const servers = await Promise.all(socketsOf(socket).map(listen));
  return {
    begin: () => {},
    packets: () => devices.reduce((sum, device) => sum + device.statistics(TRANSMITQ).packets, 0),
    close: async () => {
      for (const server of servers) await server.close();
      await thread.stop();
    },
  };
}

await serve(open);
