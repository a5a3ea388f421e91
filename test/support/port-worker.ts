/** What launched threads of the tests run: what `data` says. */

import type { LaunchContext } from '../../driver/net/launch-worker.js';

export type PortWork =
  /** Sends back what is received, on the pairs of this thread. */
  | { readonly kind: 'forward' }
  /** Receives and frees. */
  | { readonly kind: 'receive' }
  /** Sends packets with a sequence number as long as it runs, and checks that they come back in order. */
  | { readonly kind: 'ping'; readonly bytes?: number }
  /** Sleeps until packets come, for ever, and never looks whether it should stop but between two sleeps. */
  | { readonly kind: 'wait' }
  /** Claims the queues of pair 0, and throws. */
  | { readonly kind: 'throw' }
  /** Claims the queues of a pair and returns at once. */
  | { readonly kind: 'claim'; readonly pair: number };

export interface PingResult {
  readonly sent: number;
  readonly received: number;
  /** Packets that were not the next ones. */
  readonly wrong: number;
}

export function run(context: LaunchContext): unknown {
  const work = context.data as PortWork;
  if (work.kind === 'forward') return forward(context);
  if (work.kind === 'receive') return receive(context);
  if (work.kind === 'wait') return wait(context);
  if (work.kind === 'ping') return ping(context, work.bytes ?? 64);
  const pair = work.kind === 'claim' ? work.pair : 0;
  context.port.rxQueue(pair);
  context.port.txQueue(pair);
  if (work.kind === 'throw') throw new Error('an application fails');
  return 'claimed';
}

function forward({ ports, stop, index, count, idle }: LaunchContext): number {
  const [port] = ports;
  const pairs = Array.from({ length: port!.queuePairs }, (_, pair) => pair).filter((pair) => pair % count === index);
  const queues = pairs.map((pair) => ({ rx: port!.rxQueue(pair), tx: port!.txQueue(pair) }));
  const burst = port!.burst(32);
  const rest = idle('sleep');
  let forwarded = 0;
  while (!stop.requested) {
    let moved = 0;
    for (const { rx, tx } of queues) {
      moved += rx.receive(burst);
      forwarded += tx.send(burst);
      burst.free();
    }
    rest.turn(moved);
  }
  return forwarded;
}

async function wait({ port, stop, emit }: LaunchContext): Promise<string> {
  const rx = port.rxQueue(0);
  while (!stop.requested) {
    emit('waits');
    await rx.waitForPackets();
  }
  return 'told';
}

function receive({ port, stop, idle }: LaunchContext): number {
  const rx = port.rxQueue(0);
  const burst = port.burst(32);
  const rest = idle('yield');
  let received = 0;
  while (!stop.requested) {
    const count = rx.receive(burst);
    received += count;
    burst.free();
    rest.turn(count);
  }
  return received;
}

function ping({ port, stop, idle, emit }: LaunchContext, bytes: number): PingResult {
  const [rx, tx] = [port.rxQueue(0), port.txQueue(0)];
  const out = port.burst(16);
  const back = port.burst(32);
  const rest = idle('yield');
  let sent = 0;
  let received = 0;
  let wrong = 0;
  let expected = 0;
  while (!stop.requested) {
    if (sent - received < 64 && out.allocate(16) > 0) {
      for (let index = 0; index < out.count; index++) {
        const view = out.bytes(index);
        view.setLength(bytes);
        view.setU32(14, sent + index);
      }
      sent += tx.send(out);
      out.free();
    }
    const count = rx.receive(back);
    for (let index = 0; index < back.count; index++) {
      const view = back.bytes(index);
      const number = view.u32(14);
      // A stop of the port loses what was on its way: the sequence jumps ahead, never back.
      if (view.packetLength !== bytes || number < expected) wrong++;
      expected = number + 1;
    }
    received += count;
    back.free();
    if (tx.inFlight === 0 && count === 0 && sent > received) received = sent;
    if (received > 0 && received % 1000 < 32) emit({ received });
    rest.turn(count);
  }
  return { sent, received, wrong };
}
