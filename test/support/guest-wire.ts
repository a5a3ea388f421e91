/**
 * A tap with a cable behind it, and a host at the cable's far end.
 *
 * On a tap itself, and on a cable whose ends do offloads, a capture shows packets with their checksums open and before they
 * are cut, for the kernel leaves that to whoever is behind them. After `expose` it does all of it before the cable, and
 * takes nothing for granted behind it.
 */

import { runCommand } from './commands.js';
import type { HostSpace } from './guest-host-end.js';
import { uniqueName } from './test-names.js';

/** The cable's interface at either end. */
export const WIRE_END = 'cable0';
const BRIDGE = 'bridge0';
const OFF = ['tx', 'rx', 'sg', 'tso', 'gso', 'gro'].flatMap((offload) => [offload, 'off']);

export class GuestWire implements HostSpace {
  /** The namespace at the far end. */
  readonly name = uniqueName('gf');
  readonly address: string;
  readonly #near = uniqueName('gn');

  private constructor(address: string) {
    this.address = address;
  }

  /** Takes over a tap that is open already; the far end gets these addresses, each of a /24. */
  static async create(tap: string, addresses: readonly string[]): Promise<GuestWire> {
    const wire = new GuestWire(addresses[0]!);
    const near = (...words: readonly string[]): Promise<string> => wire.#run(wire.#near, words);
    const far = (...words: readonly string[]): Promise<string> => wire.#run(wire.name, words);
    try {
      for (const space of [wire.#near, wire.name]) await runCommand('ip', ['netns', 'add', space]);
      const peer = ['peer', 'name', WIRE_END, 'netns', wire.name];
      await near('ip', 'link', 'add', WIRE_END, 'type', 'veth', ...peer);
      await near('ip', 'link', 'add', BRIDGE, 'type', 'bridge', 'stp_state', '0', 'mcast_snooping', '0');
      await runCommand('ip', ['link', 'set', tap, 'netns', wire.#near]);
      for (const port of [tap, WIRE_END]) await near('ip', 'link', 'set', port, 'master', BRIDGE, 'up');
      await near('ip', 'link', 'set', BRIDGE, 'up');
      for (const each of addresses) await far('ip', 'address', 'add', `${each}/24`, 'dev', WIRE_END);
      for (const link of ['lo', WIRE_END]) await far('ip', 'link', 'set', link, 'up');
      return wire;
    } catch (error) {
      await wire.close();
      throw error;
    }
  }

  /** Has packets go over the cable as over a real one. */
  async expose(): Promise<void> {
    for (const space of [this.#near, this.name]) await this.#run(space, ['ethtool', '-K', WIRE_END, ...OFF]);
  }

  /** Runs a program at the far end. */
  run(...words: readonly string[]): Promise<string> {
    return this.#run(this.name, words);
  }

  /** TCP segments that came with a wrong checksum. */
  async badChecksums(): Promise<number> {
    const counters = await this.run('cat', '/proc/net/snmp');
    const [names, values] = counters.split('\n').filter((line) => line.startsWith('Tcp:'));
    return Number(values!.split(' ')[names!.split(' ').indexOf('InCsumErrors')]);
  }

  /** Idempotent. */
  async close(): Promise<void> {
    for (const space of [this.name, this.#near]) await runCommand('ip', ['netns', 'delete', space]).catch(() => {});
  }

  async #run(space: string, words: readonly string[]): Promise<string> {
    return await runCommand('ip', ['netns', 'exec', space, ...words], { timeoutMs: 60_000 });
  }
}
