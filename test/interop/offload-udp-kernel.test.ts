/**
 * UDP of the kernel's over the driver's offloads: datagrams in segments (USO) and in IP fragments (UFO), cut by the device or by
 * the driver, and received as one; tags of VLANs, put in, taken out and filtered.
 */

import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import type { Port } from '../../driver/net/port.js';
import type { PortOffloads } from '../../driver/net/port-offloads.js';
import { Feature } from '../../driver/spec/features.js';
import { type BackgroundCommand, startCommand } from '../support/commands.js';
import { placesOf, sendUnfinished } from '../support/offload-packets.js';
import { skipWithout, skipWithoutRoot } from '../support/skip.js';
import type { TapNamespace } from '../support/tap-namespace.js';
import { KERNEL, withTapPort } from '../support/tap-port.js';
import { withFolder } from '../support/temp-folder.js';
import { countMatching } from '../support/tshark.js';

export const timeBoundSeconds = 240;

const test = skipWithoutRoot(
  skipWithout(suite('UDP of the kernel over offloads'), 'iproute2', 'tshark', 'tcpdump', 'ethtool', 'scapy'),
);

const { FLAGS, VLAN_AND_PORT, WORDS } = PacketField;
const { SEGMENT_UDP, FRAGMENT_UDP, VLAN } = PacketFlag;
const VERSIONS = [4, 6] as const;
const PIECE = 1200;
const BYTES = 20_000;
const LIMIT_MS = 20_000;
const payload = new Uint8Array(BYTES).map((_, at) => at * 31 + (at >>> 8));

/**
 * Takes so many datagrams, prints the length of each and the SHA-256 of all, then sends so many bytes to where they came from, as
 * segments of `PIECE` where asked.
 */
const PEER = `
import hashlib, socket, sys
address, count, answer, segment = sys.argv[1], *map(int, sys.argv[2:5])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
peer = socket.socket(family, socket.SOCK_DGRAM)
peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
peer.bind((address, 5000))
peer.settimeout(30)
print("ready", flush=True)
digest, lengths = hashlib.sha256(), []
for _ in range(count):
    data, sender = peer.recvfrom(1 << 16)
    digest.update(data)
    lengths.append(len(data))
print("took", *lengths, digest.hexdigest(), flush=True)
if segment: peer.setsockopt(17, 103, segment)
if answer: peer.sendto(bytes(index % 251 for index in range(answer)), sender)
print("done", flush=True)
`;
const answerOf = (bytes: number): Uint8Array => new Uint8Array(bytes).map((_, at) => at % 251);

const startPeer = (
  space: TapNamespace,
  address: string,
  { count, answer = 0, segment = 0 }: { readonly count: number; readonly answer?: number; readonly segment?: number },
): Promise<BackgroundCommand> => {
  const words = [count, answer, segment].map(String);
  return startCommand('ip', ['netns', 'exec', space.name, '/usr/bin/python3', '-c', PEER, address, ...words], /ready/);
};

async function said(peer: BackgroundCommand, what: RegExp): Promise<void> {
  for (const deadline = Date.now() + LIMIT_MS; !what.test(peer.output()) && Date.now() < deadline; ) await delay(10);
  assert.match(peer.output(), what);
}

/** Sends UDP with its checksum left to do and these flags; `tag` goes with VLAN. */
const send = (port: Port, version: 4 | 6, bytes: Uint8Array, flags: number, tag?: number): void =>
  assert.ok(sendUnfinished(port, { version, protocol: 'udp', payload: bytes }, flags, tag));

interface Arrival {
  readonly flags: number;
  readonly tag: number;
  readonly bytes: Uint8Array;
  readonly data: Uint8Array;
}

