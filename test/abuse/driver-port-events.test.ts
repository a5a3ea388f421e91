/** A port whose device breaks, vanishes, lies about events or does not answer (abuse D15, D16, D20, D21, D32 to D36, D38). */

import { setTimeout as delay } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Feature } from '../../driver/spec/features.js';
import { NetStatus, virtioNetConfig } from '../../driver/spec/net-config.js';
import { PciCommand, pciHeader, virtioPciCommonCfg } from '../../driver/spec/pci.js';
import type { MemoryRange } from '../../driver/spec/pci-function.js';
import { Status } from '../../driver/spec/status.js';
import { PciLegacyTransport } from '../../driver/transport/pci-legacy.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { native } from '../../native/index.js';
import {
  type AbuseOptions,
  againstDevice,
  answering,
  type Bench,
  interfaces,
  isComplete,
  refusal,
  sendPackets,
} from '../support/driver-abuse.js';
import { MEMORY_ADDRESS, MEMORY_BYTES, withMemory } from '../support/fake-device-model.js';
import { until } from '../support/until.js';

const test = suite('port whose device breaks or vanishes');
const full = process.env['VIRTIO_PMD_FULL'] === '1';

const config = (device: Bench['device'], values: Parameters<typeof virtioNetConfig.write>[1]): void =>
  virtioNetConfig.write(new DataView(device.config.buffer), values);

/** One packet there and one back, both as an honest device does it. */
function exchange({ device, port }: Bench): void {
  const burst = port.burst(64);
  const [rx, tx] = [device.ring(0), device.ring(1)];
  assert.is(sendPackets(port, 1), 1);
  for (const id of tx.take()) tx.use(id, 0);
  tx.publish();
  assert.is(port.txQueue(0).reclaim() >= 1, true);
  for (const id of rx.take(1)) {
    rx.fill(id, 1);
    rx.use(id, 72);
  }
  rx.publish();
  assert.is(port.rxQueue(0).receive(burst), 1);
  burst.free();
}

