/** The golden test's masks: what they hide, and that nothing else escapes the comparison. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { masked } from '../support/golden-masks.js';

const test = suite('testpmd, golden masks');

test('lines of the environment are gone, however many there are', () => {
  const dpdk = "EAL: Detected CPU lcores: 2\nEAL: Selected IOVA mode 'VA'\ntestpmd> quit\r\n";
  assert.is(masked(dpdk), 'testpmd> quit\n');
});

test('counters may differ, their columns may not', () => {
  const line = (packets: string): string =>
    `  RX-packets: ${packets.padEnd(14)} RX-dropped: ${'0'.padEnd(14)}RX-total: ${packets}`;
  assert.is(masked(line('7')), masked(line('123456')));
  assert.is.not(masked(line('7')), masked('  RX-packets: 7 RX-dropped: 0 RX-total: 7'));
});

test('a line that DPDK says twice may be said once; one that we say twice is seen', () => {
  const twice = 'testpmd: invalid\ntestpmd: invalid\n';
  assert.is(masked(twice, true), 'testpmd: invalid\n');
  assert.is(masked(twice), twice);
});

test('addresses that a driver made up may differ, those of peers may not', () => {
  assert.is(masked('Port 0: 3E:59:24:34:74:E5'), masked('Port 0: DA:C0:A5:6D:A1:01'));
  assert.is.not(masked('peer=02:00:00:00:00:01'), masked('peer=02:00:00:00:00:02'));
});

test('any other word or number that differs is seen', () => {
  for (const [one, other] of [
    ['Number of packets per burst set to 16', 'Number of packets per burst set to 17'],
    ['Bad arguments', 'Command not found'],
    ['  port 0: RX queue number: 1 Tx queue number: 1', '  port 0: RX queue number: 2 Tx queue number: 1'],
    ['Checking link statuses...\nDone', 'Done'],
    ['Port 0 is now not stopped', 'Port 1 is now not stopped'],
    ['MTU: 1500', 'MTU: 1400'],
    ['Set link up fail.', '\nSet link up fail.'],
  ] as const) {
    assert.is.not(masked(one), masked(other), one);
  }
});

test.run();
