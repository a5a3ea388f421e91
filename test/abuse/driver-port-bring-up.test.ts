/** A port whose device is not sound when it is brought up (abuse D9 to D14, D17 to D19), by modern and by legacy registers. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode } from '../../driver/errors.js';
import { Feature } from '../../driver/spec/features.js';
import { virtioNetConfig } from '../../driver/spec/net-config.js';
import { virtioPciCommonCfg } from '../../driver/spec/pci.js';
import { Status } from '../../driver/spec/status.js';
import {
  type AbuseOptions,
  againstDevice,
  answering,
  type Bench,
  type Interface,
  interfaces,
  refusal,
  sendPackets,
} from '../support/driver-abuse.js';
import type { LyingDevice } from '../support/lying-device.js';

const test = suite('port whose device is not sound');

/** Writes to a register, by name whatever the interface is; the status as numbers. */
const statuses = ({ log }: Bench): number[] =>
  log.accesses
    .filter(
      ({ kind, region, offset, bytes }) =>
        kind === 'write' &&
        bytes === 1 &&
        ((region === 'common' && offset === virtioPciCommonCfg.fields.device_status.offset) ||
          (region === 'legacy' && offset === 18)),
    )
    .map(({ value }) => value);

/** Asserts what a refused start leaves: FAILED was said, the device is reset, nothing is mapped, no queue is enabled. */
async function isRefused(
  options: AbuseOptions,
  code: string,
  message: RegExp,
  prepare: (device: LyingDevice) => void = () => {},
): Promise<void> {
  const mapped = new Set<bigint>();
  let isEnabled = false;
  const watched: AbuseOptions = {
    ...options,
    faults: {
      ...options.faults,
      onMapDma: (address, memory) => {
        mapped.add(address);
        options.faults?.onMapDma?.(address, memory);
      },
      onUnmapDma: (address) => void mapped.delete(address),
    },
  };
  await againstDevice(watched, async (bench) => {
    prepare(bench.device);
    await refusal(bench.port.start(), code, message);
    assert.is(bench.port.state, 'stopped');
    assert.is(mapped.size, 0, 'nothing stays mapped');
    const written = statuses(bench);
    assert.ok(
      written.some((status) => (status & Status.FAILED) !== 0),
      `FAILED was not said: ${written}`,
    );
    assert.is(written.at(-1), 0, 'the device is left reset');
    assert.not(
      written.some((status) => (status & Status.DRIVER_OK) !== 0 && (status & Status.FAILED) === 0),
      'the device never went live',
    );
    isEnabled = bench.device.setups.size > 0;
    assert.is(sendPackets(bench.port, 4), 0);
    assert.equal([bench.links, bench.faults], [[], []]);
  });
  assert.not(isEnabled, 'no ring runs');
}

const config =
  (values: Parameters<typeof virtioNetConfig.write>[1]): ((device: LyingDevice) => void) =>
  (device) =>
    virtioNetConfig.write(new DataView(device.config.buffer), values);

const MQ: Pick<AbuseOptions, 'port' | 'offers' | 'poolSize'> = {
  port: { queues: 2 },
  offers: [Feature.MQ, Feature.CTRL_VQ],
  poolSize: 2048,
};

test('abuse-D9: 0 or 1 queues are too few for a network device', async () => {
  for (const count of [0, 1]) {
    const faults = { onRead: answering('num_queues', undefined, () => count) };
    await isRefused({ faults }, ErrorCode.DEVICE_BROKEN, new RegExp(`has ${count} queues`));
  }
});

test('abuse-D9: 65535 queues are a number like any other', () =>
  againstDevice({ faults: { onRead: answering('num_queues', undefined, () => 65535) } }, async ({ start, port }) => {
    await start();
    assert.is(sendPackets(port, 3), 3);
  }));

