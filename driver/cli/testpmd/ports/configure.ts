/** Configuring a device before it starts: DPDK's checks of what is asked for, and the device's own answer. */

import type { DescriptorLimits, DeviceConfiguration, DeviceInfo } from '../devices/ethernet-device.js';
import type { Direction, QueueSettings, TestPort } from '../test-port.js';
import type { Testpmd } from '../testpmd.js';

/** Entries of a ring that are neither asked for nor recommended (`RTE_ETH_DEV_FALLBACK_RX_RINGSIZE`). */
const FALLBACK_RING = 512;
const ETHERNET_OVERHEAD = 18;

/** What a port is to be configured with. */
function wanted(port: TestPort, { settings }: Testpmd): DeviceConfiguration {
  const { maxPacketLength, maxLroPacketSize } = settings;
  const mtu = port.isMtuSet ? port.mtu : maxPacketLength > 0 ? maxPacketLength - ETHERNET_OVERHEAD : undefined;
  return {
    rxQueues: port.rxQueues.length,
    txQueues: port.txQueues.length,
    rxDescriptors: port.rxQueues[0]?.descriptors ?? 0,
    txDescriptors: port.txQueues[0]?.descriptors ?? 0,
    rxOffloads: port.rxOffloads,
    txOffloads: port.txOffloads,
    mtu,
    maxLroBytes: maxLroPacketSize,
  };
}

/** Whether the device can be what was set for the port; says why not. */
function isPossible({ id }: TestPort, want: DeviceConfiguration, info: DeviceInfo, { output }: Testpmd): boolean {
  const refuse = (line: string): false => {
    output.warn(line);
    return false;
  };
  if (want.rxQueues > info.maxRxQueues) {
    return refuse(`Ethdev port_id=${id} nb_rx_queues=${want.rxQueues} > ${info.maxRxQueues}`);
  }
  if (want.txQueues > info.maxTxQueues) {
    return refuse(`Ethdev port_id=${id} nb_tx_queues=${want.txQueues} > ${info.maxTxQueues}`);
  }
  if (want.mtu !== undefined && (want.mtu < info.minMtu || want.mtu > info.maxMtu)) {
    const side = want.mtu < info.minMtu ? `< min value ${info.minMtu}` : `> max value ${info.maxMtu}`;
    return refuse(`MTU (${want.mtu}) ${side}`);
  }
  for (const [kind, asked, able] of [
    ['Rx', want.rxOffloads, info.rxOffloads],
    ['Tx', want.txOffloads, info.txOffloads],
  ] as const) {
    if ((asked & ~able) === 0n) continue;
    const [has, can] = [asked, able].map((mask) => `0x${mask.toString(16)}`);
    return refuse(
      `Ethdev port_id=${id} requested ${kind} offloads ${has} doesn't match ${kind} offloads capabilities ${can} in rte_eth_dev_configure()`,
    );
  }
  return true;
}

/** Whether a ring may have so many entries; says why not. */
export function isRingPossible(
  { output }: Testpmd,
  direction: Direction,
  entries: number,
  limits: DescriptorLimits,
): boolean {
  const { min, max, align } = limits;
  if (entries >= min && entries <= max && entries % align === 0) return true;
  const between = `should be: <= ${max}, >= ${min}, and a product of ${align}`;
  output.warn(`Invalid value for nb_${direction}_desc(=${entries}), ${between}`);
  return false;
}

/**
 * Configures a port's device and queues where that is due.
 *
 * @returns whether the port can be started; what it cannot be was said
 */
export async function configurePort(testpmd: Testpmd, port: TestPort): Promise<boolean> {
  const { output } = testpmd;
  const info = port.device.info();
  const want = wanted(port, testpmd);
  if (port.needsConfiguration) {
    output.say(`Configuring Port ${port.id} (socket ${port.socket})`);
    if (!isPossible(port, want, info, testpmd)) return fail(testpmd, port, '');
    port.needsConfiguration = false;
  }
  if (!port.needsQueues) return true;
  for (const [direction, limits] of [
    ['tx', info.txDescriptors],
    ['rx', info.rxDescriptors],
  ] as const) {
    const possible = port
      .queues(direction)
      .every(({ descriptors }) =>
        isRingPossible(testpmd, direction, descriptors === 0 ? ringByDefault(limits) : descriptors, limits),
      );
    if (!possible) return fail(testpmd, port, ` ${direction} queues`);
  }
  try {
    await port.device.configure(want);
  } catch (error) {
    testpmd.log(error);
    port.needsConfiguration = true;
    return fail(testpmd, port, '');
  }
  port.configured = want;
  port.needsQueues = false;
  if (want.mtu !== undefined) port.mtu = want.mtu;
  for (const queue of [...port.rxQueues, ...port.txQueues]) queue.state = initialState(queue);
  return true;
}

const ringByDefault = ({ max, min }: DescriptorLimits): number => Math.max(min, Math.min(max, FALLBACK_RING));

const initialState = ({ deferredStart }: QueueSettings): QueueSettings['state'] =>
  deferredStart ? 'stopped' : 'started';

function fail({ output }: Testpmd, port: TestPort, what: string): false {
  output.warn(`Fail to configure port ${port.id}${what}`);
  if (what === '') port.needsConfiguration = true;
  else port.needsQueues = true;
  return false;
}
