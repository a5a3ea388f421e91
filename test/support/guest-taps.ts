/** Taps of the host for QEMU's own devices, each of which sends all that the guest sends back to it. */

import { runCommand, startCommand } from './commands.js';
import { uniqueName } from './test-names.js';

const REFLECT = new URL('../../../test/support/tap_reflect.py', import.meta.url).pathname;

export class ReflectingTaps implements AsyncDisposable {
  readonly #names: readonly string[];
  readonly #queues: readonly number[];
  readonly #ending: (() => Promise<unknown>)[] = [];

  private constructor(queues: readonly number[]) {
    this.#queues = queues;
    this.#names = queues.map(() => uniqueName('gm'));
  }

  /** Makes one for each device, with as many queue pairs; packets of `mtu` bytes behind the Ethernet header fit. */
  static async create(queues: readonly number[], mtu: number): Promise<ReflectingTaps> {
    const taps = new ReflectingTaps(queues);
    try {
      for (const index of queues.keys()) await taps.#add(index, mtu);
      const reflect = await startCommand('python3', [REFLECT, ...taps.#names], /ready/);
      taps.#ending.push(() => reflect.stop());
      return taps;
    } catch (error) {
      await taps[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** What QEMU is told, for the network device `id`. */
  netdev(index: number, id: string): string[] {
    const name = `ifname=${this.#names[index]},queues=${this.#queues[index]}`;
    return ['-netdev', `tap,id=${id},${name},script=no,downscript=no,vhost=off`];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const end of this.#ending.splice(0).reverse()) await end();
  }

  async #add(index: number, mtu: number): Promise<void> {
    const name = this.#names[index]!;
    // QEMU opens one with a single queue as what it is.
    const queues = this.#queues[index]! > 1 ? ['multi_queue'] : [];
    await runCommand('ip', ['tuntap', 'add', name, 'mode', 'tap', ...queues, 'vnet_hdr']);
    this.#ending.push(() => runCommand('ip', ['link', 'delete', name]));
    // The host's kernel has nothing to say there.
    await runCommand('sysctl', ['-q', '-w', `net.ipv6.conf.${name}.disable_ipv6=1`]);
    await runCommand('ip', ['link', 'set', name, 'up', 'mtu', String(mtu), 'txqueuelen', '10000']);
  }
}
