/** The front-ends that are connected now, over all sockets, each with its device and what it has set up. */

import type { BackendPortSpec, ConnectionDescription, NetDevice, ServerEvent, VhostUserServer } from '../../index.js';
import type { Placement } from './poll-threads.js';

/** A device with the port it was made with, and where it is. */
export interface MadeDevice {
  readonly device: NetDevice;
  readonly port: BackendPortSpec;
  readonly place: Placement;
}

/** What the daemon knows of one connection. */
export interface Connection extends MadeDevice {
  /** Counts from 1 over all sockets. */
  readonly number: number;
  /** Path of its socket, or `fd:3`. */
  readonly socket: string;
  /** `performance.now()` when it was made. */
  readonly since: number;
  /** Rings that run, by index. */
  readonly running: Set<number>;
  /** What its front-end has set up, as it stands now; undefined when it is over. */
  describe(): ConnectionDescription | undefined;
}

/** A server's event with the connection it is about. */
export interface SocketEvent {
  readonly socket: string;
  readonly connection: Connection | undefined;
  readonly event: ServerEvent;
}

/** One socket of the daemon: numbers its connections over all sockets, and says which device each has. */
export class DaemonSocket {
  readonly name: string;
  /** Once it listens, tries or is attached. */
  server: VhostUserServer | undefined;
  readonly #next: () => number;
  readonly #open = new Map<number, Connection>();
  #made: (MadeDevice & { readonly number: number }) | undefined;

  /** `next` numbers connections over all sockets. */
  constructor(name: string, next: () => number) {
    this.name = name;
    this.#next = next;
  }

  get connections(): readonly Connection[] {
    return [...this.#open.values()];
  }

  /** Makes the device of the connection that comes next: a server makes one after the other. */
  make(device: (connection: number) => MadeDevice): NetDevice {
    const number = this.#next();
    this.#made = { number, ...device(number) };
    return this.#made.device;
  }

  /** Follows what the server tells; returns it with its connection. */
  take(event: ServerEvent): SocketEvent {
    if (event.type === 'connected' && this.#made !== undefined) {
      this.#open.set(event.connection, {
        ...this.#made,
        socket: this.name,
        since: performance.now(),
        running: new Set(),
        describe: () => this.server?.describe(event.connection),
      });
    }
    const local = 'connection' in event ? event.connection : undefined;
    const connection = local === undefined ? undefined : this.#open.get(local);
    if (event.type === 'vring') {
      if (event.state === 'started') connection?.running.add(event.ring);
      else if (event.state === 'stopped') connection?.running.delete(event.ring);
    }
    if (event.type === 'disconnected') this.#open.delete(event.connection);
    return { socket: this.name, connection, event };
  }
}
