/** The thread of a forwarding lcore: turns the engines of its streams round and round while there is forwarding. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { DmaMemory, Idle, type LcoreContext, PacketPool } from '../../../thread.js';
import { LcorePorts } from './lcore-ports.js';
import {
  type ForwardOrder,
  type LcoreEvent,
  LcoreRequestType,
  type LcoreStart,
  type ModuleOrder,
  type PortRequest,
  type QueueToFlush,
} from './lcore-protocol.js';
import { LcoreStreams } from './lcore-streams.js';
import { BoundedPrint, UnshownText } from './unshown-text.js';

/** How long a thread that does not forward sleeps, at most: its ports may have work beside their queues. */
const SLEEP_MS = 1;

export async function lcoreMain({ stop, data, emit }: LcoreContext): Promise<void> {
  const start = data as LcoreStart;
  const memory = DmaMemory.attach(start.memory);
  const pool = PacketPool.attach(memory, start.pool);
  const say = (event: LcoreEvent): void => emit(event);
  const ports = new LcorePorts(pool, say);
  const printer = new BoundedPrint(new UnshownText(start.unshown), (text, isError) =>
    say({ type: 'print', text, isError }),
  );
  const streams = new LcoreStreams(pool, ports, start.lcore, (text, isError) => printer.print(text, isError));
  const idle = new Idle('yield', stop);
  /** Requests that wait for something: then the event loop has to have its turns. */
  let waiting = 0;

  const settle = <T>(result: T): T | Promise<Awaited<T>> => {
    if (!(result instanceof Promise)) return result;
    waiting++;
    return result.finally(() => {
      waiting--;
    }) as Promise<Awaited<T>>;
  };
  stop.onRequest(LcoreRequestType.ATTACH, (order: ModuleOrder) => settle(ports.attach(order)));
  stop.onRequest(LcoreRequestType.DETACH, (port: number) => {
    ports.detach(port);
    pool.flush();
  });
  stop.onRequest(LcoreRequestType.PORT, (request: PortRequest) => settle(ports.request(request)));
  stop.onRequest(LcoreRequestType.OBSERVE, (order: ModuleOrder) =>
    settle(ports.observe(order).then(() => streams.renew())),
  );
  stop.onRequest(LcoreRequestType.UNOBSERVE, (port: number) => {
    ports.unobserve(port);
    streams.renew();
  });
  stop.onRequest(LcoreRequestType.FLUSH, (queues: readonly QueueToFlush[]) => streams.flush(queues));
  stop.onRequest(LcoreRequestType.FORWARD, (order: ForwardOrder) => streams.forward(order));
  stop.onRequest(LcoreRequestType.TRANSMIT_FIRST, (order: ForwardOrder) => streams.transmitFirst(order));
  stop.onRequest(LcoreRequestType.HALT, () => {
    streams.halt();
    printer.tellSkipped();
    // Other lcores and the control side find all that is free.
    pool.flush();
  });

  const turnAll = (): void => {
    while (!stop.requested && streams.isForwarding && waiting === 0) {
      const moved = streams.turn();
      ports.turn();
      idle.turn(moved);
    }
  };
  while (!stop.requested) {
    turnAll();
    if (waiting === 0 && !streams.isForwarding) stop.sleep(SLEEP_MS);
    ports.turn();
    await nextTurn();
  }
  streams.halt();
  ports.close();
  pool.flush();
  memory.close();
}
