/** The copy engine by itself: bursts of jobs from a guest's buffers into the host's pool. */

import { CopyDirection, CopyJob } from '../../native/index.js';
import { GuestSide } from './guest-side.js';
import { LAYER_BURST, type Layer } from './layer.js';

export function copyLayer(bytes: number): Layer {
  const side = new GuestSide(0, LAYER_BURST);
  const { engine, pool } = side;
  for (let index = 0; index < LAYER_BURST; index++) {
    const job = index * CopyJob.WORDS;
    engine.jobs[job + CopyJob.GUEST_LOW] = pool.iovas[2 * index]!;
    engine.jobs[job + CopyJob.GUEST_HIGH] = pool.iovas[2 * index + 1]!;
    engine.jobs[job + CopyJob.POOL_OFFSET] = index * pool.bufferBytes;
    engine.jobs[job + CopyJob.LENGTH] = bytes;
    engine.jobs[job + CopyJob.DIRECTION] = CopyDirection.FROM_GUEST;
  }
  return {
    run: (bursts) => {
      let failed = 0;
      for (let burst = 0; burst < bursts; burst++) failed += engine.run(LAYER_BURST);
      if (failed > 0) throw new Error(`${failed} copies failed`);
    },
    close: () => side.close(),
  };
}
