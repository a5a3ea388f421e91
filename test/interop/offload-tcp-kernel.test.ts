/** The kernel's TCP over the driver's offloads: long packets sent and received through a tap, in hardware's place and in software. */

import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Port } from '../../driver/net/port.js';
import type { PortOffloads } from '../../driver/net/port-offloads.js';
import { Feature } from '../../driver/spec/features.js';
import { startCommand } from '../support/commands.js';
import { MiniTcp } from '../support/mini-tcp.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import type { TapNamespace } from '../support/tap-namespace.js';
import { KERNEL, withTapPort } from '../support/tap-port.js';
import { withFolder } from '../support/temp-folder.js';
import { countMatching } from '../support/tshark.js';

export const timeBoundSeconds = 240;

const test = skipWithoutRoot(
  skipWithout(suite('TCP of the kernel over offloads'), 'iproute2', 'tshark', 'tcpdump', 'ethtool'),
);

const SENT = 4_000_000;
const RETURNED = 3_000_000;
const SEGMENT = 1400;
const LIMIT_MS = 60_000;

/** Takes so many bytes, gives so many back, and prints the SHA-256 of both. */
const PEER = `
import hashlib, random, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.socket(family)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((sys.argv[1], 5000))
listener.listen()
print("ready", flush=True)
connection, _ = listener.accept()
left, digest = int(sys.argv[2]), hashlib.sha256()
while left:
    data = connection.recv(min(left, 1 << 20))
    if not data: break
    digest.update(data)
    left -= len(data)
back = random.Random(5).randbytes(int(sys.argv[3]))
connection.sendall(back)
connection.shutdown(socket.SHUT_WR)
print("took", left, digest.hexdigest(), "gave", hashlib.sha256(back).hexdigest(), flush=True)
connection.recv(1)
`;

const offloads: PortOffloads = { txChecksum: true, tso: true, rxChecksum: true, lro: true };
const SEGMENTATION = [Feature.HOST_TSO4, Feature.HOST_TSO6, Feature.GUEST_TSO4, Feature.GUEST_TSO6];

const withTap = (
  without: readonly Feature[],
  ring: 'split' | 'packed',
  body: Parameters<typeof withTapPort>[2],
): Promise<void> => withTapPort(without, { offloads, ring }, body);

/** Moves data both ways, and checks that it is what was sent. */
async function converse(port: Port, space: TapNamespace, version: 4 | 6): Promise<MiniTcp> {
  const args = [
    'netns',
    'exec',
    space.name,
    '/usr/bin/python3',
    '-c',
    PEER,
    KERNEL[version],
    String(SENT),
    String(RETURNED),
  ];
  const peer = await startCommand('ip', args, /ready/);
  try {
    const deadline = Date.now() + LIMIT_MS;
    const tcp = new MiniTcp(port, { version, segmentBytes: SEGMENT });
    await tcp.connect(deadline);
    const sent = await tcp.send(SENT, deadline);
    await tcp.receiveAll(deadline);
    const { bytes, sha256 } = tcp.result();
    assert.is(bytes, RETURNED);
    while (!peer.output().includes('gave') && Date.now() < deadline) await delay(20);
    assert.match(peer.output(), `took 0 ${sent} gave ${sha256}`);
    return tcp;
  } finally {
    await peer.stop();
  }
}

const outcome = (port: Port, name: string): string | undefined => port.offloads.find((each) => each.name === name)?.by;

for (const version of [4, 6] as const) {
  for (const ring of ['split', 'packed'] as const) {
    test(`IPv${version}, ${ring}: the device cuts what is sent, and long packets come as they are`, () =>
      withTap([], ring, async (port, space) => {
        for (const name of ['txChecksum', 'tso', 'rxChecksum', 'lro']) assert.is(outcome(port, name), 'device', name);
        const { arrivals } = await converse(port, space, version);
        const { tx, rx } = port.statistics();
        assert.ok(tx[0]!.bytes / tx[0]!.packets > 3 * SEGMENT, `${tx[0]!.packets} packets sent`);
        assert.is(arrivals.checked, arrivals.packets, 'packets whose checksum is known');
        assert.ok(arrivals.long > 0 && arrivals.longest > 3 * SEGMENT, JSON.stringify(arrivals));
        assert.is(tx[0]!.drops.offload + rx[0]!.drops.offload, 0);
      }));
  }
}

