/** Request tables and codec: numbers against the document, values to bytes and back (vhost-user "Message Specification"). */

import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { VirtioError } from '../../driver/errors.js';
import {
  backendRequests,
  frontendRequestName,
  frontendRequests,
  inflightPackedDesc,
  inflightPackedHead,
  inflightSplitDesc,
  inflightSplitHead,
  type Payload,
  payloads,
  type RequestRow,
} from '../../driver/spec/vhost-user.js';
import { checkFds, decodeHeader, decodePayload, encodeMessage, encodePayload } from '../../driver/wire/codec.js';
import { Id, memoryTable, message, u32s, u64s, vringAddr } from '../support/vhost-user-raw.js';

const test = suite('wire: codec');

const isViolation = (error: unknown): boolean => error instanceof VirtioError && error.code === 'PROTOCOL_VIOLATION';

test('front-end requests have the numbers 1 to 44, each once', () => {
  const ids = Object.values<RequestRow>(frontendRequests).map((row) => row.id);
  assert.equal(
    ids.toSorted((a, b) => a - b),
    Array.from({ length: 44 }, (_, index) => index + 1),
  );
  for (const [name, id] of Object.entries(Id)) assert.is(frontendRequestName(id), name);
  assert.is(frontendRequestName(0), undefined);
  assert.is(frontendRequestName(45), undefined);
});

test('back-end requests have the numbers 1 to 10, each once', () => {
  const ids = Object.values<RequestRow>(backendRequests).map((row) => row.id);
  assert.equal(
    ids.toSorted((a, b) => a - b),
    Array.from({ length: 10 }, (_, index) => index + 1),
  );
});

test('exactly the requests of the document have a reply of their own', () => {
  const replying = Object.values<RequestRow>(frontendRequests).filter((row) => row.reply !== undefined);
  assert.equal(
    replying.map((row) => row.id),
    [1, 6, 11, 15, 17, 22, 24, 26, 28, 30, 31, 36, 40, 41, 42, 43, 44],
  );
});

test('exactly the requests of the document carry descriptors', () => {
  const carrying = Object.values<RequestRow>(frontendRequests).filter((row) => row.fds !== 'none');
  assert.equal(
    carrying.map((row) => row.id),
    [5, 6, 7, 12, 13, 14, 21, 32, 33, 37, 38, 42],
  );
});

test('inflight regions have the sizes and places of the document', () => {
  assert.is(inflightSplitHead.fields.used_idx.offset, 14);
  assert.is(inflightSplitDesc.fields.counter.offset, 8);
  assert.is(inflightPackedHead.bytes, 32);
  assert.is(inflightPackedHead.fields.old_used_wrap_counter.offset, 21);
  assert.is(inflightPackedDesc.fields.addr.offset, 24);
  assert.is(inflightPackedDesc.fields.len.offset, 20);
});

test('a header is three u32 in this order', () => {
  const bytes = encodeMessage(5, 9, new Uint8Array([1, 2, 3]));
  assert.equal([...bytes], [5, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3]);
  assert.equal(decodeHeader(bytes), { request: 5, flags: 9, size: 3 });
});

test('payloads are what other implementations send', () => {
  const address = { index: 1, flags: 0, descriptor: 0x1000n, used: 0x3000n, available: 0x2000n, log: 0n };
  assert.equal(Buffer.from(encodePayload(payloads.vringAddr, address)), vringAddr(1, 0x1000n, 0x2000n, 0x3000n));
  assert.equal(
    Buffer.from(
      encodePayload(payloads.memoryTable, [
        { guest_address: 1n << 32n, size: 4096n, user_address: 0x7fff_0000_0000n, mmap_offset: 8192n },
      ]),
    ),
    memoryTable([{ guest: 1n << 32n, bytes: 4096n, user: 0x7fff_0000_0000n, offset: 8192n }]),
  );
  assert.equal(Buffer.from(encodePayload(payloads.vringState, { index: 3, num: 256 })), u32s(3, 256));
  assert.equal(Buffer.from(encodePayload(payloads.u64, { u64: 0xffff_ffff_ffff_fffen })), u64s(-2n));
  const config = encodePayload(payloads.config, { offset: 6, flags: 1, bytes: new Uint8Array([7, 8]) });
  assert.equal(Buffer.from(config), Buffer.concat([u32s(6, 2, 1), Buffer.from([7, 8])]));
});

