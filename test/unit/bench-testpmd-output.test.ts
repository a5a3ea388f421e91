/** What testpmd prints, as DPDK 22.11 printed it: read into numbers. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { parsePortInfo, parsePortStats } from '../../bench/testpmd-output.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';

const test = suite('testpmd output');

const STATS = `
  ######################## NIC statistics for port 0  ########################
  RX-packets: 20215520   RX-missed: 3          RX-bytes:  1293793280
  RX-errors: 1
  RX-nombuf:  2         
  TX-packets: 20216544   TX-errors: 4          TX-bytes:  1293858816

  Throughput (since last show)
  Rx-pps:     10215782          Rx-bps:   5230480552
  Tx-pps:     10215814          Tx-bps:   5230496856
  ############################################################################

  ######################## NIC statistics for port 11 ########################
  RX-packets: 1          RX-missed: 0          RX-bytes:  64
  RX-errors: 0
  RX-nombuf:  0         
  TX-packets: 0          TX-errors: 0          TX-bytes:  0

  Throughput (since last show)
  Rx-pps:            0          Rx-bps:            0
  Tx-pps:            0          Tx-bps:            0
  ############################################################################
`;

const INFO = `
********************* Infos for port 0  *********************
MAC address: 56:48:4F:53:54:00
Device name: net_vhost0
Devargs: iface=/tmp/s,queues=1,client=0
Link status: down
VLAN offload: 
  strip off, filter off, extend off, qinq strip off
No RSS offload flow type is supported.
Device capabilities: 0x0( )

********************* Infos for port 1  *********************
MAC address: 00:01:02:03:04:05
Link status: up
`;

test('every number of every port is read', () => {
  const [first, second, ...more] = parsePortStats(STATS);
  assert.equal(first, {
    port: 0,
    rxPackets: 20215520,
    rxMissed: 3,
    rxBytes: 1293793280,
    rxErrors: 1,
    rxNombuf: 2,
    txPackets: 20216544,
    txErrors: 4,
    txBytes: 1293858816,
    rxPps: 10215782,
    rxBps: 5230480552,
    txPps: 10215814,
    txBps: 5230496856,
  });
  assert.is(second?.port, 11);
  assert.is(second?.rxPackets, 1, 'a port does not borrow the numbers of another');
  assert.equal(more, []);
});

test('output without a port has no statistics', () => {
  assert.equal(parsePortStats('Command not found\n'), []);
});

test('a block that lacks a number is refused, and the number named', () => {
  const cut = STATS.slice(0, STATS.indexOf('Throughput'));
  try {
    parsePortStats(cut);
    assert.unreachable();
  } catch (error) {
    assert.ok(error instanceof VirtioError);
    assert.is(error.code, ErrorCode.BAD_FORMAT);
    assert.match(error.message, 'Rx-pps');
  }
});

test('information is read by the names that testpmd gives', () => {
  const [first, second] = parsePortInfo(INFO);
  assert.is(first?.port, 0);
  assert.is(first?.fields.get('MAC address'), '56:48:4F:53:54:00');
  assert.is(first?.fields.get('Devargs'), 'iface=/tmp/s,queues=1,client=0');
  assert.is(first?.fields.get('VLAN offload'), '');
  assert.is(second?.fields.get('MAC address'), '00:01:02:03:04:05');
  assert.is(second?.fields.get('Devargs'), undefined, 'a port does not borrow the fields of another');
});

test.run();