test('without the features the driver does it all, and tshark finds every checksum and length right', () =>
  withTap([Feature.CSUM, Feature.GUEST_CSUM], 'split', (port, space, name) =>
    withFolder(async (folder) => {
      for (const each of ['txChecksum', 'tso', 'rxChecksum']) assert.is(outcome(port, each), 'driver', each);
      assert.is(outcome(port, 'lro'), 'nobody');
      for (const version of [4, 6] as const) {
        const file = join(folder, `sent-${version}.pcap`);
        const args = ['netns', 'exec', space.name, 'tcpdump', '-i', name, '-U', '-w', file, '--immediate-mode'];
        // Packets are delivered at once into slots as large as the snapshot length: by default 64 MiB are 256 slots.
        const capture = await startCommand('ip', [...args, '-s', '2048', '-B', '65536', 'tcp or ip6'], /listening/);
        const { arrivals } = await converse(port, space, version);
        assert.is(arrivals.checked, arrivals.packets, 'checksums looked at here');
        assert.equal([arrivals.long, arrivals.wrong], [0, 0]);
        const ours = 'eth.src == 02:00:00:00:00:02 && tcp';
        // tcpdump writes what it has in hand when it is ended, and no more: it gets the time to see the last packet.
        let seen = 0;
        for (const deadline = Date.now() + 20_000; seen < SENT / SEGMENT && Date.now() < deadline; ) {
          seen = await countMatching(file, ours);
        }
        await capture.stop();
        assert.ok(seen >= SENT / SEGMENT, `${seen} segments; tcpdump: ${capture.output()}`);
        const wrong = `${ours} && (tcp.checksum.status == 0 || ip.checksum.status == 0 || frame.len > 1514)`;
        assert.is(await countMatching(file, wrong, ['tcp.check_checksum:TRUE', 'ip.check_checksum:TRUE']), 0);
      }
    }),
  ));

test('RSC_EXT: segments that the kernel sends one by one come joined, with how many there were', () =>
  withTap([], 'split', async (port, space, name) => {
    await space.run('ethtool', '-K', name, 'tx', 'off');
    const { arrivals } = await converse(port, space, 4);
    assert.equal([arrivals.wrong, arrivals.checked], [0, arrivals.joined]);
    assert.ok(arrivals.joined > 0 && arrivals.long === arrivals.joined, JSON.stringify(arrivals));
  }));

test('long packets end when the port turns them off by command, and begin again (§5.1.6.5.8)', () =>
  withTap([], 'split', async (port, space) => {
    await port.control.setGuestOffloads([Feature.GUEST_CSUM]);
    const { arrivals } = await converse(port, space, 4);
    assert.equal([arrivals.long, arrivals.checked], [0, arrivals.packets]);
    await port.control.setGuestOffloads([Feature.GUEST_CSUM, Feature.GUEST_TSO4, Feature.GUEST_TSO6]);
    const again = await converse(port, space, 6);
    assert.ok(again.arrivals.long > 0, JSON.stringify(again.arrivals));
  }));

test('with CSUM alone the driver cuts, and leaves the checksums of its segments to the device', () =>
  withTap(SEGMENTATION, 'split', async (port, space) => {
    assert.equal(
      ['txChecksum', 'tso', 'lro'].map((name) => outcome(port, name)),
      ['device', 'driver', 'nobody'],
    );
    const { arrivals } = await converse(port, space, 4);
    assert.is(arrivals.long, 0);
    assert.ok(arrivals.longest <= 1514);
  }));

test.run();
