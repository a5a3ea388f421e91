/** Our end on the host's side: the bundled back-end on a socket, forwarding between packets of its own. */

import { DeviceThread, Feature, NetDevice, VhostUserServer } from 'virtio-pmd';

import { answer, type OurEndRole, serve } from './our-end-child.js';
import type { OurEndOptions } from './our-ends.js';
import type { OurHostPortOptions } from './our-host-port.js';

/** Ring of the first pair that carries what the guest sends. */
const TRANSMITQ = 1;

async function open({ socket, size, core, ringSize, mergeable }: OurEndOptions): Promise<OurEndRole> {
  const portModule = new URL('./our-host-port.js', import.meta.url);
  const begin = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
  const options: OurHostPortOptions = { frames: ringSize, bytes: size, begin };
  const thread = await DeviceThread.start({ cpu: core, idle: 'spin', ports: [portModule] });
  let device: NetDevice | undefined;
  let features = '0x0';
  let isConnected = false;
  const server = await VhostUserServer.listen(socket, {
    createDevice: () => {
      device = new NetDevice(thread, {
        port: { module: portModule.href, options },
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
    begin: () => {
      Atomics.store(new Int32Array(begin), 0, 1);
    },
    packets: () => device?.statistics(TRANSMITQ).packets ?? 0,
    close: async () => {
      await server.close();
      await thread.stop();
    },
  };
}

await serve(open);
