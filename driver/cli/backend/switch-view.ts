/** What the switch of the daemon has counted: for each member, for those that have gone, and as a whole. */

import type { CountedPort } from '../../index.js';
import type { Connection, SocketEvent } from './connections.js';
import { portCounters } from './statistics.js';

/** Counters of a member of the switch, or of several together. */
export interface SwitchCounts {
  /** Stations that are known behind it now. */
  readonly stations: number;
  /** Packets that came from it, those that went to it, and those of its own that went to everybody. */
  readonly received: number;
  readonly sent: number;
  readonly flooded: number;
  /** Of those that went to it, packets that went from guest to guest with one copy. */
  readonly direct: number;
  /** Stations that turned up behind it and were known behind another, and those that nothing could be noted of. */
  readonly moves: number;
  readonly notLearned: number;
  /** Packets dropped, by reason, those that did not happen included. */
  readonly drops: Readonly<Record<string, number>>;
}

/** A guest or the tap uplink. */
export interface SwitchMember {
  /** `3: /run/vm1.sock`, `tap:tap0`, or `gone`: all members that were and are not any more. */
  readonly member: string;
  /** Path of its socket, or `tap:tap0`. */
  readonly socket: string | undefined;
  /** Undefined for what is no connection. */
  readonly connection: number | undefined;
  readonly counts: SwitchCounts;
}

/** The switch at one moment. */
export interface SwitchSample {
  readonly members: readonly SwitchMember[];
  /** Of all that are and were members: its counters never go back, only stations do. */
  readonly total: SwitchCounts;
}

export const GONE = 'gone';

const NOTHING: SwitchCounts = {
  stations: 0,
  received: 0,
  sent: 0,
  flooded: 0,
  direct: 0,
  moves: 0,
  notLearned: 0,
  drops: {},
};

export class SwitchView {
  readonly #connections: () => readonly Connection[];
  #uplink: { readonly name: string; readonly port: CountedPort<string> } | undefined;
  #gone: SwitchCounts | undefined;

  constructor(connections: () => readonly Connection[]) {
    this.#connections = connections;
  }

  /** The tap interface is a member from now on. */
  addUplink(name: string, port: CountedPort<string>): void {
    this.#uplink = { name: `tap:${name}`, port };
  }

  /** Keeps what a member has counted that leaves. */
  take({ event, connection }: SocketEvent): void {
    if (event.type !== 'disconnected' || connection === undefined) return;
    this.#gone = sum([this.#gone ?? NOTHING, { ...countsOf(portCounters(connection)), stations: 0 }]);
  }

  sample(): SwitchSample {
    const members: SwitchMember[] = this.#connections().map((connection) => ({
      member: `${connection.number}: ${connection.socket}`,
      socket: connection.socket,
      connection: connection.number,
      counts: countsOf(portCounters(connection)),
    }));
    const apart = { connection: undefined };
    if (this.#uplink !== undefined) {
      const { name, port } = this.#uplink;
      members.push({ member: name, socket: name, ...apart, counts: countsOf(port.statistics()) });
    }
    if (this.#gone !== undefined) members.push({ member: GONE, socket: undefined, ...apart, counts: this.#gone });
    return { members, total: sum(members.map(({ counts }) => counts)) };
  }
}

/** Puts those counters that begin with `drop` together. */
function countsOf(counters: Readonly<Record<string, number>>): SwitchCounts {
  const of = (name: string): number => counters[name] ?? 0;
  const drops: Record<string, number> = {};
  for (const [name, value] of Object.entries(counters)) {
    if (name.startsWith('drop')) drops[`${name[4]!.toLowerCase()}${name.slice(5)}`] = value;
  }
  return {
    stations: of('stations'),
    received: of('received'),
    sent: of('sent'),
    flooded: of('flooded'),
    direct: of('direct'),
    moves: of('moves'),
    notLearned: of('notLearned'),
    drops,
  };
}

function sum(all: readonly SwitchCounts[]): SwitchCounts {
  const drops: Record<string, number> = {};
  for (const [reason, value] of all.flatMap((counts) => Object.entries(counts.drops))) {
    drops[reason] = (drops[reason] ?? 0) + value;
  }
  const of = (name: Exclude<keyof SwitchCounts, 'drops'>): number =>
    all.reduce((total, counts) => total + counts[name], 0);
  return {
    stations: of('stations'),
    received: of('received'),
    sent: of('sent'),
    flooded: of('flooded'),
    direct: of('direct'),
    moves: of('moves'),
    notLearned: of('notLearned'),
    drops,
  };
}
