/** The recorder of packets and of commands names the rule that a trace breaks, and no other. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ControlAck } from '../../driver/spec/control.js';
import { Feature } from '../../driver/spec/features.js';
import { GsoFlag, GsoType, NetHeaderFlag } from '../../driver/spec/net-header.js';
import { namesOver } from '../support/spec/named-traces.js';
import { packetOf, type RawStandOptions, SplitStand } from '../support/spec/raw-stand.js';

const test = suite('recorder of packets and commands');
const names = namesOver(test, SplitStand);
const { NEEDS_CSUM, DATA_VALID, RSC_INFO } = NetHeaderFlag;
const { MRG_RXBUF, CSUM, HOST_TSO4, GUEST_HDRLEN, GUEST_CSUM, GUEST_TSO4, RSC_EXT } = Feature;
const { CTRL_VQ, MQ, RSS, CTRL_GUEST_OFFLOADS, CTRL_MAC_ADDR, GUEST_ANNOUNCE } = Feature;

const receive: RawStandOptions = { kind: 'receive' };
const merged: RawStandOptions = { kind: 'receive', features: [MRG_RXBUF] };
const control = (...features: Feature[]): RawStandOptions => ({ kind: 'control', features: [CTRL_VQ, ...features] });

/** A TCP segment of 20 bytes of header and 40 of data, its checksum field the sum of the pseudo header. */
function tcpFrame(): Uint8Array {
  const frame = new Uint8Array(94);
  frame.set([8, 0, 0x45, 0, 0, 80], 12);
  frame[23] = 6;
  frame.set([10, 0, 0, 1, 10, 0, 0, 2], 26);
  frame[46] = 0x50;
  const sum = 6 + 60 + 0x0a00 + 1 + 0x0a00 + 2;
  frame.set([sum >>> 8, sum & 0xff], 50);
  return frame;
}

/** A packet to be sent whose checksum is left to the device. */
function partial(
  header: Partial<Record<'flags' | 'gso' | 'hdrLen' | 'gsoSize' | 'start' | 'offset', number>>,
): Uint8Array {
  const { flags = NEEDS_CSUM, gso = 0, hdrLen = 0, gsoSize = 0, start = 34, offset = 16 } = header;
  const head = [flags, gso, hdrLen, 0, gsoSize, 0, start, 0, offset, 0, 0, 0];
  return Uint8Array.from([...head, ...tcpFrame()]);
}

names('D32', 'num_buffers', {}, (s) => {
  s.send(0, packetOf(60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1));
  s.driver();
});

names('D32', 'flags without CSUM', {}, (s) => {
  s.send(0, partial({}));
  s.driver();
});

names('D33', 'DATA_VALID', { features: [CSUM] }, (s) => {
  s.send(0, packetOf(60, DATA_VALID));
  s.driver();
});

names('D33', 'segmentation that was not accepted', { features: [CSUM] }, (s) => {
  s.send(0, partial({ gso: GsoType.TCPV4, gsoSize: 20 }));
  s.driver();
});

names('D33', 'segments of no bytes', { features: [CSUM, HOST_TSO4] }, (s) => {
  s.send(0, partial({ gso: GsoType.TCPV4 }));
  s.driver();
});

names('D33', 'segmentation without NEEDS_CSUM', { features: [CSUM, HOST_TSO4] }, (s) => {
  s.send(0, partial({ flags: 0, gso: GsoType.TCPV4, gsoSize: 20 }));
  s.driver();
});

names('D33', 'ECN without HOST_ECN', { features: [CSUM, HOST_TSO4] }, (s) => {
  s.send(0, partial({ gso: GsoType.TCPV4 | GsoFlag.ECN, gsoSize: 20 }));
  s.driver();
});

names('D34', 'csum_start', { features: [CSUM] }, (s) => {
  s.send(0, partial({ start: 32 }));
  s.driver();
});

names('D34', 'a checksum behind the packet', { features: [CSUM] }, (s) => {
  s.send(0, partial({ offset: 200 }));
  s.driver();
});

names('D34', 'no sum of the pseudo header', { features: [CSUM] }, (s) => {
  const packet = partial({});
  packet[12 + 51]! ^= 1;
  s.send(0, packet);
  s.driver();
});

names('D34', 'hdr_len with GUEST_HDRLEN', { features: [CSUM, HOST_TSO4, GUEST_HDRLEN] }, (s) => {
  s.send(0, partial({ gso: GsoType.TCPV4, gsoSize: 20, hdrLen: 50 }));
  s.driver();
});

names('D35', 'small buffers without MRG_RXBUF', receive, (s) => {
  s.post(0, 1525);
  s.driver();
});

names('D35', 'buffers for no segments', { ...receive, features: [GUEST_CSUM, Feature.GUEST_TSO4] }, (s) => {
  s.post(0);
  s.driver();
});

names('D37', 'a packet above the MTU', { mtu: 1000 }, (s) => {
  s.send(0, packetOf(1019));
  s.driver();
});

