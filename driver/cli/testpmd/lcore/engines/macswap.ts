/** Mode macswap: packets go on with source and destination address exchanged. */

import { swapMacs } from '../../../../thread.js';
import type { EngineMaker } from './engine-maker.js';
import { transmitMarker } from './transmit-marks.js';

export const macSwapEngine: EngineMaker = ({ burst, setup }, traffic, { pool, settings }) => {
  const mark = transmitMarker(pool, settings, setup);
  return {
    forward() {
      const received = traffic.receive();
      if (received === 0) return 0;
      swapMacs(burst);
      mark(burst);
      traffic.send();
      return received;
    },
  };
};
