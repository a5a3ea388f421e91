/**
 * A forwarding load over both ends on threads of their own, for a process with `--expose-gc`.
 *
 * Arguments: milliseconds to warm up, milliseconds to measure at least, packets to move at least meanwhile, the format of
 * the rings, `allocate` to allocate on purpose. Prints the packets as JSON, and what each heap did meanwhile.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { launch } from '../../driver/net/launch.js';
import { Port } from '../../driver/net/port.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import type { LoadData } from './gc-load-worker.js';
import { GcPhases, Phase } from './gc-marks.js';

const [warmUp, measured, leastPackets, format, allocate] = process.argv.slice(2);
const ring = format === 'packed' ? 'packed' : 'split';
/** Looks at the packets, a tenth of a second apart, beyond the time that was asked for. */
const PATIENCE = 600;
const echo = new URL('./gc-marking-echo.js', import.meta.url);
const phases = new GcPhases();
const { buffer } = phases;

/** Begins a phase; resolves when both polling isolates have marked it. */
async function begin(phase: number): Promise<void> {
  phases.begin(phase);
  while (!phases.marked(phase)) await delay(1);
}

const thread = await DeviceThread.start({ ports: [echo], idle: 'yield' });
const device = new NetDevice(thread, { port: { module: echo.href, options: { buffer, mode: 'macswap' } } });
const fn = new EmulatedPciFunction(device);
const port = new Port(PciModernTransport.open(fn), { ring, ringSize: 256, pages: '4K' });
await port.start();
const data: LoadData = { buffer, allocate: allocate === 'allocate' };
const launched = await launch(port, new URL('./gc-load-worker.js', import.meta.url), { data });
await delay(Number(warmUp));
await begin(Phase.MEASURE);
const received = (): number => port.statistics().rx[0]!.packets;
const before = received();
await delay(Number(measured));
for (let patience = PATIENCE; received() - before <= Number(leastPackets) && patience > 0; patience--) await delay(100);
const packets = received() - before;
await begin(Phase.OVER);
await launched.stop();
await port.close();
await fn.closed;
await device.close();
await thread.stop();
process.stdout.write(`${JSON.stringify({ packets, heaps: phases.outcomes() })}\n`);
