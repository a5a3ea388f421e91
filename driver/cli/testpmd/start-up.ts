/** Bringing the application up: its ports, its packets, what the options say; and letting go of all of it. */

import { HOST_THREAD_BYTES } from '../../backend/host-port.js';
import type { PacketPool } from '../../index.js';
import { createPool } from '../../net/create-pool.js';
import type { DeviceMaker } from './devices/ethernet-device.js';
import { stopForwarding } from './forward-control.js';
import { Forwarding } from './forwarding.js';
import type { EalOptions } from './options/eal-options.js';
import type { GivenLine } from './options/getopt.js';
import { poolOptions } from './options/given-options.js';
import { refusal } from './options/refusal.js';
import { applyTestpmdOptions } from './options/testpmd-options.js';
import { type Output, whenTaken } from './output.js';
import { probe } from './ports/attach.js';
import { setPromiscuousAtFirst } from './ports/ethdev.js';
import { closeOne, closePorts, startPorts, stopPorts } from './ports/lifecycle.js';
import { applyDefaultOffloads, applyQueueSettings } from './ports/queue-settings.js';
import { Settings } from './settings.js';
import { MAX_PORTS, Testpmd } from './testpmd.js';

/** The greatest rings that testpmd reckons with, and a burst, when it chooses how many packets there are. */
const RINGS_AND_BURST = 2048 + 2048 + 512;
const HEADROOM = 140;
const LINE = 64;
const MAX_BUFFER = 1024 * LINE;

/** Packets and bytes of each, as options or testpmd's defaults have them. */
interface PoolShape {
  readonly mbufs: number;
  readonly mbufBytes: number;
}

function poolShape(given: GivenLine, workers: number): PoolShape {
  const { mbufs, mbufBytes, cache } = poolOptions(given);
  const chosen = (RINGS_AND_BURST + workers * cache) * MAX_PORTS;
  return { mbufs: mbufs > 0 ? mbufs : chosen, mbufBytes };
}

/** Buffers with room for the longest segment that testpmd takes, which is all of an mbuf; an odd number of cache lines apart. */
function openPool({ mbufs, mbufBytes }: PoolShape, { usesHugepages }: EalOptions, threads: number): PacketPool {
  const lines = Math.ceil((mbufBytes + HEADROOM) / LINE) | 1;
  return createPool({
    size: mbufs,
    bufferBytes: Math.min(MAX_BUFFER, Math.max(lines * LINE, 4 * LINE)),
    headroom: HEADROOM,
    pages: usesHugepages ? 'auto' : '4K',
    spareBytes: threads * HOST_THREAD_BYTES,
  });
}

/** Makes the devices that EAL's options name; one that cannot be is said, and then EAL cannot be either. */
async function probeAll(testpmd: Testpmd, eal: EalOptions): Promise<void> {
  for (const identifier of [...eal.allowed, ...eal.vdevs]) {
    try {
      testpmd.addPort(await probe(testpmd, identifier));
    } catch (error) {
      testpmd.log(error);
      throw refusal(`Cannot init EAL: No such device`);
    }
  }
}

/** One processor an lcore; an lcore that may run on several, or shares one, is not pinned. */
function cpuOf({ lcores }: EalOptions, lcore: number): number | undefined {
  const own = lcores.get(lcore) ?? [];
  const shared = [...lcores].some(([other, cpus]) => other !== lcore && own.some((cpu) => cpus.includes(cpu)));
  return own.length === 1 && !shared ? own[0] : undefined;
}

/**
 * The application with its ports found.
 *
 * @throws Refusal with the cause that testpmd ends for; what was open is closed
 */
export async function findPorts(
  eal: EalOptions,
  given: GivenLine,
  output: Output,
  makers: readonly DeviceMaker[],
): Promise<Testpmd> {
  const workers = [...eal.lcores.keys()].filter((lcore) => lcore !== eal.mainLcore);
  const shape = poolShape(given, workers.length);
  const pool = openPool(shape, eal, workers.length + 1);
  const forwarding = new Forwarding({
    pool,
    cpuOf: (lcore) => cpuOf(eal, lcore),
    print: (text, isError) => {
      if (isError) output.warn(text);
      else output.write(text);
      return whenTaken();
    },
  });
  const lcores = { main: eal.mainLcore, workers };
  const testpmd = new Testpmd({ settings: new Settings(), output, lcores, pool, makers, forwarding });
  try {
    await probeAll(testpmd, eal);
  } catch (error) {
    await closeAll(testpmd);
    throw error;
  }
  return testpmd;
}

/**
 * Applies the options to the ports that were found.
 *
 * @throws Refusal with the cause that testpmd ends for
 */
export function configure(testpmd: Testpmd, given: GivenLine): void {
  const { output, settings, pool } = testpmd;
  if (testpmd.ports.size === 0) output.warn('testpmd: No probed ethernet devices');
  if (testpmd.lcores.workers.length === 0) {
    throw refusal('No cores defined for forwarding\nCheck the core mask argument');
  }
  testpmd.resetForwarding();
  applyTestpmdOptions(testpmd, given);
  for (const port of testpmd.allPorts) testpmd.checkNumaNode(port);
  const bytes = settings.mbufSizes[0] ?? 0;
  output.warn(`testpmd: create a new mbuf pool <mb_pool_0>: n=${pool.size}, size=${bytes}, socket=0`);
  for (const port of testpmd.allPorts) {
    applyDefaultOffloads(port, settings);
    applyQueueSettings(port, settings);
  }
  testpmd.layOut();
}

/**
 * Starts the ports, unless they are to wait for a command.
 *
 * @throws VirtioError INVALID_ARGUMENT where one does not start and nobody could mend it
 */
export async function startUp(testpmd: Testpmd): Promise<void> {
  const { settings, output } = testpmd;
  if (settings.deviceStart && !(await startPorts(testpmd, 'all'))) {
    if (!settings.isInteractive) throw refusal('Start ports failed');
    output.warn('Start ports failed');
  }
  for (const { id } of testpmd.allPorts) await setPromiscuousAtFirst(testpmd, id);
}

/** Stops and closes everything, in testpmd's order and words. */
export async function shutDown(testpmd: Testpmd): Promise<void> {
  const { output, forwarding } = testpmd;
  if (forwarding.isRunning) await stopForwarding(testpmd);
  output.write("\nPrimary: Sending 'stop_req' request to secondary...\n");
  for (const { id } of testpmd.allPorts) {
    output.write(`\nStopping port ${id}...\n`);
    await stopPorts(testpmd, id, { checksLinks: false });
  }
  for (const { id } of testpmd.allPorts) {
    output.write(`\nShutting down port ${id}...\n`);
    await closePorts(testpmd, id);
  }
  await letGo(testpmd);
  output.write('\nBye...\n');
}

/** Closes the ports without stopping them in testpmd's words: where it ends by itself. */
export async function closeAll(testpmd: Testpmd): Promise<void> {
  for (const port of testpmd.allPorts) await closeOne(testpmd, port);
  await letGo(testpmd);
}

async function letGo({ forwarding, pool }: Testpmd): Promise<void> {
  try {
    await forwarding.close();
  } finally {
    pool.memory.close();
  }
}