test('the inflight description may come without its padding', () => {
  const short = Buffer.concat([u64s(4096n, 0n), Buffer.from([2, 0, 0, 1])]);
  const expected = { mmap_size: 4096n, mmap_offset: 0n, num_queues: 2, queue_size: 256 };
  assert.equal(decodePayload(payloads.inflight, short), expected);
  assert.equal(decodePayload(payloads.inflight, Buffer.concat([short, Buffer.alloc(4)])), expected);
});

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });

test('any values survive being encoded and decoded', () => {
  const region = fc.record(
    { guest_address: u64, size: u64, user_address: u64, mmap_offset: u64 },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(fc.array(region, { maxLength: 32 }), (regions) => {
      assert.equal(decodePayload(payloads.memoryTable, encodePayload(payloads.memoryTable, regions)), regions);
    }),
  );
  const config = fc.record(
    { offset: u32, flags: u32, bytes: fc.uint8Array({ maxLength: 256 }) },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(config, (values) => {
      const decoded = decodePayload(payloads.config, encodePayload(payloads.config, values));
      assert.equal({ ...decoded, bytes: [...decoded.bytes] }, { ...values, bytes: [...values.bytes] });
    }),
  );
});

test('B2, B3: a payload of any other size than its shape is a violation, for every request', () => {
  for (const [name, row] of Object.entries<RequestRow>(frontendRequests)) {
    for (let size = 0; size <= 300; size++) {
      const outcome = decodes(row.payload, Buffer.alloc(size));
      assert.is(outcome, allowedSizes(row.payload, size), `${name} with ${size} bytes`);
    }
  }
});

/** Whether a payload of zero bytes only may have this size. */
function allowedSizes(shape: Payload, size: number): boolean {
  switch (shape.kind) {
    case 'none':
      return size === 0;
    case 'opaque':
      return size >= shape.shortest && size <= shape.longest;
    case 'fixed':
      return size === shape.layout.bytes || size === shape.shortest;
    case 'array':
      // Whole items beyond the count, as Linux in user mode sends them.
      return size >= shape.head.bytes && (size - shape.head.bytes) % shape.item.bytes === 0;
    case 'bytes':
      return size === shape.head.bytes;
  }
}

function decodes(shape: Payload, bytes: Uint8Array): boolean {
  try {
    decodePayload(shape, bytes);
    return true;
  } catch (error) {
    assert.ok(isViolation(error), `${error}`);
    return false;
  }
}

test('a table with whole places beyond its count is taken as far as it counts; half a place is a violation', () => {
  const two = memoryTable(
    [
      { guest: 0n, bytes: 4096n, user: 0n },
      { guest: 8192n, bytes: 4096n, user: 8192n },
    ],
    1,
  );
  const values = decodePayload(payloads.memoryTable, two);
  assert.is(values.length, 1);
  assert.is(values[0]!.size, 4096n);
  assert.throws(() => decodePayload(payloads.memoryTable, two.subarray(0, two.length - 8)), isViolation);
});

test('B30: a count of 2^32 - 1 is a violation, nothing is allocated for it', () => {
  assert.throws(() => decodePayload(payloads.memoryTable, memoryTable([], 0xffff_ffff)), isViolation);
  assert.throws(() => decodePayload(payloads.config, u32s(0, 0xffff_ffff, 0)), isViolation);
});

test('B11, B12, B13: descriptors are counted by the table', () => {
  const cases: [Parameters<typeof checkFds>[0], unknown, number[]][] = [
    ['none', undefined, [0]],
    ['one', undefined, [1]],
    ['none-or-one', undefined, [0, 1]],
    ['each-item', [{}, {}, {}], [3]],
    ['unless-bit-8', { u64: 0xffn }, [1]],
    ['unless-bit-8', { u64: 0x101n }, [0]],
  ];
  for (const [arity, values, allowed] of cases) {
    for (let count = 0; count <= 9; count++) {
      if (allowed.includes(count)) checkFds(arity, values, count);
      else assert.throws(() => checkFds(arity, values, count), isViolation, `${arity} with ${count}`);
    }
  }
});

test('a message of the raw test peer decodes', () => {
  assert.equal(decodeHeader(message(Id.GET_STATUS)), { request: 40, flags: 1, size: 0 });
});

test.run();