for (const kind of interfaces) {
  test(`abuse-D15: DEVICE_NEEDS_RESET: the port fails, what was in flight is lost and counted, a start helps (${kind})`, () =>
    againstDevice({ kind }, async (bench) => {
      const { port, device, start, faults, links, pool, available } = bench;
      for (let round = 0; round < 3; round++) {
        await start();
        exchange(bench);
        assert.is(sendPackets(port, 4), 4);
        device.onEvent?.({ type: 'ring-broken', ring: 0, reason: 'a test' });
        await until(() => faults.length === round + 1, 'the fault');
        assert.is(port.state, 'failed');
        const error = faults[round]!;
        assert.is(error.code, ErrorCode.DEVICE_BROKEN);
        assert.match(error.message, /asks for a reset/);
        isComplete(error);
        assert.is(links.at(-1), false);
        assert.is(pool.available, available, 'every buffer is back');
        assert.is(port.statistics().tx[0]?.drops.lostInFlight, 4 * (round + 1));
        // Polling goes on as if nothing were there: no throw, nothing moves.
        const burst = port.burst(8);
        for (let poll = 0; poll < 50; poll++) assert.is(port.rxQueue(0).receive(burst), 0);
        assert.is(sendPackets(port, 4), 0);
      }
    }));

  test(`abuse-D15: with recover the port resets the device and goes on, and not for ever (${kind})`, () =>
    againstDevice({ kind, port: { recover: true } }, async (bench) => {
      const { port, device, start, faults, fn } = bench;
      let recovered = 0;
      port.on('recovered', () => recovered++);
      await start();
      device.onEvent?.({ type: 'ring-broken', ring: 0, reason: 'a test' });
      await until(() => recovered === 1, 'the recovery');
      await fn.idle;
      exchange(bench);
      const deadline = performance.now() + 60_000;
      while (faults.length === 0 && performance.now() < deadline) {
        device.onEvent?.({ type: 'ring-broken', ring: 0, reason: 'a test' });
        await delay(20);
      }
      assert.is(faults[0]?.code, ErrorCode.DEVICE_BROKEN, 'again and again is a fault');
      assert.is(port.state, 'failed');
    }));

  test(`abuse-D16: registers read all ones: the port fails as gone, and closes (${kind})`, () => {
    let isGone = false;
    return againstDevice(
      {
        kind,
        faults: {
          onRead: (_region, _offset, value) => (isGone ? 0xffff_ffff : value),
          onWrite: (_region, _offset, value) => (isGone ? undefined : value),
        },
      },
      async (bench) => {
        const { port, start, faults, pool, available } = bench;
        await start();
        exchange(bench);
        sendPackets(port, 7);
        isGone = true;
        const began = performance.now();
        await until(() => faults.length > 0, 'the fault');
        assert.ok(performance.now() - began < 20_000);
        assert.is(faults[0]?.code, ErrorCode.PEER_GONE);
        isComplete(faults[0]!);
        assert.is(port.state, 'failed');
        assert.is(pool.available, available, 'a device that is gone holds nothing');
        assert.is(sendPackets(port, 3), 0);
        await refusal(port.start(), ErrorCode.PEER_GONE);
        isGone = false;
      },
    );
  });

  test(`abuse-D16: gone at any access of a start: PEER_GONE, never a hang, and the port closes (${kind})`, async () => {
    let isOver = false;
    let refusals = 0;
    for (let last = 0; !isOver && last < 2000; last += full ? 1 : 7) {
      let accesses = 0;
      let counts = false;
      const isGone = (): boolean => counts && accesses++ >= last;
      await againstDevice(
        {
          kind,
          poolSize: 256,
          faults: {
            onRead: (region, _offset, value) => (region !== 'config' && isGone() ? 0xffff_ffff : value),
            onWrite: (region, _offset, value) => (region !== 'config' && isGone() ? undefined : value),
          },
        },
        async ({ port, faults }) => {
          counts = true;
          try {
            await port.start();
            isOver = accesses <= last;
          } catch (error) {
            assert.instance(error, VirtioError);
            assert.is(
              (error as VirtioError).code,
              ErrorCode.PEER_GONE,
              `after ${last}: ${(error as VirtioError).toLine()}`,
            );
            assert.equal(faults, []);
            refusals++;
          }
          counts = false;
        },
      );
    }
    assert.ok(isOver && refusals >= 5, `${refusals} places`);
  });

  test(`abuse-D20: the link is down at the start, flaps, or is not told of: packets go all the same (${kind})`, async () => {
    await againstDevice({ kind }, async (bench) => {
      const { device, start, port, links, fn } = bench;
      config(device, { status: 0 });
      await start();
      assert.equal(links, [false]);
      exchange(bench);
      for (let flap = 0; flap < 1001; flap++) {
        config(device, { status: (flap & 1) === 0 ? NetStatus.LINK_UP : 0 });
        fn.configChanged();
      }
      await until(() => links.at(-1) === true, 'the link');
      await delay(300);
      assert.ok(links.length < 100, `${links.length} events of a thousand flaps`);
      assert.is(links.at(-1), true);
      assert.is(port.state, 'started');
      exchange(bench);
    });
    await againstDevice({ kind, withholds: [Feature.STATUS] }, async (bench) => {
      config(bench.device, { status: 0 });
      await bench.start();
      assert.equal(bench.links, [true], 'without STATUS it is up');
      exchange(bench);
    });
  });

  test(`abuse-D21: no vectors, or fewer than are wanted: polling works (${kind})`, async () => {
    for (const vectors of [0, 1, 2]) {
      await againstDevice({ kind, vectors }, async (bench) => {
        await bench.start();
        exchange(bench);
      });
    }
  });

  test(`abuse-D32: the device is given rings and packets, nothing else, and not for longer than it needs (${kind})`, () => {
    const mapped = new Map<bigint, MemoryRange>();
    return againstDevice(
      {
        kind,
        faults: {
          onMapDma: (address, memory) => void mapped.set(address, memory),
          onUnmapDma: (address) => void mapped.delete(address),
        },
      },
      async (bench) => {
        const { start, port, pool, device } = bench;
        assert.is(mapped.size, 0, 'nothing before the start');
        await start();
        exchange(bench);
        const bytes = [...mapped.values()].reduce((sum, range) => sum + range.bytes, 0);
        assert.is(bytes, port.memory.bytes, 'the pool and the rings');
        const ranges = [...mapped].map(([address, range]) => [address, address + BigInt(range.bytes)] as const);
        for (const address of [0n, 0x1000n, ranges[0]![0] - 1n, ranges[0]![1] + (1n << 40n), 0xffff_ffff_ffff_f000n]) {
          assert.throws(() => device.memory.find(address, 1), /IOMMU fault/);
        }
        const files = new Set([...mapped.values()].map(({ fd }) => fd));
        assert.is(files.size, 2, 'packets and rings are files of their own');
        assert.ok(files.has(pool.memory.range.fd));
        await port.stop();
        assert.is(mapped.size, 0, 'nothing after the stop');
      },
    );
  });

  test(`abuse-D34: nonsense in avail_event or NO_NOTIFY: a packet waits for its kick a moment, not for ever (${kind})`, async () => {
    for (const eventIndex of [true, false]) {
      await againstDevice(
        { kind, offers: [Feature.EVENT_IDX], port: { eventIndex } },
        async ({ device, start, port }) => {
          await start();
          const ring = device.ring(1);
          const { used, availEvent } = ring.views;
          const { kickFd } = device.setups.get(1)!;
          const values = eventIndex ? (full ? [0x8000, 0x4000, 0xffff, 40_000] : [0x8000, 0xffff]) : [1];
          for (const value of values) {
            // What was owed before is paid first.
            await delay(350);
            if (eventIndex) Atomics.store(used, availEvent, (ring.written + value) & 0xffff);
            else Atomics.store(used, 0, value);
            native.drainEventFd(kickFd!);
            assert.is(sendPackets(port, 1), 1);
            assert.is(native.drainEventFd(kickFd!), 0n, `${value}: the driver keeps to what the device says`);
            await until(() => native.drainEventFd(kickFd!) > 0n, `the kick with ${value}`);
            for (const id of ring.take()) ring.use(id, 0);
            ring.publish();
            assert.is(port.txQueue(0).reclaim(), 1);
          }
        },
      );
    }
  });

  test(`abuse-D34: a flood of interrupts with nothing behind them: the event loop lives, packets go (${kind})`, () =>
    againstDevice({ kind, vectors: 3 }, async (bench) => {
      const { start, fn, port, links } = bench;
      await start();
      let turns = 0;
      const ticking = setInterval(() => turns++, 1);
      const end = performance.now() + 400;
      while (performance.now() < end) {
        for (let flood = 0; flood < 500; flood++) fn.configChanged();
        exchange(bench);
        await delay(0);
      }
      await until(() => turns > 3, 'the event loop');
      clearInterval(ticking);
      assert.equal(links, [true], 'nothing has changed');
      assert.is(port.state, 'started');
    }));

  test(`abuse-D36: memory that cannot be mapped: refused, with the reason, and nothing stays mapped (${kind})`, async () => {
    for (const [code, message] of [
      [ErrorCode.NO_RESOURCES, 'needs 8.0 MiB of locked memory, the memlock limit is 64 KiB'],
      [ErrorCode.PERMISSION_DENIED, 'the operating system does not permit it'],
      [ErrorCode.IN_USE, 'another mapping is there'],
      [ErrorCode.NO_RESOURCES, 'no mapping left of 65535'],
    ] as const) {
      for (const which of [0, 1]) {
        const mapped = new Set<bigint>();
        let calls = 0;
        let isFailing = true;
        await againstDevice(
          {
            kind,
            faults: {
              onMapDma: (address) => {
                if (isFailing && calls++ === which) {
                  throw new VirtioError(code, message, { value: address, requirement: 'vfio', advice: 'ulimit -l' });
                }
                mapped.add(address);
              },
              onUnmapDma: (address) => void mapped.delete(address),
            },
          },
          async (bench) => {
            const error = await refusal(bench.port.start(), code);
            assert.is(error.message, message, 'as it came, not wrapped away');
            assert.is(mapped.size, 0);
            assert.is(bench.device.setups.size, 0);
            isFailing = false;
            await bench.start();
            exchange(bench);
          },
        );
      }
    }
  });

  test(`abuse-D38: whoever had the device before was killed with DMA on: it is reset before anything is given to it (${kind})`, () =>
    withMemory(async (fd) => {
      const file = native.mapShared(fd, 0, MEMORY_BYTES, 0);
      const before = new Uint8Array(file).fill(0x5a);
      const order: string[] = [];
      let isWatching = false;
      const common = virtioPciCommonCfg.fields;
      const note = (what: string): void => {
        if (isWatching && order.at(-1) !== what) order.push(what);
      };
      const options: AbuseOptions = {
        kind,
        breaches: true,
        faults: {
          onMapDma: () => note('map'),
          onRead: (region, offset, value) => {
            const isStatus =
              (region === 'common' && offset === common.device_status.offset) || (region === 'legacy' && offset === 18);
            if (isStatus && value === 0) note('status is 0');
            return value;
          },
          onWrite: (region, offset, value) => {
            if (region === 'config' && offset === pciHeader.fields.command.offset) {
              note((value & PciCommand.MASTER) === 0 ? 'DMA off' : 'DMA on');
            }
            const isStatus =
              (region === 'common' && offset === common.device_status.offset) || (region === 'legacy' && offset === 18);
            if (isStatus) note(value === 0 ? 'reset' : 'status');
            return value;
          },
        },
      };
      await againstDevice(options, async (bench) => {
        const { fn } = bench;
        for (let round = 0; round < (full ? 1000 : 30); round++) {
          // Somebody brings the device up over memory of his own, and is killed: nothing of it is undone.
          const killed = kind === 'legacy' ? PciLegacyTransport.open(fn) : PciModernTransport.open(fn);
          await killed.reset();
          await killed.setStatus(Status.ACKNOWLEDGE);
          await killed.setStatus(Status.ACKNOWLEDGE | Status.DRIVER);
          const offered = await killed.offered();
          await killed.accept(offered.device.without(Feature.RING_PACKED, Feature.RING_RESET));
          const last = kind === 'legacy' ? Status.DRIVER : Status.FEATURES_OK | Status.DRIVER;
          await killed.setStatus(Status.ACKNOWLEDGE | last);
          await killed.shareMemory(MEMORY_ADDRESS, { fd, fileOffset: 0, bytes: MEMORY_BYTES });
          await killed.setStatus(Status.ACKNOWLEDGE | last | Status.DRIVER_OK);
          await fn.idle;
          order.length = 0;
          isWatching = true;
          const transport = kind === 'legacy' ? PciLegacyTransport.open(fn) : PciModernTransport.open(fn);
          assert.equal(order, ['DMA off'], 'no DMA from the moment it is opened');
          void transport;
          await bench.start();
          isWatching = false;
          const steps = order.filter((step) => step !== 'status');
          assert.equal(steps.slice(0, 4), ['DMA off', 'reset', 'status is 0', 'DMA on'], order.join(', '));
          assert.ok(steps.includes('map'));
          exchange(bench);
          await bench.port.stop();
          fn.unmapDma(MEMORY_ADDRESS, MEMORY_BYTES);
          assert.ok(
            before.every((byte) => byte === 0x5a),
            'memory that was left behind is as it was',
          );
        }
      });
      native.unmapShared(file);
    }));
}

