/** Waiting for the links of all ports, and how a link reads. */

import { setTimeout as pause } from 'node:timers/promises';
import type { LinkState } from '../devices/ethernet-device.js';
import { speedName } from '../reports/words.js';
import type { Testpmd } from '../testpmd.js';

const INTERVAL_MS = 100;
const MAX_CHECKS = 90;

/** `Link up at 10 Gbps FDX Autoneg`. */
export function linkText({ up, speed, fullDuplex, autoneg }: LinkState): string {
  if (!up) return 'Link down';
  return `Link up at ${speedName(speed)} ${fullDuplex ? 'FDX' : 'HDX'} ${autoneg ? 'Autoneg' : 'Fixed'}`;
}

/** Looks once where changes are told by interrupt; else waits up to nine seconds and tells of every link. */
export async function checkLinks({ output, allPorts, settings }: Testpmd): Promise<void> {
  output.say('Checking link statuses...');
  if (settings.lscInterrupt) return;
  for (let check = 0; check < MAX_CHECKS && allPorts.some(({ device }) => !device.link().up); check++) {
    await pause(INTERVAL_MS);
  }
  for (const { id, device } of allPorts) output.say(`Port ${id} ${linkText(device.link())}`);
}