for (const kind of interfaces) {
  test(`abuse-D9: max_virtqueue_pairs out of its bounds, or fewer than are wanted (${kind})`, async () => {
    for (const pairs of [0, 0x8001, 0xffff]) {
      const prepare = config({ max_virtqueue_pairs: pairs });
      const message = new RegExp(`max_virtqueue_pairs is ${pairs}`);
      await isRefused({ kind, ...MQ }, ErrorCode.DEVICE_BROKEN, message, prepare);
    }
    const prepare = config({ max_virtqueue_pairs: 1 });
    await isRefused({ kind, ...MQ }, ErrorCode.FEATURE_MISSING, /2 queue pairs are wanted .* has 1/, prepare);
  });

  test(`abuse-D9: more pairs than there are queues, and a control queue behind the last one (${kind})`, async () => {
    // Two pairs and a control queue are there: index 4 is the last one.
    const prepare = config({ max_virtqueue_pairs: 3 });
    await isRefused({ kind, ...MQ }, ErrorCode.DEVICE_BROKEN, /of 3 queue pairs .* only 5 queues/, prepare);
    // 65536 would be taken for queue 0 by a register of 16 bits.
    const wide = config({ max_virtqueue_pairs: 0x8000 });
    await isRefused({ kind, ...MQ }, ErrorCode.DEVICE_BROKEN, /of 32768 queue pairs/, wide);
  });

  test(`abuse-D10: a queue of size 0 (${kind})`, () =>
    isRefused(
      { kind, faults: { onRead: answering('queue_size', 'queue_size', () => 0) } },
      ErrorCode.DEVICE_BROKEN,
      kind === 'modern' ? /has no queue 0/ : /has 0 queues/,
    ));

  test(`abuse-D10: a queue of more than 32768 entries (${kind})`, async () => {
    for (const size of [32769, 40000, 65535]) {
      const faults = { onRead: answering('queue_size', 'queue_size', () => size) };
      await isRefused({ kind, faults }, ErrorCode.DEVICE_BROKEN, new RegExp(`${size}`));
    }
  });

  test(`abuse-D10: a size that changes between two readings: the first one counts (${kind})`, () => {
    const reads = new Map<number, number>();
    let select = 0;
    const selects = { common: virtioPciCommonCfg.fields.queue_select.offset, legacy: 14 };
    return againstDevice(
      {
        kind,
        faults: {
          onWrite: (region, offset, value) => {
            if (region in selects && offset === selects[region as 'common']) select = value;
            return value;
          },
          onRead: answering('queue_size', 'queue_size', (value) => {
            const count = (reads.get(select) ?? 0) + 1;
            reads.set(select, count);
            return kind === 'legacy' && count > 1 ? value * 4 : value;
          }),
        },
      },
      async ({ start, port, device }) => {
        await start();
        assert.is(device.ring(0).size, 64);
        assert.is(sendPackets(port, 3), 3);
        for (const [queue, count] of reads) assert.ok(count <= 2, `${count} readings of the size of queue ${queue}`);
      },
    );
  });

  test(`abuse-D13: without ACCESS_PLATFORM the policy is the application's: it can demand it (${kind})`, async () => {
    const demanding: AbuseOptions = { kind, port: { demand: [Feature.ACCESS_PLATFORM] } };
    await isRefused(demanding, ErrorCode.FEATURE_MISSING, /lacks ACCESS_PLATFORM/);
    await againstDevice({ kind }, async ({ start, port }) => {
      await start();
      assert.not(port.features?.has(Feature.ACCESS_PLATFORM));
      const outcome = port.negotiation?.outcomes.find(({ feature }) => feature === Feature.ACCESS_PLATFORM);
      if (kind === 'modern') assert.match(outcome?.explanation ?? '', /nobody offers it/);
    });
  });

  test(`abuse-D14: a reset that never ends: refused in bounded time, and the port closes (${kind})`, () => {
    let isStuck = true;
    const status = answering('device_status', 'device_status', (value) => (isStuck ? value | 1 : value));
    return againstDevice({ kind, faults: { onRead: status } }, async ({ port, start }) => {
      const began = performance.now();
      await refusal(port.start(), ErrorCode.TIMEOUT, /did not end in 60 ms/);
      assert.ok(performance.now() - began < 20_000);
      assert.is(port.state, 'stopped');
      isStuck = false;
      await start();
      assert.is(sendPackets(port, 3), 3);
    });
  });

  test(`abuse-D14: a reset that fails while packets are in flight: the buffers stay away from everybody (${kind})`, () => {
    let isStuck = false;
    const status = answering('device_status', 'device_status', (value) => (isStuck ? value | 1 : value));
    return againstDevice({ kind, faults: { onRead: status }, breaches: true }, async (bench) => {
      const { port, pool, start, available, device, fn } = bench;
      await start();
      assert.is(sendPackets(port, 5), 5);
      const [rx, tx] = [device.ring(0), device.ring(1)];
      const theirs = [...rx.take().map((id) => rx.buffer(id)), ...tx.take().map((id) => tx.buffer(id))];
      assert.is(theirs.length, 69);
      isStuck = true;
      device.isStuck = true;
      const error = await refusal(port.stop(), ErrorCode.TIMEOUT, /69 buffers stay out of the pool/);
      assert.match(error.message, /did not end/);
      assert.is(port.quarantined, 69);
      assert.is(pool.available, available - 69);
      assert.is(fn.readConfig16(4) & 4, 0, 'and it may not do DMA any more');
      // Nobody is given what the device may still write to.
      const taken = new Uint32Array(pool.available);
      for (let index = 0; index < taken.length; index++) pool.allocate(taken, index, 1);
      const bufferOf = (handle: number): Uint8Array =>
        pool.bytes.subarray(pool.offset + handle * pool.bufferBytes, pool.offset + (handle + 1) * pool.bufferBytes);
      for (const handle of taken) bufferOf(handle).fill(0x11);
      for (const bytes of theirs) bytes.fill(0xdd);
      for (const handle of taken)
        assert.ok(
          bufferOf(handle).every((byte) => byte === 0x11),
          `buffer ${handle}`,
        );
      pool.free(taken, 0, taken.length);
      pool.flush();
      await refusal(port.start(), ErrorCode.TIMEOUT);
      assert.is(port.quarantined, 69, 'a start that fails frees nothing');
      isStuck = false;
      device.isStuck = false;
      await port.start();
      assert.is(port.quarantined, 0);
      assert.is(sendPackets(port, 5), 5);
      await port.stop();
      assert.is(pool.available, available, 'a reset that succeeds gives them back');
    });
  });

  test(`abuse-D14: a device that never resets: the port closes, and its buffers are not used again (${kind})`, () => {
    let isStuck = false;
    const status = answering('device_status', 'device_status', (value) => (isStuck ? value | 1 : value));
    const options = { kind, faults: { onRead: status }, breaches: true, quarantined: 64 };
    return againstDevice(options, async ({ port, start }) => {
      await start();
      isStuck = true;
      await refusal(port.close(), ErrorCode.TIMEOUT, /64 buffers stay out/);
      assert.is(port.state, 'closed');
    });
  });

  test(`abuse-D17: configuration that never stands still (${kind})`, async () => {
    let count = 0;
    let readings = 0;
    const isModern = kind === 'modern';
    await isRefused(
      {
        kind,
        faults: {
          onRead: (region, offset, value) => {
            const isGeneration =
              region === 'common' && offset === virtioPciCommonCfg.fields.config_generation.offset && isModern;
            const isByte = region === 'device' && offset === 0 && !isModern;
            if (!isGeneration && !isByte) return value;
            readings++;
            return count++ & 0x7f;
          },
        },
      },
      ErrorCode.DEVICE_BROKEN,
      isModern ? /config_generation does not stand still/ : /configuration does not stand still/,
    );
    assert.ok(readings <= 400, `${readings} readings`);
  });

  test(`abuse-D18: a MAC address that is zero, multicast or broadcast is replaced by a local one (${kind})`, async () => {
    for (const [mac, what] of [
      [[0, 0, 0, 0, 0, 0], /00:00:00:00:00:00 is zero/],
      [[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], /ff:ff:ff:ff:ff:ff is one of many/],
      [[1, 0, 0x5e, 0, 0, 1], /01:00:5e:00:00:01 is one of many/],
    ] as const) {
      await againstDevice({ kind }, async ({ device, start, port }) => {
        device.config.set(mac);
        await start();
        const address = port.macAddress!;
        assert.is(address[0]! & 3, 2, 'local, and of one');
        assert.match(port.warnings.join(), what);
        await port.stop();
        await port.start();
        assert.equal([...port.macAddress!], [...address], 'the same one over stops and starts');
        await port.stop();
        device.config.set([2, 0, 0, 0, 0, 7]);
        await port.start();
        assert.equal([...port.macAddress!], [2, 0, 0, 0, 0, 7]);
        assert.equal(port.warnings, []);
      });
    }
  });

  test(`abuse-D19: an MTU of 0 to 67 is no limit, one beyond the buffers is cut to them (${kind})`, async () => {
    const offers = [Feature.MTU];
    for (const [mtu, withholds, frame, warning] of [
      [0, [], 65_562, /MTU 0 is below 68/],
      [67, [], 65_562, /MTU 67 is below 68/],
      [68, [], 86, undefined],
      [65_535, [], 65_553, undefined],
      [9000, [Feature.MRG_RXBUF], 2100, /MTU 9000 is more than receive buffers of 2100 bytes/],
      [1500, [Feature.MRG_RXBUF], 1518, undefined],
    ] as const) {
      await againstDevice({ kind, offers, withholds }, async ({ device, start, port }) => {
        config({ mtu })(device);
        await start();
        assert.is(port.maxFrameBytes, frame, `MTU ${mtu}`);
        if (warning === undefined) assert.equal(port.warnings, []);
        else assert.match(port.warnings.join(), warning);
        assert.is(sendPackets(port, 3), 3);
      });
    }
  });

  test(`spec-D35: without MRG_RXBUF a receive buffer takes what a device may put there (${kind})`, async () => {
    const withholds = [Feature.MRG_RXBUF];
    const header = kind === 'legacy' ? 10 : 12;
    const small = { kind, withholds, bufferBytes: 1600, headroom: 88 };
    const message = new RegExp(`receive buffers of ${1512 + header} bytes are too small`);
    await isRefused(small, ErrorCode.INVALID_ARGUMENT, message);
    await againstDevice({ ...small, headroom: 84 }, async ({ start, port }) => {
      await start();
      assert.is(sendPackets(port, 3), 3);
    });
    await againstDevice({ kind, bufferBytes: 256, headroom: 64 }, async ({ start }) => start());
  });
}

