/** Mode rxonly: packets are received and freed. */

import type { EngineMaker } from './engine-maker.js';

export const rxOnlyEngine: EngineMaker = ({ burst }, traffic) => ({
  forward() {
    const received = traffic.receive();
    burst.free();
    return received;
  },
});
