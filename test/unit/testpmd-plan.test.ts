/** Which streams testpmd's topologies make, and which lcore gets which: as dpdk-testpmd's `show config fwd` tells. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  echoPlanText,
  type ForwardPlan,
  type ForwardShape,
  planForwarding,
} from '../../driver/cli/testpmd/forward-plan.js';

const test = suite('testpmd plan');

const plain: ForwardShape = { forwardMode: 'io', topology: 'paired', rxQueues: 1, txQueues: 1 };

/** `P0/Q0>P1/Q0` of each stream, by lcore. */
const drawn = (plan: ForwardPlan): string[] =>
  plan.lcores.map(({ lcore, streams }) => {
    const rows = streams.map(({ rxPort, rxQueue, txPort, txQueue }) => `P${rxPort}/Q${rxQueue}>P${txPort}/Q${txQueue}`);
    return `${lcore}: ${rows.join(' ')}`;
  });

test('paired: two and two ports forward to each other, the last of an odd number to itself', () => {
  assert.equal(drawn(planForwarding(plain, [0, 1, 2], [1])), ['1: P0/Q0>P1/Q0 P1/Q0>P0/Q0 P2/Q0>P2/Q0']);
  assert.ok(planForwarding(plain, [0, 1, 2], [1]).pairsWithItself);
  assert.not.ok(planForwarding(plain, [0, 1], [1]).pairsWithItself);
});

test('chained: each port forwards to the next; loop: to itself; ports are in the order of the port list', () => {
  const chained = planForwarding({ ...plain, topology: 'chained' }, [4, 0, 2], [1]);
  assert.equal(drawn(chained), ['1: P4/Q0>P0/Q0 P0/Q0>P2/Q0 P2/Q0>P4/Q0']);
  assert.equal(drawn(planForwarding({ ...plain, topology: 'loop' }, [0, 1], [1])), ['1: P0/Q0>P0/Q0 P1/Q0>P1/Q0']);
});

test('several queues: queue by queue, as many as both directions have; one queue where a direction has one', () => {
  const shape = { ...plain, rxQueues: 3, txQueues: 2 };
  assert.equal(drawn(planForwarding(shape, [0, 1], [1])), ['1: P0/Q0>P1/Q0 P1/Q0>P0/Q0 P0/Q1>P1/Q1 P1/Q1>P0/Q1']);
  assert.is(planForwarding({ ...plain, rxQueues: 4 }, [0, 1], [1]).streams.length, 2);
});

test('streams are dealt out in rows; the last lcores get one more, and no more lcores are used than there are streams', () => {
  const shape = { ...plain, rxQueues: 5, txQueues: 5, topology: 'loop' } as const;
  assert.equal(
    planForwarding(shape, [0], [3, 5]).lcores.map(({ lcore, streams }) => [lcore, streams.length]),
    [
      [3, 2],
      [5, 3],
    ],
  );
  assert.equal(drawn(planForwarding(plain, [0, 1], [1, 2, 3])), ['1: P0/Q0>P1/Q0', '2: P1/Q0>P0/Q0']);
});

test('icmpecho: port by port, each queue back to itself, and what verbose tells of it', () => {
  const plan = planForwarding({ ...plain, forwardMode: 'icmpecho', rxQueues: 2, txQueues: 2 }, [0, 1], [1, 2]);
  assert.equal(drawn(plan), ['1: P0/Q0>P0/Q0 P0/Q1>P0/Q1', '2: P1/Q0>P1/Q0 P1/Q1>P1/Q1']);
  assert.is(
    echoPlanText(plan),
    [
      'icmp_echo_config_setup fwd_cores=2 fwd_ports=2 fwd_streams=4',
      '  core=0: ',
      '  stream=0 port=0 rxq=0 txq=0',
      '  stream=1 port=0 rxq=1 txq=1',
      '  core=1: ',
      '  stream=0 port=1 rxq=0 txq=0',
      '  stream=1 port=1 rxq=1 txq=1',
      '',
    ].join('\n'),
  );
});

test('without ports there is nothing to forward', () => {
  assert.equal(planForwarding(plain, [], [1]).lcores, []);
});

test.run();
