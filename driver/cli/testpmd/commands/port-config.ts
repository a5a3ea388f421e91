/** `port config …` of all ports: queues, rings, thresholds, lengths, and links of no effect here. */

import { type Command, command } from '../console/grammar.js';
import type { Result } from '../errno.js';
import { attempt, withPort } from '../ports/ethdev.js';
import {
  areAllStopped,
  reconfigure,
  reconfigureAll,
  setQueueCount,
  setRingSize,
  stoppedPort,
} from '../ports/reconfiguration.js';
import { MAX_BURST } from '../settings.js';
import type { Testpmd } from '../testpmd.js';

const ETHERNET_OVERHEAD = 18;
const MIN_FRAME = 64;
const SPEEDS = '10|100|1000|10000|25000|40000|50000|100000|200000|auto';

/** What all ports must be stopped for, and take over at their next start. */
function configureAll(testpmd: Testpmd, change: () => void): void {
  if (!areAllStopped(testpmd)) return;
  change();
  reconfigureAll(testpmd);
}

function setQueues(testpmd: Testpmd, what: 'rxq' | 'txq' | 'rxd' | 'txd', value: number): void {
  if (!areAllStopped(testpmd)) return;
  const direction = what.startsWith('rx') ? 'rx' : 'tx';
  if (what.endsWith('q')) setQueueCount(testpmd, direction, value);
  else setRingSize(testpmd, direction, value);
}

const thresholds = {
  txpt: ['txThresholds', 'prefetch'],
  txht: ['txThresholds', 'host'],
  txwt: ['txThresholds', 'writeBack'],
  rxpt: ['rxThresholds', 'prefetch'],
  rxht: ['rxThresholds', 'host'],
  rxwt: ['rxThresholds', 'writeBack'],
  txfreet: ['txThresholds', 'free'],
  txrst: ['txThresholds', 'rs'],
  rxfreet: ['rxThresholds', 'free'],
} as const;

function setThreshold(testpmd: Testpmd, what: keyof typeof thresholds, value: number): void {
  const [side, which] = thresholds[what];
  configureAll(testpmd, () => {
    testpmd.settings[side][which] = value;
  });
}

function setBurst(testpmd: Testpmd, packets: number): void {
  const { output, settings } = testpmd;
  if (!areAllStopped(testpmd)) return;
  if (packets === 0) {
    output.write(`PMD does not recommend a burst size.\nUser provided value must be between 1 and ${MAX_BURST}\n`);
    return;
  }
  if (packets > MAX_BURST) {
    output.warn(`burst must be >= 1 && <= ${MAX_BURST}`);
    return;
  }
  settings.burst = packets;
  reconfigureAll(testpmd);
}

const isValidMtu = (testpmd: Testpmd, id: number, mtu: number, min: number, max: number): boolean => {
  const complain = (side: string, limit: number): false => {
    testpmd.output.warn(`MTU (${mtu}) ${side} MTU (${limit}) for port_id ${id}`);
    return false;
  };
  if (mtu < min) return complain('< device min', min);
  return mtu > max ? complain('> device max', max) : true;
};

/** As ethdev: the device has to be able to, and to be configured. */
const setDeviceMtu = (testpmd: Testpmd, id: number, mtu: number): Promise<Result> =>
  withPort(testpmd, id, async (port) => {
    const result = await attempt(testpmd, port.device.setMtu?.(mtu));
    if (result === 0) port.mtu = mtu;
    return result;
  });

async function setMtu(testpmd: Testpmd, id: number, mtu: number): Promise<void> {
  const port = testpmd.portOf(id);
  if (port === undefined) return;
  const { minMtu, maxMtu, maxRxPacketBytes } = port.device.info();
  if (!isValidMtu(testpmd, id, mtu, minMtu, maxMtu)) return;
  const frame = mtu + Math.min(ETHERNET_OVERHEAD, Math.max(0, maxRxPacketBytes - maxMtu));
  if (frame > maxRxPacketBytes) {
    return testpmd.output.warn(`Frame size (${frame}) > device max frame size (${maxRxPacketBytes}) for port_id ${id}`);
  }
  if (!port.needsConfiguration) {
    const result = await setDeviceMtu(testpmd, id, mtu);
    if (result !== 0) return testpmd.output.warn(`Set MTU failed. diag=-${result}`);
  }
  port.mtu = mtu;
  port.isMtuSet = true;
}

