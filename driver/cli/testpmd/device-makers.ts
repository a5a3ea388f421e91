/** The kinds of ports that there are. */

import type { DeviceMaker } from './devices/ethernet-device.js';
import { nullMaker } from './devices/null-device.js';
import { pcapMaker } from './devices/pcap-device.js';
import { ringMaker } from './devices/ring-device.js';

export const deviceMakers: readonly DeviceMaker[] = [nullMaker, ringMaker, pcapMaker];