/** Receives what the kernel sends from port 5000 until there are so many bytes of it, or for so long. */
async function receive(port: Port, version: 4 | 6, bytes: number, waitMs = LIMIT_MS): Promise<Arrival[]> {
  const at = placesOf({ version, protocol: 'udp', payload });
  const burst = port.burst(32);
  const arrivals: Arrival[] = [];
  let got = 0;
  for (const deadline = Date.now() + waitMs; got < bytes && Date.now() < deadline; await delay(5)) {
    port.rxQueue(0).receive(burst);
    for (let index = 0; index < burst.count; index++) {
      const packet = burst.bytes(index).copyPacket();
      const field = burst.handles[index]! * WORDS;
      const view = new DataView(packet.buffer);
      const protocol = packet[version === 4 ? at.network + 9 : at.network + 6];
      if (packet.length < at.payload || protocol !== 17 || view.getUint16(at.transport) !== 5000) continue;
      const data = packet.subarray(at.payload, at.transport + view.getUint16(at.transport + 4));
      got += data.length;
      const { fields } = port.pool;
      arrivals.push({
        flags: fields[field + FLAGS]!,
        tag: fields[field + VLAN_AND_PORT]! & 0xffff,
        bytes: packet,
        data,
      });
    }
    burst.free();
  }
  return arrivals;
}

const outcome = (port: Port, name: string): string | undefined => port.offloads.find((each) => each.name === name)?.by;
const took = (lengths: readonly number[]): RegExp =>
  new RegExp(`took ${lengths.join(' ')} ${createHash('sha256').update(payload).digest('hex')}`);
const pieces = Array.from({ length: Math.ceil(BYTES / PIECE) }, (_, index) => Math.min(PIECE, BYTES - index * PIECE));

for (const [name, flag, feature, lengths] of [
  ['uso', SEGMENT_UDP, Feature.HOST_USO, pieces],
  ['ufo', FRAGMENT_UDP, Feature.HOST_UFO, [BYTES]],
] as const) {
  for (const [by, without] of [
    ['device', []],
    ['driver', [feature]],
    ['driver', [Feature.CSUM]],
  ] as const) {
    const lack = without.length === 0 ? '' : ` without ${without[0] === feature ? name.toUpperCase() : 'CSUM'}`;
    test(`${name}: the ${by} cuts${lack}, and the kernel gets what was sent, IPv4 and IPv6`, () =>
      withTapPort(without, { offloads: { txChecksum: true, [name]: true } }, (port, space, tap) =>
        withFolder(async (folder) => {
          assert.is(outcome(port, name), by);
          const file = join(folder, 'sent.pcap');
          const args = ['netns', 'exec', space.name, 'tcpdump', '-i', tap, '-U', '-w', file, '--immediate-mode'];
          const capture = await startCommand('ip', [...args, '-B', '65536', 'ip or ip6'], /listening/);
          try {
            for (const version of VERSIONS) {
              const peer = await startPeer(space, KERNEL[version], { count: lengths.length });
              try {
                send(port, version, payload, flag | (PIECE << 16));
                await said(peer, took(lengths));
              } finally {
                await peer.stop();
              }
            }
            if (by === 'driver') {
              // tcpdump writes what it has in hand when it is ended, and no more.
              const ours = 'eth.src == 02:00:00:00:00:02 && frame.len <= 1514';
              const wanted = 2 * (name === 'uso' ? pieces.length : Math.ceil((BYTES + 8) / PIECE));
              let seen = 0;
              for (const deadline = Date.now() + LIMIT_MS; seen < wanted && Date.now() < deadline; )
                seen = await countMatching(file, ours);
              assert.is(seen, wanted);
              // What CSUM leaves to the device is not there yet where tcpdump looks.
              const isLeft = name === 'uso' && without[0] !== Feature.CSUM;
              const right = 'udp.srcport == 4000 && udp.checksum.status == 1';
              const checked = ['udp.check_checksum:TRUE', 'ip.check_checksum:TRUE'];
              assert.is(await countMatching(file, right, checked), isLeft ? 0 : 2 * lengths.length);
              assert.is(await countMatching(file, 'ip.checksum.status == 0', checked), 0);
            }
          } finally {
            await capture.stop();
          }
        }),
      ));
  }
}

