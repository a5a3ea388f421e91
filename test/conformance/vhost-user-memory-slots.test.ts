/**
 * ADD_MEM_REG and REM_MEM_REG as QEMU 7.2 sends them for a device with several queue pairs: before 8.0 each pair has a
 * list of its own, and says for itself what comes and goes. The messages are those that a real one sent, byte by byte but
 * for the addresses (vhost-user "Front-end message types").
 */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { native } from '../../native/index.js';
import {
  BIT_30,
  type FakeFrontend,
  GUEST,
  MEM_SLOTS,
  MEMORY_BYTES,
  MQ,
  PROTOCOL_MQ,
  REPLY_ACK,
  USER,
  VERSION_1,
  withServer,
} from '../support/vhost-user-frontend.js';
import { countFds, Id, regionBytes, u64s } from '../support/vhost-user-raw.js';

const test = suite('vhost-user: memory slots with several queue pairs');

const DIMM_BYTES = 65_536;
/** What is there from the start, and what is plugged in behind it: 8 bytes of padding, then the region, its offset 0. */
const MAIN = Buffer.concat([u64s(0n), regionBytes({ guest: GUEST, bytes: BigInt(MEMORY_BYTES), user: USER })]);
const DIMM = Buffer.concat([
  u64s(0n),
  regionBytes({ guest: GUEST + (1n << 32n), bytes: BigInt(DIMM_BYTES), user: USER - (1n << 32n) }),
]);

interface Stand {
  readonly frontend: FakeFrontend;
  readonly dimm: number;
  /** Calls of the device since the last look. */
  calls(): string[];
}

/** Runs `body` with a front-end of two pairs whose rings run, all its memory said once for each of them. */
function withPairs(pairs: number, body: (stand: Stand) => Promise<void>): Promise<void> {
  return withServer(
    async ({ connect }) => {
      const { frontend, device } = await connect();
      const dimm = native.createMemory('dimm', DIMM_BYTES, 0);
      try {
        await frontend.open(PROTOCOL_MQ | REPLY_ACK | MEM_SLOTS);
        for (let pair = 0; pair < pairs; pair++) {
          assert.ok((await frontend.askU64(Id.GET_MAX_MEM_SLOTS)) >= 256n);
          await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | MQ | BIT_30));
        }
        for (let pair = 0; pair < pairs; pair++) await frontend.do(Id.ADD_MEM_REG, MAIN, [frontend.memory]);
        for (let ring = 0; ring < 2 * pairs; ring++) {
          await frontend.startRing(ring);
          await frontend.enable(ring);
        }
        device.takeCalls();
        await body({ frontend, dimm, calls: () => device.takeCalls() });
        assert.is(device.running.size, 2 * pairs, 'every ring runs');
        assert.equal(
          device.regions.map(({ bytes }) => bytes),
          [MEMORY_BYTES],
        );
      } finally {
        native.closeFd(dimm);
      }
    },
    { device: { queuePairs: pairs } },
  );
}

for (const pairs of [2, 8]) {
  test(`${pairs} pairs: memory that is plugged in is added once, what is unplugged is taken out once, again and again`, () =>
    withPairs(pairs, async ({ frontend, dimm, calls }) => {
      const before = countFds();
      for (let round = 0; round < 3; round++) {
        for (let pair = 0; pair < pairs; pair++) await frontend.do(Id.ADD_MEM_REG, DIMM, [dimm]);
        assert.equal(calls(), ['setMemory 2'], 'no ring is stopped for it');
        assert.is(countFds(), before + 1, 'one descriptor is kept, however often it came');
        for (let pair = 0; pair < pairs; pair++) await frontend.do(Id.REM_MEM_REG, DIMM);
        assert.equal(calls(), ['setMemory 1']);
        assert.is(countFds(), before);
        assert.ok(await frontend.isRefused(Id.REM_MEM_REG, DIMM), 'once more than it was added');
      }
    }));
}

test('memory that one pair alone says is gone stays for the other, until that says so, too', () =>
  withPairs(2, async ({ frontend, dimm, calls }) => {
    await frontend.do(Id.ADD_MEM_REG, DIMM, [dimm]);
    await frontend.do(Id.ADD_MEM_REG, DIMM, [dimm]);
    calls();
    await frontend.do(Id.REM_MEM_REG, DIMM);
    assert.equal(calls(), []);
    await frontend.do(Id.REM_MEM_REG, DIMM);
    assert.equal(calls(), ['setMemory 1']);
  }));

test('a removal with a descriptor, as earlier ones send it: it is closed, and counts like any other', () =>
  withPairs(2, async ({ frontend, dimm, calls }) => {
    for (let pair = 0; pair < 2; pair++) await frontend.do(Id.ADD_MEM_REG, DIMM, [dimm]);
    calls();
    const before = countFds();
    for (let pair = 0; pair < 2; pair++) await frontend.do(Id.REM_MEM_REG, DIMM, [dimm]);
    assert.is(countFds(), before - 1);
    assert.equal(calls(), ['setMemory 1']);
  }));

test('the same place with another size, address or order is no repetition: refused, and nothing is changed', () =>
  withPairs(2, async ({ frontend, dimm, calls }) => {
    const region = (guest: bigint, bytes: bigint, user: bigint): Buffer =>
      Buffer.concat([u64s(0n), regionBytes({ guest, bytes, user })]);
    for (const other of [
      region(GUEST, 4096n, USER),
      region(GUEST, BigInt(DIMM_BYTES), USER),
      region(GUEST, BigInt(MEMORY_BYTES), USER + (1n << 40n)),
      region(GUEST + (1n << 40n), 4096n, USER),
    ]) {
      assert.ok(await frontend.isRefused(Id.ADD_MEM_REG, other, [dimm]));
    }
    assert.equal(calls(), []);
  }));

test.run();