async function setMaxPacketLength(testpmd: Testpmd, length: number): Promise<void> {
  const { output } = testpmd;
  if (!areAllStopped(testpmd)) return;
  for (const port of testpmd.allPorts) {
    if (length < MIN_FRAME) return output.warn(`max-pkt-len can not be less than ${MIN_FRAME}`);
    const mtu = length - ETHERNET_OVERHEAD;
    if (mtu === port.mtu) continue;
    if ((await setDeviceMtu(testpmd, port.id, mtu)) !== 0) {
      output.warn(`Failed to set MTU to ${mtu} for port ${port.id}`);
      continue;
    }
    port.isMtuSet = true;
  }
  reconfigureAll(testpmd);
}

/** Links here have no speed to be set; those that no link can have are refused. */
function setSpeed(testpmd: Testpmd, speed: string, duplex: string): void {
  if (duplex === 'half' && speed !== '10' && speed !== '100') {
    testpmd.output.warn('Invalid speed/duplex parameters');
    return;
  }
  for (const port of testpmd.allPorts) reconfigure(port);
}

export const portConfigCommands: readonly Command[] = [
  command(
    'port config all {what:rxq|txq|rxd|txd} {value:u16}',
    'queues, and entries of their rings',
    (testpmd, { what, value }) => setQueues(testpmd, what, value),
  ),
  command('port config all burst {packets:u16}', 'packets of a burst', (testpmd, { packets }) =>
    setBurst(testpmd, packets),
  ),
  command(
    'port config all {what:txpt|txht|txwt|rxpt|rxht|rxwt} {value:u8}',
    'thresholds of rings',
    (testpmd, { what, value }) => setThreshold(testpmd, what, value),
  ),
  command(
    'port config all {what:txfreet|txrst|rxfreet} {value:u16}',
    'thresholds of rings',
    (testpmd, { what, value }) => setThreshold(testpmd, what, value),
  ),
  command(
    'port config all max-pkt-len {length:u32}',
    'the longest packet, its Ethernet header and checksum included',
    (testpmd, { length }) => setMaxPacketLength(testpmd, length),
  ),
  command(
    'port config all max-lro-pkt-size {bytes:u32}',
    'the longest packet that a device joins',
    (testpmd, { bytes }) =>
      configureAll(testpmd, () => {
        testpmd.settings.maxLroPacketSize = bytes;
      }),
  ),
  command(
    'port config mtu {port:u16} {mtu:u16}',
    'the longest packet without its Ethernet header',
    (testpmd, { port, mtu }) => setMtu(testpmd, port, mtu),
  ),
  command('port config all drop-en {state:on|off}', 'whether full queues drop', (testpmd, { state }) =>
    configureAll(testpmd, () => {
      testpmd.settings.rxThresholds.dropEnable = state === 'on';
    }),
  ),
  command(
    `port config all speed {speed:${SPEEDS}} duplex {duplex:half|full|auto}`,
    'accepted: links here have no speed to be set',
    (testpmd, { speed, duplex }) => {
      if (areAllStopped(testpmd)) setSpeed(testpmd, speed, duplex);
    },
  ),
  command(
    `port config {port:u16} speed {speed:${SPEEDS}} duplex {duplex:half|full|auto}`,
    'the same for one port',
    (testpmd, { port, speed, duplex }) => {
      if (stoppedPort(testpmd, port) !== undefined) setSpeed(testpmd, speed, duplex);
    },
  ),
  command('port config all loopback {mode:u32}', 'accepted: no port here has a loopback of its own', (testpmd) => {
    if (areAllStopped(testpmd)) for (const port of testpmd.allPorts) reconfigure(port);
  }),
  command('port config {port:u16} loopback {mode:u32}', 'the same for one port', (testpmd, { port }) => {
    const stopped = stoppedPort(testpmd, port);
    if (stopped !== undefined) reconfigure(stopped);
  }),
  command(
    'set port setup on {mode:iterator|event}',
    'accepted: how ports are found that were attached',
    () => undefined,
  ),
];