test('abuse-D21: a vector that is not mapped: the port polls; who wants receive interrupts is told', async () => {
  const faults = { onRead: answering('queue_msix_vector', undefined, () => 0xffff) };
  await againstDevice({ faults }, async (bench) => {
    await bench.start();
    exchange(bench);
  });
  await againstDevice({ faults, port: { interrupts: 'receive' } }, async ({ port }) => {
    await refusal(port.start(), ErrorCode.UNSUPPORTED, /did not map/);
  });
});

/** Answers the control command that waits, as the test likes. */
async function answerControl(
  { device }: Bench,
  index: number,
  answer: (ring: ReturnType<Bench['device']['ring']>) => void,
): Promise<void> {
  await until(() => device.setups.has(index), 'the control queue');
  const ring = device.ring(index);
  await until(() => ring.take().length === 1, 'the control command');
  answer(ring);
}

const controls: readonly [what: string, code: string, answer: (ring: ReturnType<Bench['device']['ring']>) => void][] = [
  [
    'answers ERR',
    ErrorCode.REQUEST_REFUSED,
    (ring) => {
      ring.buffer(1)[0] = 1;
      ring.use(0, 1);
      ring.publish();
    },
  ],
  [
    'writes no answer',
    ErrorCode.REQUEST_REFUSED,
    (ring) => {
      ring.use(0, 0);
      ring.publish();
    },
  ],
  [
    'returns another chain',
    ErrorCode.RING_BROKEN,
    (ring) => {
      ring.use(0x1_0000, 1);
      ring.publish();
    },
  ],
  ['jumps', ErrorCode.RING_BROKEN, (ring) => ring.publish(7)],
  ['never answers', ErrorCode.TIMEOUT, () => {}],
];
for (const [what, code, answer] of controls) {
  test(`abuse-D33: the control queue ${what}: a start that needs it is refused, in bounded time`, () =>
    againstDevice({ port: { queues: 2 }, poolSize: 2048, offers: [Feature.MQ, Feature.CTRL_VQ] }, async (bench) => {
      const began = performance.now();
      const answering = answerControl(bench, 4, answer);
      await refusal(bench.port.start(), code);
      await answering;
      assert.ok(performance.now() - began < 30_000);
      assert.is(bench.port.state, 'stopped');
    }));
}

