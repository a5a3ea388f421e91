/** The kinds of ports that there are. */

import type { DeviceMaker } from './devices/ethernet-device.js';
import { loopbackMaker } from './devices/loopback-device.js';
import { nullMaker } from './devices/null-device.js';
import { pcapMaker } from './devices/pcap-device.js';
import { ringMaker } from './devices/ring-device.js';
import { tapMaker } from './devices/tap-device.js';

import { vhostMaker } from './devices/vhost-device.js';
import { virtioPciMaker } from './devices/virtio-pci.js';
import { virtioUserMaker } from './devices/virtio-user.js';

export const deviceMakers: readonly DeviceMaker[] = [
  nullMaker,
  ringMaker,
  pcapMaker,
  tapMaker,
  virtioUserMaker,
  vhostMaker,
  virtioPciMaker,
  loopbackMaker,
];
