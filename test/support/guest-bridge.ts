/** A bridge of the host's kernel in a namespace of its own, with taps at it: what machines that move find at either end. */

import { type BackgroundCommand, runCommand, startCommand } from './commands.js';
import type { HostSpace } from './guest-host-end.js';
import { uniqueName } from './test-names.js';

const BRIDGE = 'bridge0';
const PYTHON = '/usr/bin/python3';

/** Prints who sends reverse ARP (RFC 903). */
const LISTENER = `
import socket, sys
listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x8035))
listener.bind((sys.argv[1], 0x8035))
print("ready", flush=True)
while True:
    print("from " + listener.recv(2048)[6:12].hex(":"), flush=True)
`;

export class GuestBridge implements HostSpace {
  readonly name = uniqueName('gb');
  readonly address: string;

  private constructor(address: string) {
    this.address = address;
  }

  /** Takes taps that are open already into a namespace, where they are ports of a bridge that has this address of a /24. */
  static async create(taps: readonly string[], address: string): Promise<GuestBridge> {
    const bridge = new GuestBridge(address);
    await runCommand('ip', ['netns', 'add', bridge.name]);
    try {
      await bridge.#run('ip', 'link', 'set', 'lo', 'up');
      // A bridge that looks for loops would keep its ports shut for half a minute.
      await bridge.#run('ip', 'link', 'add', BRIDGE, 'type', 'bridge', 'stp_state', '0', 'mcast_snooping', '0');
      for (const tap of taps) {
        await runCommand('ip', ['link', 'set', tap, 'netns', bridge.name]);
        await bridge.#run('ip', 'link', 'set', tap, 'master', BRIDGE, 'up');
      }
      await bridge.#run('ip', 'address', 'add', `${address}/24`, 'dev', BRIDGE);
      await bridge.#run('ip', 'link', 'set', BRIDGE, 'up');
    } catch (error) {
      await bridge.close();
      throw error;
    }
    return bridge;
  }

  /** The port behind which the bridge knows a station, or undefined. */
  async portOf(macAddress: string): Promise<string | undefined> {
    const stations = await this.#run('bridge', 'fdb', 'show', 'br', BRIDGE, 'dynamic');
    const line = stations.split('\n').find((each) => each.startsWith(`${macAddress} `));
    return line === undefined ? undefined : /dev (\S+)/.exec(line)?.[1];
  }

  /** Begins to listen for reverse ARP, which makes a station known where it is now; it ends with the namespace or `stop`. */
  listenForRarp(): Promise<BackgroundCommand> {
    return startCommand('ip', ['netns', 'exec', this.name, PYTHON, '-c', LISTENER, BRIDGE], /ready/);
  }

  /** Removes the namespace, and the taps with it. Idempotent. */
  async close(): Promise<void> {
    await runCommand('ip', ['netns', 'delete', this.name]).catch(() => {});
  }

  #run(command: string, ...args: readonly string[]): Promise<string> {
    return runCommand('ip', ['netns', 'exec', this.name, command, ...args]);
  }
}