test('spec-D35: far more is needed with segmentation by the device', async () => {
  const features = [Feature.GUEST_CSUM, Feature.GUEST_TSO4];
  const segmented: AbuseOptions = { offers: features, withholds: [Feature.MRG_RXBUF], port: { demand: features } };
  await isRefused(segmented, ErrorCode.INVALID_ARGUMENT, /a device may fill 65601/);
});

test('abuse-D10: a modern split queue whose size is no power of two is given a smaller one', () => {
  const written = new Map<number, number>();
  let select = 0;
  const { queue_size, queue_select } = virtioPciCommonCfg.fields;
  return againstDevice(
    {
      ringSize: 128,
      faults: {
        onWrite: (region, offset, value) => {
          if (region === 'common' && offset === queue_select.offset) select = value;
          if (region === 'common' && offset === queue_size.offset) written.set(select, value);
          return value;
        },
        onRead: answering('queue_size', undefined, () => written.get(select) ?? 100),
      },
    },
    async ({ start, device, port }) => {
      await start();
      assert.ok(written.size >= 2 && [...written.values()].every((size) => size === 64), [...written].join(' '));
      assert.equal([device.ring(0).size, device.ring(1).size], [64, 64]);
      assert.is(sendPackets(port, 3), 3);
    },
  );
});

