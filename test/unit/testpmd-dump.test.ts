/** What `set verbose` shows of packets, word for word as dpdk-testpmd 22.11 does. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { PacketDump } from '../../driver/cli/testpmd/lcore/packet-dump.js';
import { Burst } from '../../driver/memory/burst.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { createPool } from '../../driver/net/create-pool.js';
import { fromHex } from '../support/forward-engine.js';
import { modePackets } from '../support/mode-packets.js';

const test = suite('testpmd dump');

const UNKNOWN = 'RTE_MBUF_F_RX_L4_CKSUM_UNKNOWN RTE_MBUF_F_RX_IP_CKSUM_UNKNOWN RTE_MBUF_F_RX_OUTER_L4_CKSUM_UNKNOWN ';

/** What is shown of packets, received or sent, with the fields that `prepare` sets. */
function shown(packets: readonly Uint8Array[], isSent: boolean, prepare?: (fields: Uint32Array, at: number) => void) {
  const pool = createPool({ size: 64, bufferBytes: 2176, pages: '4K' });
  let text = '';
  const dump = new PacketDump(pool, 3, (more) => {
    text += more;
  });
  const burst = new Burst(pool, 32);
  for (const packet of packets) {
    burst.allocate(1);
    burst.bytes(burst.count - 1).fill(packet);
    prepare?.(pool.fields, burst.handles[burst.count - 1]! * PacketField.WORDS);
  }
  if (isSent) dump.sending(burst, 2);
  else dump.received(burst, 0, 2);
  pool.memory.close();
  return text;
}

/** Of each packet that was received: what it is and how long its headers are. */
const types = (packets: readonly Uint8Array[]): string[] =>
  Array.from(shown(packets, false).matchAll(/ - (sw ptype: .*) - Receive/g), ([, type]) => type!);

test('a packet that was received', () => {
  assert.is(
    shown([modePackets[0]!], false),
    'port 3/queue 2: received 1 packets\n' +
      '  src=00:11:22:33:44:55 - dst=66:77:88:99:AA:BB - pool=mb_pool_0 - type=0x0800 - length=53 - nb_segs=1 - ' +
      'sw ptype: L2_ETHER L3_IPV4 L4_UDP  - l2_len=14 - l3_len=20 - l4_len=8 - Receive queue=0x2\n' +
      `  ol_flags: ${UNKNOWN}\n`,
  );
});

test('a packet with a hash, a tag that was taken out and right checksums', () => {
  const text = shown([modePackets[0]!], false, (fields, at) => {
    fields[at + PacketField.FLAGS] = PacketFlag.HASH | PacketFlag.VLAN | PacketFlag.CHECKSUM_VALID;
    fields[at + PacketField.HASH] = 0xabcd;
    fields[at + PacketField.VLAN_AND_PORT] = 0x123;
  });
  assert.match(text, 'nb_segs=1 - RSS hash=0xabcd - RSS queue=0x2 - VLAN tci=0x123 - sw ptype');
  assert.match(
    text,
    'ol_flags: RTE_MBUF_F_RX_VLAN RTE_MBUF_F_RX_RSS_HASH RTE_MBUF_F_RX_L4_CKSUM_GOOD ' +
      'RTE_MBUF_F_RX_IP_CKSUM_UNKNOWN RTE_MBUF_F_RX_VLAN_STRIPPED RTE_MBUF_F_RX_OUTER_L4_CKSUM_UNKNOWN \n',
  );
});

test('a packet that is sent, with a tag to put in and a checksum to make', () => {
  const text = shown([modePackets[1]!], true, (fields, at) => {
    fields[at + PacketField.FLAGS] = PacketFlag.VLAN | PacketFlag.NEEDS_CHECKSUM;
    fields[at + PacketField.CHECKSUM] = 34 | (16 << 16);
  });
  assert.match(text, /^port 3\/queue 2: sent 1 packets\n.* - Send queue=0x2\n/);
  assert.match(text, '  ol_flags: RTE_MBUF_F_TX_VLAN RTE_MBUF_F_TX_TCP_CKSUM \n');
  assert.match(shown([modePackets[1]!], true), '  ol_flags: RTE_MBUF_F_TX_L4_NO_CKSUM \n');
});

test('types of packets: tags, extensions, fragments, tunnels, and what is cut off', () => {
  const ethernet = '667788990011223344550000';
  const extended = `86dd6000000000101140${'00'.repeat(32)}`.replace('1140', '0040');
  assert.equal(types([modePackets[2]!, modePackets[3]!, modePackets[5]!, modePackets[6]!]), [
    'sw ptype: L2_ETHER_VLAN L3_IPV4 L4_TCP  - l2_len=18 - l3_len=20 - l4_len=20',
    'sw ptype: L2_ETHER_QINQ L3_IPV4 L4_UDP  - l2_len=22 - l3_len=20 - l4_len=8',
    'sw ptype: L2_ETHER L3_IPV6 L4_TCP  - l2_len=14 - l3_len=40 - l4_len=20',
    'sw ptype: L2_ETHER  - l2_len=14',
  ]);
  assert.equal(types([modePackets[13]!, modePackets[14]!, modePackets[15]!]), [
    'sw ptype: L2_ETHER L3_IPV4_EXT L4_UDP  - l2_len=14 - l3_len=24 - l4_len=8',
    'sw ptype: L2_ETHER L3_IPV4 L4_SCTP  - l2_len=14 - l3_len=20 - l4_len=12',
    'sw ptype: L2_ETHER L3_IPV4  - l2_len=14 - l3_len=20',
  ]);
  assert.equal(types([modePackets[17]!, modePackets[18]!]), [
    'sw ptype: L2_ETHER L3_IPV4 TUNNEL_GRE INNER_L3_IPV4 INNER_L4_UDP  - l2_len=14 - l3_len=20 - tunnel_len=4 - inner_l3_len=20 - inner_l4_len=8',
    'sw ptype: L2_ETHER L3_IPV4 TUNNEL_IP INNER_L3_IPV4 INNER_L4_UDP  - l2_len=14 - l3_len=20 - tunnel_len=0 - inner_l3_len=20 - inner_l4_len=8',
  ]);
  assert.equal(
    types([
      fromHex(`${ethernet}${extended}1100000000000000 00010002 00080000`),
      fromHex(`${ethernet}0800 4500001c00002000 4011 0000 0a0000010a000002 0001000200080000`),
      fromHex(`${ethernet}0800 45`),
      fromHex('00'),
    ]),
    [
      'sw ptype: L2_ETHER L3_IPV6_EXT L4_UDP  - l2_len=14 - l3_len=48 - l4_len=8',
      'sw ptype: L2_ETHER L3_IPV4 L4_FRAG  - l2_len=14 - l3_len=20 - l4_len=0',
      'sw ptype: L2_ETHER  - l2_len=14',
      'sw ptype: UNKNOWN',
    ],
  );
});

test.run();
