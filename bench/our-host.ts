/** Our end on the host's side: the bundled back-end on a socket, forwarding between packets of its own. */

import { DeviceThread, echoPort, Feature, NetDevice, VhostUserServer } from 'virtio-pmd';

import { answer, type OurEndRole, serve } from './our-end-child.js';
import type { OurEndOptions } from './our-ends.js';

/** Ring of the first pair that carries what the guest sends. */
const TRANSMITQ = 1;

async function open({ socket, size, core, ringSize, mergeable }: OurEndOptions): Promise<OurEndRole> {
  const thread = await DeviceThread.start({ cpu: core, idle: 'spin' });
  let device: NetDevice | undefined;
  let features = '0x0';
  let isConnected = false;
  const server = await VhostUserServer.listen(socket, {
    createDevice: () => {
      device = new NetDevice(thread, {
        port: echoPort({ mode: 'mac', first: { packets: ringSize, bytes: size } }),
        without: mergeable ? [] : [Feature.MRG_RXBUF],
      });
      return device;
    },
    onEvent: (event) => {
      if (event.type === 'features') features = `0x${event.features.toU64().toString(16)}`;
      if (event.type === 'error') process.stderr.write(`${event.error.toLine()}\n`);
      // A front-end whose memory grows enables its rings again: that is no news.
      if (isConnected || event.type !== 'vring' || event.ring !== TRANSMITQ || event.state !== 'enabled') return;
      isConnected = true;
      answer({ type: 'connected', features });
    },
  });
  return {
    // The port sends the first frames by itself as soon as the guest has buffers for them.
    begin: () => {},
    packets: () => device?.statistics(TRANSMITQ).packets ?? 0,
    close: async () => {
      await server.close();
      await thread.stop();
    },
  };
}

await serve(open);
