/**
 * The ten ways through the rings that DPDK's own loop-back plan has, against ours on the other side: `net_virtio_user` at our
 * back-end, whose log proves which way it took, and our driver at `net_vhost` on rings of each kind; every byte of every
 * packet verified, none lost. At full counts a million packets each.
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { featureMismatch, PATHS, pathTaken, type RingPath, VIRTIO_LOG, WIDE_VECTORS } from '../../bench/paths.js';
import { DeviceThread } from '../../driver/backend/device-thread.js';
import { DpdkBackend, runBackend, startFrontEnd, TRAFFIC_PORT } from '../support/backend-dpdk-run.js';
import { MatrixPeer } from '../support/dpdk-matrix-peer.js';
import { assertAllBack, runCombination } from '../support/dpdk-matrix-run.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import type { Testpmd } from '../support/testpmd.js';

export const timeBoundSeconds = 240;
export const fullTimeBoundSeconds = 7200;

const isFull = process.env['VIRTIO_PMD_FULL'] !== undefined;
const PACKETS = isFull ? 1_000_000 : 20_000;
const RING_SIZE = 1024;

const test = skipWithout(suite("DPDK's ten paths"), 'dpdk');

/** A back-end of ours at which DPDK is asked for a path. */
class PathBackend extends DpdkBackend {
  readonly wanted: RingPath;

  constructor(thread: DeviceThread, folder: string, port: number, path: RingPath) {
    const { packed, mergeable, inOrder } = path;
    const ring = packed ? 'packed' : 'split';
    super(thread, folder, port, { queues: 1, ring, ringSize: RING_SIZE, mergeable, inOrder, role: 'server' }, PACKETS);
    this.wanted = path;
  }

  override get vdev(): string {
    return `${super.vdev},vectorized=${this.wanted.vectorized ? 1 : 0}`;
  }

  /** Asserts that DPDK took the path that follows from what was negotiated; returns its name. */
  checkPath(testpmd: Testpmd): string {
    const event = this.events.findLast(({ type }) => type === 'features');
    assert.ok(event?.type === 'features', 'features were negotiated');
    const features = event.features.toU64();
    assert.match(featureMismatch(this.wanted, features), /^(inOrder is off)?$/, `${event.features}`);
    const { name, log } = pathTaken(this.wanted, features);
    const said = testpmd.output.matchAll(new RegExp(`(using .* path) on port ${this.port}$`, 'gm'));
    // In the order of that: it says it anew at each start.
    const used = [...said].map(([, text]) => text).slice(-2);
    assert.equal(new Set(used), new Set([log.receive, log.send]), this.wanted.name);
    return name;
  }
}

test('net_virtio_user on each of its paths, at our back-end', () =>
  withFolder(async (folder) => {
    await using thread = await DeviceThread.start({ idle: 'yield', poolSize: 16_384, ports: [TRAFFIC_PORT] });
    const backends = PATHS.map((path, port) => new PathBackend(thread, folder, port, path));
    let testpmd: Testpmd | undefined;
    try {
      for (const backend of backends) await backend.open();
      testpmd = await startFrontEnd(backends, 1, [...VIRTIO_LOG, ...WIDE_VECTORS]);
      for (const backend of backends) {
        const peer = await runBackend(testpmd, backend, PACKETS);
        const taken = backend.checkPath(testpmd);
        backend.assertAllBack(PACKETS);
        assert.equal([peer.received, peer.sent, peer.failed], [PACKETS, PACKETS, 0], backend.wanted.name);
        console.log(`${backend.wanted.name}: ${PACKETS} packets on ${taken}`);
      }
    } finally {
      await testpmd?.quit();
      for (const backend of backends) await backend.close();
    }
  }));

/** Vectors are a matter of DPDK's driver: what is left of those paths for net_vhost is one of the others. */
const DRIVEN = PATHS.filter(({ vectorized }) => !vectorized);

test('our driver on the rings of each path, at net_vhost', () =>
  withFolder(async (folder) => {
    const peer = await MatrixPeer.start(folder, 'server', 1);
    try {
      for (const { name, packed, mergeable, inOrder } of DRIVEN) {
        const rings = packed ? ('packed' as const) : ('split' as const);
        const mode = 'mac' as const;
        const combination = {
          mode,
          peer: 'server' as const,
          ringSize: RING_SIZE,
          queues: 1 as const,
          mergeable,
          rings,
          inOrder,
        };
        assertAllBack(await runCombination(peer, { combination, packets: PACKETS }), PACKETS);
        if (isFull) console.log(`${name}: ${PACKETS} packets`);
      }
    } finally {
      await peer.quit();
    }
  }));

test.run();