test('GUEST_USO: ethtool shows that the port takes them, and segments of the kernel come as one packet, or one by one', async () => {
  for (const uro of [true, false]) {
    const offloads: PortOffloads = { txChecksum: true, rxChecksum: true, uro };
    await withTapPort([], { offloads }, async (port, space, tap) => {
      assert.is(outcome(port, 'uro'), uro ? 'device' : 'nobody');
      assert.match(await space.run('ethtool', '-k', tap), `tx-udp-segmentation: ${uro ? 'on' : 'off'}`);
      for (const version of VERSIONS) {
        const peer = await startPeer(space, KERNEL[version], { count: 1, answer: BYTES, segment: PIECE });
        try {
          send(port, version, Uint8Array.of(1, 2, 3), 0);
          const arrivals = await receive(port, version, BYTES);
          assert.equal(Buffer.concat(arrivals.map(({ data }) => data)), Buffer.from(answerOf(BYTES)));
          if (uro) {
            assert.is(arrivals.length, 1);
            assert.is((arrivals[0]!.flags & SEGMENT_UDP) | (arrivals[0]!.flags & ~0xffff), SEGMENT_UDP | (PIECE << 16));
          } else {
            assert.equal(
              arrivals.map(({ data }) => data.length),
              pieces,
            );
          }
        } finally {
          await peer.stop();
        }
      }
    });
  }
});

test('VLAN: scapy finds the tags that are put in, and the filter passes the VLANs that were turned on, without their tags', () =>
  withTapPort(
    // Checksums that are left to the kernel are not there yet where scapy looks.
    [Feature.CSUM],
    { offloads: { txChecksum: true, rxChecksum: true, vlanInsert: true, vlanStrip: true }, vlanFilter: true },
    async (port, space, tap) => {
      const judge = fileURLToPath(new URL('../../../test/support/scapy_vlan.py', import.meta.url));
      const args = ['netns', 'exec', space.name, '/usr/bin/python3', judge, tap];
      const peer = await startCommand('ip', args, /ready/);
      try {
        let asked = 0;
        /** Has scapy send one packet in a VLAN, by a packet in VLAN 5; resolves to what comes. */
        const answer = async (vlan: number, waitMs: number): Promise<Arrival[]> => {
          send(port, 4, Uint8Array.of(vlan >>> 8, vlan & 0xff), VLAN, 0x6005);
          await said(peer, new RegExp(`(took 5 3 right\\n.*){${++asked}}`, 's'));
          return await receive(port, 4, 100, waitMs);
        };
        const check = (arrivals: readonly Arrival[], tag: number): void => {
          assert.is(arrivals.length, 1, `VLAN ${tag}`);
          const [{ flags, tag: found, data, bytes }] = arrivals as [Arrival];
          assert.equal([flags & VLAN, found], [VLAN, tag]);
          assert.equal(data, answerOf(100));
          assert.is(bytes.length, 14 + 28 + 100, 'no tag in the bytes');
        };
        // A device that was told one thing goes by all of it: the address, too.
        await port.control.setMacAddress(Uint8Array.of(2, 0, 0, 0, 0, 2));
        await port.control.setVlan(5, true);
        check(await answer(5, LIMIT_MS), 5);
        assert.is((await answer(4094, 300)).length, 0, 'the other one is not on');
        await port.control.setVlanFilter(false);
        check(await answer(4094, LIMIT_MS), 4094);
        await port.control.setVlanFilter(true);
        assert.is((await answer(4094, 300)).length, 0, 'the filter is on again');
        await port.control.setVlan(5, false);
        assert.is((await answer(5, 300)).length, 0);
      } finally {
        await peer.stop();
      }
    },
  ));

test.run();
