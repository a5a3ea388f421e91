/** The meter on the host's side: our back-end with the driver that is measured, which echoes. */

import { DeviceThread, Feature, NetDevice, VhostUserServer } from 'virtio-pmd';

import { answer, type OurEndRole, serve } from '../our-end-child.js';
import type { OurEndOptions } from '../our-ends.js';
import { TransmitRings } from '../transmit-rings.js';
import { encodedLatencies, runTrial } from './child.js';
import type { MeterPortOptions } from './host-port.js';
import { TrialMemory } from './trial.js';

async function open({ socket, core, mergeable }: OurEndOptions): Promise<OurEndRole> {
  const portModule = new URL('./host-port.js', import.meta.url);
  const trials = new TrialMemory();
  const options: MeterPortOptions = { trials: trials.buffer };
  const thread = await DeviceThread.start({ cpu: core, idle: 'spin', ports: [portModule] });
  const rings = new TransmitRings(1, (features) => answer({ type: 'connected', features }));
  const server = await VhostUserServer.listen(socket, {
    createDevice: () =>
      new NetDevice(thread, {
        port: { module: portModule.href, options },
        without: mergeable ? [] : [Feature.MRG_RXBUF],
      }),
    onEvent: (event) => rings.onEvent(event),
  });
  return {
    begin: () => {},
    trial: (plan) => runTrial(trials, plan),
    latencies: () => encodedLatencies(trials),
    close: async () => {
      await server.close();
      await thread.stop();
    },
  };
}

await serve(open);
