/** What a device tells of itself, and what becomes of the port: link, announcement, break and recovery, removal. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { NO_VECTOR, virtioPciCommonCfg } from '../../driver/spec/pci.js';
import { EventBench, onEventBench } from '../support/guest-events-device.js';
import { until } from '../support/until.js';

const test = suite('events of a port');
export const timeBoundSeconds = 400;
const registers = virtioPciCommonCfg.fields;

async function errorOf(promise: Promise<unknown>): Promise<VirtioError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof VirtioError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

/** Sends and receives until packets have come back; returns how many were sent. */
async function echoes(bench: EventBench, packets = 100): Promise<number> {
  let received = 0;
  let sent = 0;
  await until(() => {
    sent += bench.send(8);
    received += bench.receive();
    return received >= packets;
  }, `${packets} packets come back`);
  return sent;
}

/** With interrupts alone: nobody looks by himself. */
const blind = (bench: EventBench): void => {
  Object.assign(bench.transport, { checkEvents: () => undefined });
};

test(
  'link down and up are told by the interrupt, each once',
  onEventBench({}, async (bench) => {
    blind(bench);
    assert.is(bench.port.interrupts, 'msix');
    assert.is(bench.port.linkUp, true);
    for (let round = 1; round <= 3; round++) {
      bench.setLink(false);
      await bench.log.until('link down', round);
      assert.is(bench.port.linkUp, false);
      bench.setLink(true);
      await bench.log.until('link up', 1 + round);
    }
    assert.equal(bench.log.events, ['link up', ...Array.from({ length: 3 }, () => ['link down', 'link up']).flat()]);
    assert.is(bench.port.state, 'started');
    await echoes(bench);
    assert.equal(bench.fn.violations, []);
  }),
);

for (const [name, options] of [
  ['a device without MSI-X', { vectors: 0 }],
  ['a port that wants no interrupts', { interrupts: 'none' }],
  [
    'virtio 1.2 §4.1.5.1.2.2: a device that refuses the vector (NO_VECTOR)',
    { faults: answers(registers.config_msix_vector, NO_VECTOR) },
  ],
] as const) {
  test(
    `${name}: the link is looked at`,
    onEventBench(options, async (bench) => {
      bench.setLinkQuietly(false);
      await bench.log.until('link down');
      bench.setLinkQuietly(true);
      await bench.log.until('link up', 2);
      await echoes(bench);
    }),
  );
}

function answers(register: { readonly offset: number }, value: number) {
  return {
    onRead: (region: string, offset: number, honest: number) =>
      region === 'common' && offset === register.offset ? value : honest,
  };
}

test('a queue vector that reads back NO_VECTOR is a refusal: UNSUPPORTED where it was asked for, else not asked', async () => {
  const faults = answers(registers.queue_msix_vector, NO_VECTOR);
  {
    await using bench = await EventBench.open({ faults, interrupts: 'receive' });
    const error = await errorOf(bench.port.start());
    assert.is(error.code, ErrorCode.UNSUPPORTED);
    assert.is(error.requirement, 'virtio 1.2 §4.1.5.1.2.2');
    assert.is(bench.port.state, 'stopped');
  }
  await using bench = await EventBench.open({ faults });
  await bench.port.start();
  await echoes(bench);
});

test('abuse-D20: the link is down at the start, and polling works all the same', async () => {
  await using bench = await EventBench.open();
  bench.setLinkQuietly(false);
  await bench.port.start();
  assert.equal(bench.log.events, ['link down']);
  assert.is(bench.port.linkUp, false);
  await echoes(bench);
  bench.setLink(true);
  await bench.log.until('link up');
});

test(
  'abuse-D20: a status that flaps with an interrupt each is read one at a time, and the last one counts',
  onEventBench({}, async (bench) => {
    let readings = 0;
    const { readConfig } = bench.transport;
    bench.transport.readConfig = (offset, bytes) => {
      readings++;
      return readConfig.call(bench.transport, offset, bytes);
    };
    for (let flap = 0; flap < 2000; flap++) bench.setLink(flap % 2 === 1);
    bench.setLink(false);
    await bench.log.until('link down');
    await until(() => !bench.port.linkUp, 'the link is down');
    assert.ok(readings < 20, `${readings} readings`);
  }),
);

test(
  'virtio 1.2 §5.1.6.5.4: an announcement is told once and acknowledged by itself, again and again',
  onEventBench({}, async (bench) => {
    for (let round = 1; round <= 3; round++) {
      let wanted = false;
      bench.port.once('announce', () => {
        wanted = bench.wantsAnnouncement;
      });
      assert.ok(bench.device.announce());
      await bench.log.until('announce', round);
      assert.ok(wanted, 'the device is told after the listeners were');
      await until(() => !bench.wantsAnnouncement, 'the device was told');
    }
    assert.is(bench.log.count('announce'), 3);
    assert.equal(bench.fn.violations, []);
  }),
);

