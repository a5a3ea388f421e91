/** A launched thread of the tests that sleeps until packets come: sends each back. */

import type { LaunchContext } from '../../driver/net/launch-worker.js';

export interface SleeperResult {
  readonly forwarded: number;
  /** How often the thread slept. */
  readonly sleeps: number;
  readonly turns: number;
}

export function run({ ports, stop, idle }: LaunchContext): SleeperResult {
  const queues = ports.map((port) => ({ rx: port.rxQueue(0), tx: port.txQueue(0), burst: port.burst(32) }));
  const rest = idle(
    'interrupt',
    queues.map(({ rx }) => rx),
  );
  let forwarded = 0;
  let turns = 0;
  while (!stop.requested) {
    let moved = 0;
    for (const { rx, tx, burst } of queues) {
      moved += rx.receive(burst);
      forwarded += tx.send(burst);
      burst.free();
    }
    turns++;
    rest.turn(moved);
  }
  return { forwarded, sleeps: rest.sleeps, turns };
}
