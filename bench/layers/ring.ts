/** Both ends of a ring by themselves, over one memory: packets are posted, popped, returned and reclaimed. */

import { PacketView } from '../../driver/memory/packet-view.js';
import { packedDeviceRing } from '../../driver/ring/packed-device-ring.js';
import { packedDriverRing } from '../../driver/ring/packed-driver-ring.js';
import { PACKED_START, PackedRingViews } from '../../driver/ring/packed-views.js';
import { jobsNeeded, splitDeviceRing } from '../../driver/ring/split-device-ring.js';
import { splitDriverRing } from '../../driver/ring/split-driver-ring.js';
import { SplitRingViews } from '../../driver/ring/split-views.js';
import { ringParts } from '../../driver/spec/ring.js';
import { GuestSide } from './guest-side.js';
import { LAYER_BURST, type Layer } from './layer.js';

const RING_SIZE = 256;
const PAGE = 4096;
const HEADER_BYTES = 12;
const FRAME_BYTES = 64;
/** Longest packet that may be posted. */
const FRAME_BYTES_MAX = 1514;

export function ringLayer(packed: boolean): Layer {
  const side = new GuestSide(4 * PAGE, jobsNeeded(RING_SIZE, LAYER_BURST));
  const { driver, device } = openEnds(side, packed);
  const { pool } = side;
  const handles = new Uint32Array(LAYER_BURST);
  pool.allocate(handles, 0, LAYER_BURST);
  const view = new PacketView(pool);
  for (const handle of handles) view.move(handle).setLength(FRAME_BYTES);
  const burst = (): void => {
    driver.postPackets(handles, 0, LAYER_BURST);
    device.returnEmpty(device.pop(LAYER_BURST));
    if (driver.reclaimSent(LAYER_BURST) !== LAYER_BURST) throw new Error(driver.broken ?? 'it stands still');
    // They are in the pool again, with their fields as they were.
    pool.take(handles, 0, LAYER_BURST);
  };
  return {
    run: (bursts) => {
      for (let count = 0; count < bursts; count++) burst();
    },
    close: () => side.close(),
  };
}

function openEnds({ memory, pool, engine }: GuestSide, packed: boolean) {
  const parts = ringParts(RING_SIZE, packed);
  const part = ({ bytes }: { readonly bytes: number }) => ({
    buffer: memory.buffer,
    offset: memory.takeContiguous(bytes, PAGE),
  });
  const places = [part(parts.desc), part(parts.driver), part(parts.device)] as const;
  const driverOptions = { pool, headerBytes: HEADER_BYTES, maxFrameBytes: FRAME_BYTES_MAX, eventIndex: false };
  const deviceOptions = { engine, burst: LAYER_BURST, eventIndex: false };
  if (packed) {
    const views = new PackedRingViews(RING_SIZE, ...places);
    views.clear();
    return {
      driver: packedDriverRing(views, driverOptions),
      device: packedDeviceRing(views, { ...deviceOptions, base: PACKED_START }),
    };
  }
  const views = new SplitRingViews(RING_SIZE, ...places);
  views.clear();
  return {
    driver: splitDriverRing(views, driverOptions),
    device: splitDeviceRing(views, { ...deviceOptions, base: 0 }),
  };
}