names('D39', 'a packet on a pair that is off', { ring: 3, activePairs: 1 }, (s) => {
  s.send(0);
  s.driver();
});

names('D40', 'a table of three entries', control(RSS), (s) =>
  s.command(4, 1, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0),
);

names('D42', 'an offload that was not accepted', control(CTRL_GUEST_OFFLOADS), (s) =>
  s.command(5, 0, 2, 0, 0, 0, 0, 0, 0, 0),
);

names('D39', 'no pairs at all', control(MQ), (s) => s.command(4, 0, 0, 0));

names('D40', 'a queue that there is not', control(RSS), (s) => s.command(4, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0));

names('D40', 'a hash that there is not', control(RSS), (s) => s.command(4, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0));

names('D41', 'a command without its feature', control(), (s) => s.command(4, 0, 1, 0));

names('E12', 'num_buffers 2 without MRG_RXBUF', receive, (s) => {
  s.post(0);
  s.post(1);
  s.driver();
  s.deliver(0, packetOf(2036, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2));
  s.deliver(1, packetOf(60));
  s.device();
});

names('E12', 'half a packet', merged, (s) => {
  s.post(0);
  s.post(1);
  s.driver();
  s.deliver(0, packetOf(2036, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2));
  s.device();
});

names('E12', 'a first buffer that is not full', merged, (s) => {
  s.post(0);
  s.post(1);
  s.driver();
  s.deliver(0, packetOf(1000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2));
  s.deliver(1, packetOf(60));
  s.device();
});

names('E13', 'flags without GUEST_CSUM', merged, (s) => {
  s.post(0);
  s.driver();
  s.deliver(0, packetOf(60, DATA_VALID, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1));
  s.device();
});

names('E13', 'segmentation that was not accepted', { ...merged, features: [MRG_RXBUF, GUEST_CSUM] }, (s) => {
  s.post(0);
  s.driver();
  s.deliver(0, packetOf(60, NEEDS_CSUM, GsoType.TCPV4, 0, 0, 20, 0, 0, 0, 0, 0, 1));
  s.device();
});

names(
  'E13',
  'segments that were joined, without RSC_EXT',
  { ...merged, features: [MRG_RXBUF, GUEST_CSUM, GUEST_TSO4] },
  (s) => {
    s.post(0);
    s.driver();
    s.deliver(0, packetOf(60, NEEDS_CSUM | RSC_INFO, GsoType.TCPV4, 0, 0, 20, 0, 2, 0, 0, 0, 1));
    s.device();
  },
);

names(
  'E13',
  'one segment that was joined',
  { ...merged, features: [MRG_RXBUF, GUEST_CSUM, GUEST_TSO4, RSC_EXT] },
  (s) => {
    s.post(0);
    s.driver();
    s.deliver(0, packetOf(60, NEEDS_CSUM | RSC_INFO, GsoType.TCPV4, 0, 0, 20, 0, 1, 0, 0, 0, 1));
    s.device();
  },
);

names('E15', 'a packet above the MTU', { ...merged, mtu: 1000 }, (s) => {
  s.post(0);
  s.driver();
  s.deliver(0, packetOf(1019, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1));
  s.device();
});

names('E17', 'ADDR_SET before the address is there', control(CTRL_MAC_ADDR), (s) => {
  s.command(1, 1, 2, 0, 0, 0, 0, 9);
  s.answer();
});

names('E17', 'ANNOUNCE behind its ACK', control(GUEST_ANNOUNCE), (s) => {
  s.state.config[6] = 3;
  s.command(3, 0);
  s.answer();
});

names('E18', 'a packet in a pair that is off', { ...merged, ring: 2, activePairs: 1 }, (s) => {
  s.post(0);
  s.driver();
  s.deliver(0, packetOf(60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1));
  s.device();
});

names('E20', 'an ack that is none', control(MQ), (s) => {
  s.command(4, 0, 1, 0);
  s.answer(7);
});

names('E20', 'no answer at all', control(MQ), (s) => {
  s.command(4, 0, 1, 0);
  s.use(0, 0);
  s.device();
});

test('E20 is named: a command that there is not, answered with OK', () => {
  const stand = new SplitStand(control(MQ));
  stand.command(4, 77, 1, 0);
  assert.equal(stand.violations.rules, [], 'of a class whose feature was accepted');
  stand.answer(ControlAck.OK);
  assert.equal(stand.violations.rules, ['E20']);
});

test('honest ends are not objected to', () => {
  const commands = new SplitStand(control(MQ));
  commands.command(4, 0, 2, 0);
  commands.answer();
  const offloads = new SplitStand({ features: [CSUM, HOST_TSO4, GUEST_HDRLEN] });
  offloads.send(0, partial({ gso: GsoType.TCPV4, gsoSize: 20, hdrLen: 54 }));
  offloads.driver();
  for (const { violations, rules } of [commands, offloads]) {
    assert.equal(violations.lines, []);
    assert.is(rules.published, 1);
  }
});

test.run();
