/** No packet, whatever its bytes and headers say, makes a forward engine of testpmd throw or lose a buffer. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { forwardModes, type PortForwardSettings, TxOffload } from '../../driver/cli/testpmd/lcore/forward-settings.js';
import { EngineBench, fromHex, plainPort, RX_PORT, TX_PORT, toHex } from '../support/forward-engine.js';
import { modePackets } from '../support/mode-packets.js';

const test = suite('testpmd engines, any packet');

const SHORTEST = 14;
const LONGEST = 200;
const MUTATIONS = 8;

const left = TxOffload.IPV4_CKSUM | TxOffload.UDP_CKSUM | TxOffload.TCP_CKSUM;
const outer = TxOffload.OUTER_IPV4_CKSUM | TxOffload.OUTER_UDP_CKSUM;
const ways: Readonly<Record<string, Partial<PortForwardSettings>>> = {
  'sums made here': {},
  'tunnels parsed': { parsesTunnels: true },
  'tunnels parsed, sums left to the port': { parsesTunnels: true, txOffloads: left | outer },
  'tunnels parsed, segments': { parsesTunnels: true, tsoSegmentBytes: 8, tunnelTsoSegmentBytes: 8 },
};

/** GTP, VXLAN, VXLAN-GPE and Geneve. */
const tunnelPorts = [2123, 2152, 4789, 4790, 6081];
const IPV4 = '0800 45000060000100004011 0000 0a000001 0a000002';
const IPV6 = '86dd 6000000000601140 fe800000000000000000000000000001 fe800000000000000000000000000002';
/** Each over IPv4 and IPv6. */
const tunnels = tunnelPorts.flatMap((port) =>
  [IPV4, IPV6].map((ip) =>
    fromHex(`66778899aabb 001122334455 ${ip} 1234 ${port.toString(16).padStart(4, '0')} 0060 1234 04ff0800 00000058
      66778899aabb 001122334455 ${IPV4} 0005 0006 0008 ffff ${'45'.repeat(60)}`),
  ),
);
/** Where IHL is 1 or 2, the end of the IPv4 header is read as UDP to a GTP port with neither IPv4 nor IPv6 inside. */
const shortHeaders = [
  `41000020 00010868 4011ffff 08ff0001 0a00ffff 50000008 ${'ff'.repeat(8)}`,
  `42000020 00010000 40110868 0a000001 08ffffff ffffffff 50000008 ${'ff'.repeat(12)}`,
].map((ip) => fromHex(`66778899aabb 001122334455 0800 ${ip}`));
const seeds = [...modePackets, ...tunnels, ...shortHeaders];

/** A generator with a seed (mulberry32): the same packets in each run. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let word = Math.imul(state ^ (state >>> 15), state | 1);
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
    return ((word ^ (word >>> 14)) >>> 0) % below;
  };
}

/** One of the seeds cut or lengthened to `length`, with some bytes of its headers changed; one in four all noise. */
function anyPacket(length: number, below: (bound: number) => number): Uint8Array {
  const packet = Uint8Array.from({ length }, () => below(256));
  if (below(4) === 0) {
    packet.set(fromHex(below(2) === 0 ? '0800' : '86dd'), 12);
    return packet;
  }
  packet.set(seeds[below(seeds.length)]!.subarray(0, length));
  for (let change = below(5); change > 0; change--) packet[12 + below(Math.min(length - 12, 70))] = below(256);
  // IHL, which is too short in half of the packets.
  if (below(2) === 0 && length > 14 && packet[12] === 8) packet[14] = 0x40 | below(8);
  return packet;
}

for (const mode of forwardModes) {
  for (const [name, way] of Object.entries(ways)) {
    test(`${mode}, ${name}: packets of ${SHORTEST} to ${LONGEST} bytes`, () => {
      const below = random(forwardModes.indexOf(mode) + 1);
      const port = { ...plainPort, ...way };
      const ports = new Map([
        [RX_PORT, port],
        [TX_PORT, port],
      ]);
      const bench = new EngineBench({ mode, ports, burst: 1, verbose: 1 });
      for (let length = SHORTEST; length <= LONGEST; length++) {
        for (let mutation = 0; mutation < MUTATIONS; mutation++) {
          const packet = anyPacket(length, below);
          try {
            bench.run([packet]);
          } catch (error) {
            assert.unreachable(`${error} for ${toHex(packet)}`);
          }
        }
        bench.text = '';
      }
      bench.engine.close?.();
      assert.is(bench.missing, 0, 'no buffer is lost');
      bench.pool.memory.close();
    });
  }
}

test('csum makes no UDP sum behind an IPv4 header that says it is shorter than one (RFC 791 §3.1: IHL is at least 5)', () => {
  const port = { ...plainPort, parsesTunnels: true };
  const ports = new Map([
    [RX_PORT, port],
    [TX_PORT, port],
  ]);
  for (const packet of shortHeaders) {
    const bench = new EngineBench({ mode: 'csum', ports });
    assert.is(bench.run([packet]).length, 1);
    assert.is(bench.missing, 0);
    bench.close();
  }
});

test.run();
