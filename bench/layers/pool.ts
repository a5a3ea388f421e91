/** The packet pool by itself. */

import { createPool } from 'virtio-pmd';
import { LAYER_BURST, type Layer } from './layer.js';

const POOL_SIZE = 1024;

export function poolLayer(): Layer {
  const pool = createPool({ size: POOL_SIZE, pages: '4K' });
  const handles = new Uint32Array(LAYER_BURST);
  return {
    run: (bursts) => {
      for (let burst = 0; burst < bursts; burst++) {
        pool.allocate(handles, 0, LAYER_BURST);
        pool.free(handles, 0, LAYER_BURST);
      }
    },
    close: () => pool.memory.close(),
  };
}
