/** Our end on the guest's side: the driver as vhost-user front-end, forwarding on one pinned thread. */

import { launch, openPort } from 'virtio-pmd';

import { type OurEndRole, serve } from './our-end-child.js';
import type { OurEndOptions } from './our-ends.js';

/** What a guest of DPDK's vhost does best with: the headroom of DPDK's own packets, and headers left as they came. */
const FOR_DPDK = { headroom: 128, keepNumBuffers: true };

async function open(options: OurEndOptions): Promise<OurEndRole> {
  const { socket, core, ringSize, packed, mergeable, inOrder, facesDpdk } = options;
  const ring = packed ? 'packed' : 'split';
  const port = await openPort(`vhost-user:${socket}`, {
    ring,
    ringSize,
    mergeable,
    inOrder,
    ...(facesDpdk ? FOR_DPDK : {}),
  });
  await port.start();
  const worker = new URL('./our-guest-worker.js', import.meta.url);
  let onPolling = () => {};
  let launched: Awaited<ReturnType<typeof launch>> | undefined;
  return {
    begin: async () => {
      const polling = new Promise<void>((resolve) => {
        onPolling = resolve;
      });
      const data = { macAddress: [...port.macAddress!] };
      launched = await launch(port, worker, { lcores: [core], data, onEvent: () => onPolling() });
      // A thread that ends instead has failed, and says why.
      await Promise.race([polling, launched.finished]);
    },
    packets: () => port.statistics().rx[0]!.packets,
    close: async () => {
      await launched?.stop();
      await port.close();
    },
  };
}

await serve(open);
