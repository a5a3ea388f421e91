/** Two network namespaces joined by a cable, with real protocol stacks at both ends. */

import { fileURLToPath } from 'node:url';

import { type BackgroundCommand, runCommand, startCommand } from './commands.js';
import { uniqueName } from './test-names.js';

/** Jumbo frames: 9014 bytes on the wire, 9018 with a VLAN tag. */
export const CABLE_MTU = 9000;
/** The cable's end in either namespace. */
export const CABLE = 'cable0';
const OFFLOADS = ['tso', 'gso', 'gro', 'tx', 'rx', 'sg', 'txvlan', 'rxvlan'];
/** Addresses for documentation (RFC 5737, RFC 3849): the last digit tells the two ends apart. */
const ADDRESSES = { ip4: '192.0.2.', ip6: '2001:db8::', vlan4: '198.51.100.' } as const;
export const VLAN_ID = 100;

const RELAY = fileURLToPath(new URL('../../../test/support/vlan_relay.py', import.meta.url));

export class NetworkPair {
  readonly #namespaces: readonly [string, string];
  readonly #running: BackgroundCommand[] = [];

  private constructor() {
    this.#namespaces = [uniqueName('vp'), uniqueName('vp')];
  }

  /** Makes both namespaces, the cable and its addresses; offloads are off, so that frames are as they look. */
  static async create(): Promise<NetworkPair> {
    const pair = new NetworkPair();
    try {
      await pair.#setUp();
      return pair;
    } catch (error) {
      await pair.close();
      throw error;
    }
  }

  /** Address of an end, 0 or 1. */
  address(kind: keyof typeof ADDRESSES, end: 0 | 1): string {
    return `${ADDRESSES[kind]}${end + 1}`;
  }

  /** Runs a program at one end. */
  run(end: 0 | 1, command: string, ...args: readonly string[]): Promise<string> {
    return runCommand('ip', ['netns', 'exec', this.#namespaces[end], command, ...args]);
  }

  /** Starts a program at one end; it is stopped with the pair. */
  async start(end: 0 | 1, ready: RegExp, command: string, ...args: readonly string[]): Promise<BackgroundCommand> {
    const started = await startCommand('ip', ['netns', 'exec', this.#namespaces[end], command, ...args], ready);
    this.#running.push(started);
    return started;
  }

  /** Stops what runs and removes both namespaces. Idempotent. */
  async close(): Promise<void> {
    for (const running of this.#running.splice(0).reverse()) await running.stop();
    for (const name of this.#namespaces) await runCommand('ip', ['netns', 'delete', name]).catch(() => {});
  }

  async #setUp(): Promise<void> {
    const [near, far] = this.#namespaces;
    for (const name of this.#namespaces) await runCommand('ip', ['netns', 'add', name]);
    const cable = ['link', 'add', CABLE, 'netns', near, 'type', 'veth', 'peer', 'name', CABLE, 'netns', far];
    await runCommand('ip', cable);
    for (const end of [0, 1] as const) {
      await this.run(end, 'ethtool', '-K', CABLE, ...OFFLOADS.flatMap((name) => [name, 'off']));
      await this.run(end, 'ip', 'address', 'add', `${this.address('ip4', end)}/24`, 'dev', CABLE);
      await this.run(end, 'ip', 'address', 'add', `${this.address('ip6', end)}/64`, 'dev', CABLE, 'nodad');
      await this.run(end, 'ip', 'link', 'set', CABLE, 'mtu', String(CABLE_MTU), 'up');
      await this.run(end, 'ip', 'link', 'set', 'lo', 'up');
    }
  }

  /**
   * Adds a VLAN over the cable: a tagged sub-interface at both ends, or where the kernel has none, a tap whose
   * frames a relay tags and untags.
   */
  async addVlan(): Promise<void> {
    for (const end of [0, 1] as const) {
      const vlan = ['link', 'add', 'link', CABLE, 'name', 'vlan0', 'type', 'vlan', 'id', String(VLAN_ID)];
      try {
        await this.run(end, 'ip', ...vlan);
      } catch {
        await this.start(end, /ready/, '/usr/bin/python3', RELAY, CABLE, 'vlan0', String(VLAN_ID));
      }
      await this.run(end, 'ip', 'address', 'add', `${this.address('vlan4', end)}/24`, 'dev', 'vlan0');
      await this.run(end, 'ip', 'link', 'set', 'vlan0', 'mtu', '1500', 'up');
    }
  }
}
