/** The devices of the guest matrix: who is on the host's side of each, what it is to the guest, how it is driven there. */

import { writeFlowCapture } from './flow-capture.js';
import { ReflectingTaps } from './guest-taps.js';
import { type StreamPeer, streamEcho } from './stream-peer.js';
import { Testpmd } from './testpmd.js';

/** QEMU's own device (its frames over a stream socket or a tap), our back-end, DPDK's `net_vhost`. */
export type HostSide = 'qemu' | 'ours' | 'dpdk';

/** What the device is to the guest. */
export const KINDS = {
  translated: { properties: 'disable-legacy=on,iommu_platform=on,ats=on' },
  bypassing: { properties: 'disable-legacy=on' },
  transitional: { properties: 'disable-legacy=off', words: ['--legacy'] },
  'two pairs': { properties: 'disable-legacy=on,mq=on', queues: 2, words: ['--queues', '2'] },
  'behind a root port': { properties: 'disable-legacy=on,iommu_platform=on,ats=on', hasRootPort: true },
} as const satisfies Record<string, Kind>;

interface Kind {
  readonly properties: string;
  readonly queues?: number;
  /** Options of `loopback`. */
  readonly words?: readonly string[];
  readonly hasRootPort?: boolean;
}
export type KindName = keyof typeof KINDS;

export interface Cell {
  readonly kind: KindName;
  readonly side: HostSide;
}

/** One device in the guest. */
export interface MatrixDevice extends Cell {
  readonly address: string;
  readonly words: readonly string[];
  /**
   * Packets that may get lost: DPDK throws away what it has for a page whose translation it does not know yet, one at least
   * for each page; QEMU has a translation for a page of 2 MiB.
   */
  readonly mayLose: number;
}

const FIRST_SLOT = 0x4;
const MAY_LOSE = 256;
/** Of a capture: as many as are ever sent. */
const CAPTURED = 10_000;

/** Where the frames of our back-end's and DPDK's devices go. */
export interface Sockets {
  readonly ours: string;
  readonly folder: string;
}

/** The host's sides of some cells, and what QEMU is told to have a device for each. */
export class Matrix implements AsyncDisposable {
  readonly devices: MatrixDevice[] = [];
  readonly arguments: string[] = [];
  readonly peers: StreamPeer[] = [];
  readonly #ending: (() => Promise<unknown>)[] = [];

  /** @param hasIommu whether DPDK's devices are to translate, where the guest's IOMMU is before them */
  static async create(cells: readonly Cell[], sockets: Sockets, hasIommu: boolean): Promise<Matrix> {
    const matrix = new Matrix();
    try {
      await matrix.#startDpdk(cells, sockets.folder, hasIommu);
      for (const [index, cell] of cells.entries()) await matrix.#add(cell, index, sockets);
      return matrix;
    } catch (error) {
      await matrix[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const end of this.#ending.splice(0).reverse()) await end();
  }

  async #add(cell: Cell, index: number, sockets: Sockets): Promise<void> {
    const kind: Kind = KINDS[cell.kind];
    const slot = (FIRST_SLOT + index).toString(16);
    const id = `m${index}`;
    let place = `addr=0x${slot}`;
    let address = `0000:00:${slot.padStart(2, '0')}.0`;
    if (kind.hasRootPort === true) {
      const roots = this.devices.filter(({ kind: other }) => other === cell.kind).length + 1;
      this.arguments.push('-device', `pcie-root-port,id=root${index},chassis=${roots},slot=${roots},addr=0x${slot}`);
      place = `bus=root${index}`;
      // Buses get their numbers in the order of the slots.
      address = `0000:${roots.toString(16).padStart(2, '0')}:00.0`;
    }
    const properties = `romfile=,${place},${kind.properties}`;
    const mayLose = cell.side === 'dpdk' && kind.properties.includes('iommu_platform') ? MAY_LOSE : 0;
    const words = [...(kind.words ?? [])];
    if (cell.side === 'qemu' && kind.queues !== undefined) {
      // The kernel's tap has what comes back take the queue that its flow was last sent on.
      words.push('--pcap-in', `${sockets.folder}/${id}.pcap`);
      writeFlowCapture(`${sockets.folder}/${id}.pcap`, CAPTURED, kind.queues);
    }
    this.devices.push({ ...cell, address, words, mayLose });
    const netdev =
      cell.side === 'qemu'
        ? await this.#qemuNetdev(id, kind, sockets)
        : vhostUserNetdev(id, cell.side === 'ours' ? sockets.ours : dpdkSocket(sockets.folder, index), kind);
    // QEMU 7.2 without KVM crashes when a vhost-user device signals by MSI-X.
    const vectors = cell.side === 'qemu' ? '' : ',vectors=0';
    this.arguments.push(...netdev, '-device', `virtio-net-pci,netdev=${id},${properties}${vectors}`);
  }

  async #qemuNetdev(id: string, { queues }: Kind, { folder }: Sockets): Promise<string[]> {
    if (queues === undefined) {
      const peer = await streamEcho(`${folder}/${id}`);
      this.#ending.push(() => peer[Symbol.asyncDispose]());
      this.peers.push(peer);
      return peer.netdev(id);
    }
    // Of QEMU's own, a tap alone has several queues.
    // The longest packets of the traffic are four bytes longer than the usual MTU allows.
    const taps = await ReflectingTaps.create([queues], 1504);
    this.#ending.push(() => taps[Symbol.asyncDispose]());
    return taps.netdev(0, id);
  }

  async #startDpdk(cells: readonly Cell[], folder: string, hasIommu: boolean): Promise<void> {
    const sockets = cells.flatMap(({ side, kind }, index) =>
      side === 'dpdk' ? [{ path: dpdkSocket(folder, index), queues: (KINDS[kind] as Kind).queues ?? 1 }] : [],
    );
    // All ports of a testpmd have as many queues.
    for (const queues of new Set(sockets.map((socket) => socket.queues))) {
      const own = sockets.filter((socket) => socket.queues === queues);
      const iommu = hasIommu ? ',iommu-support=1' : '';
      const testpmd = await Testpmd.start({
        vdevs: own.map(({ path }, port) => `net_vhost${port},iface=${path},queues=${queues}${iommu}`),
        options: [`--rxq=${queues}`, `--txq=${queues}`, '--port-topology=loop', '--forward-mode=io'],
      });
      this.#ending.push(() => testpmd.quit());
      await testpmd.command('start', /packet forwarding - ports/);
    }
  }
}

const dpdkSocket = (folder: string, index: number): string => `${folder}/d${index}`;

const vhostUserNetdev = (id: string, path: string, { queues = 1 }: Kind): string[] => [
  ...['-chardev', `socket,id=c${id},path=${path}`],
  ...['-netdev', `vhost-user,id=${id},chardev=c${id},queues=${queues}`],
];
