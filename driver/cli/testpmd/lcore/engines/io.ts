/** Mode io: packets go on as they are. */

import type { EngineMaker } from './engine-maker.js';

export const ioEngine: EngineMaker = (_stream, traffic) => ({
  forward() {
    const received = traffic.receive();
    if (received > 0) traffic.send();
    return received;
  },
});
