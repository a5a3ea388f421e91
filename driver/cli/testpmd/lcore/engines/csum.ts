/** Mode csum: packets go on with their checksums made anew, here or, where `csum set … hw` says so, by the port. */

import { macForward, PacketBytes, PacketField } from '../../../../thread.js';
import { portSettings } from '../forward-settings.js';
import { ChecksumMaker } from './checksum-maker.js';
import { ChecksumLayers } from './csum-layers.js';
import { describeChecksums } from './csum-text.js';
import type { EngineMaker } from './engine-maker.js';
import { SplitCopies } from './split-copies.js';

const { FLAGS, WORDS_SHIFT } = PacketField;

export const checksumEngine: EngineMaker = ({ burst, setup }, traffic, { pool, settings, print }) => {
  const port = portSettings(settings, setup.txPort);
  const packet = new PacketBytes(pool);
  const layers = new ChecksumLayers();
  const maker = new ChecksumMaker(pool, port);
  const copies = settings.segmentSplit === 'off' ? undefined : new SplitCopies(pool, settings);
  return {
    forward() {
      const received = traffic.receive();
      if (received === 0) return 0;
      if (port.swapsMacs) macForward(burst, port.macAddress, port.peerAddress);
      for (let index = 0; index < received; index++) {
        const handle = burst.handles[index]!;
        const found = pool.fields[(handle << WORDS_SHIFT) + FLAGS]!;
        layers.parse(packet.move(handle), port.parsesTunnels);
        const asked = maker.make(packet, layers);
        if (copies !== undefined) burst.handles[index] = copies.replace(packet.move(handle));
        if (settings.verbose > 0) {
          const sent = packet.move(burst.handles[index]!);
          print(describeChecksums(pool, sent, { rxPort: setup.rxPort, found, asked, layers, port }));
        }
      }
      traffic.send();
      return received;
    },
  };
};
