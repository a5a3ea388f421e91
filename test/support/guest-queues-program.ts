/**
 * What runs in the guest: a port whose queues are stopped, resized and started while packets go round.
 *
 *   node guest-queues-program.js 0000:00:0a.0 '{"ring":"packed"}' ROUNDS
 *
 * Without RING_RESET a queue keeps its size and its buffers, and another size is refused.
 * Ends with one line of JSON.
 */

import { ErrorCode, openPort, type Port, type QueueDirection, VirtioError } from '../../driver/index.js';

/** What the line holds. */
export interface QueuesProgramResult {
  readonly features: readonly string[];
  /** Packets that came back, one after the other. */
  readonly pings: number;
  /** Sizes that the rings had, in turn. */
  readonly sizes: readonly number[];
  /** Buffers that were not back in the pool when both queues were stopped. */
  readonly missing: number;
  /** Packets that a stopped queue took. */
  readonly taken: number;
  /** Sizes that were refused, for want of RING_RESET. */
  readonly refused: number;
  readonly closed: boolean;
}

/** Size of a split ring in a round: smaller ones, and the whole again. */
const splitSize = (round: number): number => 256 >>> [2, 0, 3, 1][round % 4]!;

const DIRECTIONS: readonly QueueDirection[] = ['rx', 'tx'];
const PINGS = 20;
const PING_MS = 30_000;
const BYTES = 60;

function send(port: Port): number {
  const burst = port.burst(1);
  burst.allocate(1);
  burst.bytes(0).setLength(BYTES);
  const sent = port.txQueue(0).send(burst);
  burst.free();
  return sent;
}

async function ping(port: Port): Promise<void> {
  if (send(port) !== 1) throw new Error('the ring takes nothing');
  const burst = port.burst(32);
  const deadline = performance.now() + PING_MS;
  while (port.rxQueue(0).receive(burst) === 0) {
    if (performance.now() > deadline) throw new Error(`nothing came back: ${JSON.stringify(port.statistics())}`);
    await port.rxQueue(0).waitForPackets({ timeoutMs: 100 });
  }
  burst.free();
}

async function pings(port: Port): Promise<number> {
  for (let number = 0; number < PINGS; number++) await ping(port);
  return PINGS;
}

/** Whether a stopped queue may not be started with another size: 1, or 0. */
async function refusals(direction: QueueDirection, ringSize: number): Promise<number> {
  try {
    await port.startQueue(direction, 0, { ringSize });
    return 0;
  } catch (error) {
    if (error instanceof VirtioError && error.code === ErrorCode.UNSUPPORTED) return 1;
    throw error;
  }
}

const [, , address, options, rounds] = process.argv;
const port = await openPort(address!, { ...JSON.parse(options!), ringSize: 256, interrupts: 'receive' });
const choices = JSON.parse(options!) as { readonly ring?: string };
const whole = port.pool.available;
await port.start();
const resizes = port.features!.names.includes('RING_RESET');
let [count, missing, taken, refused] = [await pings(port), 0, 0, 0];
const sizes: number[] = [];
for (let round = 0; round < Number(rounds); round++) {
  for (const direction of DIRECTIONS) {
    await port.stopQueue(direction, 0);
    if (direction === 'tx') taken += send(port);
    const ringSize = choices.ring === 'packed' ? 250 - round : splitSize(round);
    if (!resizes) refused += await refusals(direction, ringSize / 2);
    await port.startQueue(direction, 0, resizes ? { ringSize } : {});
    sizes.push(port.handle().session![direction][0]!.ring.size);
    count += await pings(port);
  }
  for (const direction of DIRECTIONS) await port.stopQueue(direction, 0);
  port.pool.flush();
  if (resizes) missing += whole - port.pool.available;
  for (const direction of DIRECTIONS) await port.startQueue(direction, 0);
}
const features = port.features!.names;
await port.close();
const closed = port.state === 'closed';
const result: QueuesProgramResult = { features, pings: count, sizes, missing, taken, refused, closed };
console.log(JSON.stringify(result));