test('abuse-D33: the control queue never answers while the port runs: packets go on', () =>
  againstDevice({ offers: [Feature.GUEST_ANNOUNCE, Feature.CTRL_VQ] }, async (bench) => {
    const { device, start, port, fn, faults } = bench;
    let announced = 0;
    port.on('announce', () => announced++);
    await start();
    config(device, { status: NetStatus.LINK_UP | NetStatus.ANNOUNCE });
    fn.configChanged();
    await until(() => announced > 0, 'the announcement');
    // The model numbers it behind all of its pairs.
    const control = device.ring(4);
    await until(() => control.take().length === 1, 'its command');
    for (const end = performance.now() + (full ? 6000 : 500); performance.now() < end; ) {
      exchange(bench);
      await delay(5);
    }
    assert.is(port.state, 'started');
    assert.equal(faults, []);
    assert.is(announced, 1);
    const began = performance.now();
    await port.close();
    assert.ok(full || performance.now() - began < 3000, 'who closes the port does not wait for the answer');
  }));

test('abuse-D35: a device that offers packed rings is given split ones, where none were asked for; what is not driven never', async () => {
  await againstDevice({ offers: [Feature.RING_PACKED, Feature.ADMIN_VQ] }, async (bench) => {
    await bench.start();
    assert.not(bench.port.features?.has(Feature.RING_PACKED));
    assert.not(bench.port.features?.has(Feature.ADMIN_VQ));
    exchange(bench);
  });
  const demand = [Feature.ADMIN_VQ];
  await againstDevice({ offers: demand, port: { demand } }, async ({ port }) => {
    await refusal(port.start(), ErrorCode.UNSUPPORTED, /does not drive/);
  });
});

test.run();
