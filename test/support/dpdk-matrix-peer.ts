/** The testpmd of a group of combinations: one `net_vhost` port that sends each queue's packets back on that queue. */

import { join } from 'node:path';

import type { Combination } from './dpdk-matrix.js';
import { Testpmd } from './testpmd.js';

/** What testpmd counted from one start of forwarding to its stop. */
export interface PeerCounters {
  readonly received: number;
  readonly receivedBytes: number;
  readonly sent: number;
  readonly sentBytes: number;
  /** Errors, missed, and packets without a buffer of the port; dropped by the forwarder. */
  readonly failed: number;
}

/** As `show port stats` and the end of forwarding name them. */
const GOOD_COUNTERS = ['RX-packets', 'RX-bytes', 'TX-packets', 'TX-bytes'] as const;
const BAD_COUNTERS = ['RX-missed', 'RX-errors', 'RX-nombuf', 'TX-errors', 'RX-dropped', 'TX-dropped'] as const;

/** Reads the counters from what testpmd says at the end of forwarding and to `show port stats`. */
export function peerCounters(text: string): PeerCounters {
  // The port's counters are the last of their name; the forwarder's drops stand before them.
  const value = (name: string): number => {
    const found = text.match(new RegExp(`(?<=${name}: *)\\d+`, 'g'));
    if (found === null) throw new Error(`testpmd did not say ${name}:\n${text}`);
    return Number(found.at(-1));
  };
  const [received, receivedBytes, sent, sentBytes] = GOOD_COUNTERS.map(value);
  const failed = BAD_COUNTERS.map(value).reduce((sum, count) => sum + count);
  return { received: received!, receivedBytes: receivedBytes!, sent: sent!, sentBytes: sentBytes!, failed };
}

let sockets = 0;

export class MatrixPeer {
  readonly path: string;
  /** Of the port of `net_vhost`. */
  readonly macAddress: Uint8Array;
  readonly #testpmd: Testpmd;

  private constructor(path: string, macAddress: Uint8Array, testpmd: Testpmd) {
    this.path = path;
    this.macAddress = macAddress;
    this.#testpmd = testpmd;
  }

  /** Starts one whose socket is in `folder`. */
  static async start(folder: string, peer: Combination['peer'], queues: number): Promise<MatrixPeer> {
    // A name of its own: DPDK does not remove what one that was killed left behind.
    const path = join(folder, `${++sockets}.sock`);
    const testpmd = await Testpmd.start({
      vdevs: [`net_vhost0,iface=${path},queues=${queues},client=${peer === 'client' ? 1 : 0}`],
      options: [`--rxq=${queues}`, `--txq=${queues}`, '--port-topology=loop', '--total-num-mbufs=16384'],
    });
    try {
      const from = testpmd.output.length;
      await testpmd.command('show port info 0', /MAC address: [\dA-F:]{17}[\s\S]*testpmd> /);
      const text = /MAC address: ([\dA-F:]{17})/.exec(testpmd.output.slice(from))![1]!;
      return new MatrixPeer(path, Uint8Array.from(Buffer.from(text.replaceAll(':', ''), 'hex')), testpmd);
    } catch (error) {
      await testpmd.kill();
      throw error;
    }
  }

  /** Zeroes its counters and forwards in `mode` from here on. */
  async forward(mode: Combination['mode']): Promise<void> {
    await this.#testpmd.command('clear port stats 0', /NIC statistics for port 0 cleared/);
    await this.#testpmd.command(`set fwd ${mode}`, new RegExp(`Set ${mode} packet forwarding mode`));
    await this.#testpmd.command('start', /packet forwarding - ports=1[\s\S]*testpmd> /);
  }

  /** Ends forwarding; returns what it counted. */
  async counted(): Promise<PeerCounters> {
    const from = this.#testpmd.output.length;
    // Its own words first: counters are up to date when its loop has ended.
    await this.#testpmd.command('stop', /\nDone\./);
    await this.#testpmd.command('show port stats 0', /Tx-bps:[\s\S]*testpmd> /);
    return peerCounters(this.#testpmd.output.slice(from));
  }

  /** What it said last, for a failure. */
  get lastWords(): string {
    return this.#testpmd.output.slice(-1500);
  }

  async quit(): Promise<void> {
    await this.#testpmd.quit();
  }
  async kill(): Promise<void> {
    await this.#testpmd.kill();
  }
}