test(
  'an acknowledgement that never comes: told once, and traffic goes on',
  onEventBench({ vectors: 0 }, async (bench) => {
    await bench.device.enableRing(2, false);
    await bench.device.stopRing(2);
    assert.ok(bench.device.announce());
    await bench.log.until('announce');
    await echoes(bench);
    bench.setLinkQuietly(false);
    await bench.log.until('link down');
    assert.is(bench.log.count('announce'), 1);
    assert.is(bench.port.state, 'started');
  }),
);

test(
  'abuse-D15: a device that asks for a reset is a fault, unless it is to be recovered',
  onEventBench({}, async (bench) => {
    const { available } = bench.port.pool;
    bench.port.rxQueue(0);
    bench.break();
    await bench.log.until('fault DEVICE_BROKEN');
    assert.equal(bench.log.events, ['link up', 'needs-reset', 'link down', 'fault DEVICE_BROKEN']);
    assert.is(bench.port.pool.available, available);
    assert.is(bench.port.recoveries, 0);
  }),
);

test(
  'abuse-D15: with recover the device comes back with the same queues, what was in flight is counted, no buffer is lost',
  onEventBench({ recover: true }, async (bench) => {
    const { port, log } = bench;
    const rx = port.rxQueue(0);
    const tx = port.txQueue(0);
    const held = port.pool.available;
    let sent = 0;
    for (let round = 1; round <= 3; round++) {
      sent += await echoes(bench);
      // Sent to a device that does not take them any more.
      await bench.device.stopRing(1);
      assert.is(bench.send(5), 5);
      sent += 5;
      bench.break();
      await log.until('recovered', round);
      assert.is(port.recoveries, round);
      assert.is(port.rxQueue(0), rx);
      assert.is(port.txQueue(0), tx);
      assert.is(port.state, 'started');
      assert.is(port.pool.available, held, 'every buffer is where it was');
    }
    sent += await echoes(bench);
    const [counters] = port.statistics().tx;
    assert.is(counters!.packets, sent);
    assert.ok(counters!.drops.lostInFlight >= 15, `${counters!.drops.lostInFlight} lost`);
    const events = ['needs-reset', 'link down', 'link up', 'recovered'];
    assert.equal(log.events, ['link up', ...events, ...events, ...events]);
    assert.equal(bench.fn.violations, []);
  }),
);

test(
  'abuse-D15: a device that breaks again and again is given up',
  onEventBench({ recover: true }, async (bench) => {
    bench.port.on('recovered', () => bench.break());
    bench.break();
    await bench.log.until('fault DEVICE_BROKEN');
    assert.is(bench.port.state, 'failed');
    assert.is(bench.port.recoveries, 8);
    assert.is(bench.log.count('recovered'), 8);
  }),
);

test(
  'a live device whose status reads 0 was reset by somebody else: it is recovered too',
  onEventBench({ recover: true, vectors: 0 }, async (bench) => {
    bench.fn.reset();
    await bench.log.until('recovered');
    await echoes(bench);
  }),
);

test('abuse-D16: registers that read all ones in mid-traffic: a fault, no hang, and close succeeds', async () => {
  for (const vectors of [0, 3]) {
    let isGone = false;
    const faults = {
      onRead: (_region: string, _offset: number, value: number) => (isGone ? 0xffff_ffff : value),
      onWrite: (_region: string, _offset: number, value: number) => (isGone ? undefined : value),
    };
    await using bench = await EventBench.open({ vectors, faults, recover: true });
    await bench.port.start();
    const { available } = bench.port.pool;
    await echoes(bench);
    isGone = true;
    bench.send(8);
    await bench.log.until('fault PEER_GONE');
    assert.is(bench.port.state, 'failed');
    assert.is(bench.send(8), 0, 'nothing is sent any more');
    assert.is(bench.receive(), 0);
    assert.ok(bench.port.pool.available >= available);
    await bench.port.close();
    assert.is(bench.port.state, 'closed');
  }
});

test(
  'the machine takes the device away in mid-traffic: it is given back at once, the error says so, the port ends',
  onEventBench({ recover: true, reconnect: true }, async (bench) => {
    await echoes(bench);
    const fault = new Promise<VirtioError>((resolve) => bench.port.once('fault', resolve));
    bench.send(8);
    bench.unplug();
    const error = await fault;
    assert.is(error.code, ErrorCode.PEER_GONE);
    assert.match(error.toLine(), /is being unplugged \(close the port/);
    // The machine waits for this.
    await bench.fn.closed;
    assert.throws(() => bench.fn.readConfig16(0), /closed/);
    assert.is(bench.port.state, 'failed');
    assert.is(bench.send(8), 0);
    assert.is(bench.receive(), 0);
    assert.is(await errorOf(bench.port.start()), error, 'it cannot be started any more');
    await bench.port.close();
    await bench.port.close();
  }),
);

test('a device that is taken away from a stopped port, and twice, is given back as well', async () => {
  await using bench = await EventBench.open();
  bench.unplug();
  await bench.log.until('fault PEER_GONE');
  bench.unplug();
  await bench.fn.closed;
  await bench.port.stop();
  assert.is((await errorOf(bench.port.start())).code, ErrorCode.PEER_GONE);
});

test.run();
