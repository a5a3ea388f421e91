/** Mode mac: packets go on from the address of the transmit port to that of its peer. */

import { macForward } from '../../../../thread.js';
import { portSettings } from '../forward-settings.js';
import type { EngineMaker } from './engine-maker.js';
import { transmitMarker } from './transmit-marks.js';

export const macEngine: EngineMaker = ({ burst, setup }, traffic, { pool, settings }) => {
  const { macAddress, peerAddress } = portSettings(settings, setup.txPort);
  const mark = transmitMarker(pool, settings, setup);
  return {
    forward() {
      const received = traffic.receive();
      if (received === 0) return 0;
      macForward(burst, macAddress, peerAddress);
      mark(burst);
      traffic.send();
      return received;
    },
  };
};
