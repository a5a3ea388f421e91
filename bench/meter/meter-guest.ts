/** The meter on the guest's side: our driver as front-end of the back-end that is measured, which echoes. */

import { launch, openPort } from 'virtio-pmd';

import { type OurEndRole, serve } from '../our-end-child.js';
import type { OurEndOptions } from '../our-ends.js';
import { encodedLatencies, runTrial } from './child.js';
import { TrialMemory } from './trial.js';

async function open({ socket, core, packed, ringSize, burst, mergeable, inOrder }: OurEndOptions): Promise<OurEndRole> {
  const ring = packed ? 'packed' : 'split';
  const port = await openPort(`vhost-user:${socket}`, { ring, ringSize, mergeable, inOrder });
  await port.start();
  const trials = new TrialMemory();
  const worker = new URL('./guest-worker.js', import.meta.url);
  let launched: Awaited<ReturnType<typeof launch>> | undefined;
  return {
    begin: async () => {
      let onPolling = () => {};
      const polling = new Promise<void>((resolve) => {
        onPolling = resolve;
      });
      const data = { trials: trials.buffer, burst };
      launched = await launch(port, worker, { lcores: [core], data, onEvent: () => onPolling() });
      // A thread that ends instead has failed, and says why.
      await Promise.race([polling, launched.finished]);
    },
    trial: (plan) => runTrial(trials, plan),
    latencies: () => encodedLatencies(trials),
    close: async () => {
      await launched?.stop();
      await port.close();
    },
  };
}

await serve(open);
