/** The border of the addon by itself: a call of the copy engine that has nothing to copy. */

import { GuestSide } from './guest-side.js';
import { LAYER_BURST, type Layer } from './layer.js';

export function borderLayer(): Layer {
  const side = new GuestSide(0, LAYER_BURST);
  const { engine } = side;
  return {
    run: (bursts) => {
      for (let burst = 0; burst < bursts; burst++) engine.run(0);
    },
    close: () => side.close(),
  };
}