test('packed rings that a device has not are refused, not made split ones', async () => {
  await isRefused(
    { withholds: [Feature.RING_PACKED], port: { ring: 'packed' } },
    ErrorCode.FEATURE_MISSING,
    /lacks RING_PACKED \(to have packed rings\)/,
  );
  const legacy = { kind: 'legacy', port: { ring: 'packed' } } as const;
  await isRefused(legacy, ErrorCode.FEATURE_MISSING, /lacks RING_PACKED/);
});

test('abuse-D10: a legacy queue, whose size is not to be chosen, is refused when it is no power of two', async () => {
  const faults = { onRead: answering(undefined, 'queue_size', () => 100) };
  await isRefused({ kind: 'legacy', faults }, ErrorCode.DEVICE_BROKEN, /100 entries, no power of two/);
});

test('abuse-D10: a device that keeps another size than it was given is refused', async () => {
  const faults = { onRead: answering('queue_size', undefined, () => 256) };
  await isRefused({ faults }, ErrorCode.DEVICE_BROKEN, /was given size 64 and has 256/);
});

test('abuse-D11: FEATURES_OK that does not stick', async () => {
  const faults = { onRead: answering('device_status', undefined, (value) => value & ~Status.FEATURES_OK) };
  await isRefused({ faults }, ErrorCode.NEGOTIATION_FAILED, /refuses the features/);
});

test('abuse-D11: VERSION_1 is not offered; to a legacy driver ANY_LAYOUT is not', async () => {
  await isRefused({ withholds: [Feature.VERSION_1] }, ErrorCode.FEATURE_MISSING, /lacks VERSION_1/);
  const legacy: Interface = 'legacy';
  await isRefused({ kind: legacy, withholds: [Feature.ANY_LAYOUT] }, ErrorCode.FEATURE_MISSING, /lacks ANY_LAYOUT/);
});

test('abuse-D11: features that change between two readings', async () => {
  let readings = 0;
  const change = (value: number): number => (readings++ > 3 ? value ^ 0x20 : value);
  const faults = { onRead: answering('device_feature', undefined, change) };
  await isRefused({ faults }, ErrorCode.DEVICE_BROKEN, /changed between two readings/);
});

for (const [bits, missing] of [
  [[Feature.MQ], Feature.CTRL_VQ],
  [[Feature.HOST_TSO4], Feature.CSUM],
  [[Feature.GUEST_TSO6], Feature.GUEST_CSUM],
  [[Feature.RSS], Feature.CTRL_VQ],
] as const) {
  const name = Object.entries(Feature).find(([, bit]) => bit === bits[0])![0];
  test(`abuse-D12: ${name} without what it needs is dropped; who demands it is refused`, async () => {
    const options: AbuseOptions = { offers: bits, withholds: [missing], poolSize: 2048 };
    await againstDevice(options, async ({ start, port }) => {
      await start();
      assert.not(port.features?.has(bits[0]));
      assert.is(sendPackets(port, 3), 3);
    });
    await isRefused({ ...options, port: { demand: bits } }, ErrorCode.FEATURE_MISSING, new RegExp(`lacks ${name}`));
  });
}

test.run();
