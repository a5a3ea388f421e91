/** What `virtio-pmd backend` says of a connection, for people and for scripts, from its first message to a broken ring. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import type { NetDevice } from '../../driver/backend/net-device.js';
import type { Connection } from '../../driver/cli/backend/connections.js';
import { type Description, describe, descriptionText } from '../../driver/cli/backend/description.js';
import { native } from '../../native/index.js';
import {
  BACKEND_REQ,
  BIT_30,
  type FakeFrontend,
  GUEST,
  IN_BAND,
  LOG_ALL,
  LOG_SHMFD,
  MEMORY_BYTES,
  MRG_RXBUF,
  PROTOCOL_MQ,
  partsOf,
  REPLY_ACK,
  type ServerBench,
  STATUS,
  VERSION_1,
  withServer,
} from '../support/vhost-user-frontend.js';
import { Id, u64s, VERSION } from '../support/vhost-user-raw.js';

const test = suite('descriptions of connections');

/** The connection as the daemon holds it. */
const connectionOf = ({ server }: ServerBench): Connection => ({
  number: 3,
  socket: '/run/vm.sock',
  since: performance.now() - 12_500,
  running: new Set(),
  device: undefined as unknown as NetDevice,
  port: { module: '', options: {} },
  place: { threads: [], lcores: [2, 3], release: () => undefined },
  describe: () => server.describe(1),
});

interface Told {
  readonly record: Description;
  readonly text: string;
  /** The lines of one ring. */
  ring(name: string): string;
}

function told(bench: ServerBench): Told {
  const record = describe(connectionOf(bench))!;
  const text = descriptionText(record);
  const lines = text.split('\n');
  return {
    // As scripts get it.
    record: JSON.parse(JSON.stringify(record)) as Description,
    text,
    ring: (name) => {
      const from = lines.findIndex((line) => line.startsWith(`    ${name}:`));
      const to = lines.findIndex((line, at) => at > from && !line.startsWith('      '));
      return lines.slice(from, to).join('\n');
    },
  };
}

/** Writes an index word of a ring into the guest's memory. */
function write(frontend: FakeFrontend, index: number, part: 'avail' | 'used', value: number): void {
  const memory = native.mapShared(frontend.memory, 0, MEMORY_BYTES, 0);
  new DataView(memory).setUint16(Number(partsOf(index, 0n)[part]) + 2, value, true);
  native.unmapShared(memory);
}

test('before anything was said: what is offered, and that there is nothing else yet', () =>
  withServer(async (bench) => {
    const { frontend } = await bench.connect();
    await frontend.askU64(Id.GET_FEATURES);
    const { text, record } = told(bench);
    assert.match(
      text,
      /^connection 3 on \/run\/vm\.sock, for 1[23] s; status: none\n {2}polled on 2 processors: 2, 3\n/,
    );
    for (const line of ['features: none accepted yet', 'memory: none yet', 'rings: none set up yet']) {
      assert.ok(text.includes(`\n  ${line}\n`), text);
    }
    assert.match(text, /MRG_RXBUF +the device offers it; the front-end has not chosen yet\n/);
    assert.match(text, /protocol features: none\n/);
    assert.equal([record.connection, record.socket, record.rings, record.memory], [3, '/run/vm.sock', [], []]);
  }));

test('a device that runs: features with what they mean, memory, parts and indices of rings, and whose turn it is', () =>
  withServer(async (bench) => {
    const { frontend } = await bench.connect();
    await frontend.bringUp();
    write(frontend, 0, 'avail', 200);
    write(frontend, 0, 'used', 72);
    write(frontend, 1, 'avail', 3);
    write(frontend, 1, 'used', 65534);
    const { record, text, ring } = told(bench);
    assert.match(text, /\n {2}features\n {4}MRG_RXBUF +a packet may fill several receive buffers\n/);
    assert.match(
      text,
      /\n {2}features that are not used\n(.*\n)* {4}EVENT_IDX +the device offers it, the front-end left it\n/,
    );
    assert.match(
      text,
      /\n {4}guest 0x100000000: 1\.0 MiB, for the front-end at 0x7f0000000000, from byte 0 of its file\n/,
    );
    assert.match(text, /\n {2}protocol features: MQ \| REPLY_ACK \| CONFIGURE_MEM_SLOTS\n/);
    assert.is(
      ring('receiveq 0'),
      `    receiveq 0: 256 entries, started, enabled, kick: eventfd, call: eventfd
      descriptors at 0x7f0000000000, available ring at 0x7f0000004000, used ring at 0x7f0000008000
      available 200, used 72, 128 with the device; nothing to do: 128 buffers wait for packets`,
    );
    assert.match(ring('transmitq 0'), /available 3, used 65534, 5 with the device; next is the device: 5 entries wait/);
    const [receive, transmit] = record.rings;
    assert.equal(receive!.indices, { available: 200, used: 72, outstanding: 128 });
    assert.equal([receive!.next, transmit!.next], ['nobody', 'device']);
    assert.equal(record.memory, [
      { guestAddress: `0x${GUEST.toString(16)}`, userAddress: '0x7f0000000000', fileOffset: 0, bytes: MEMORY_BYTES },
    ]);
    const mergeable = record.features.find(({ name }) => name === 'MRG_RXBUF')!;
    assert.equal(
      [mergeable.isOffered, mergeable.isAccepted, mergeable.note],
      [true, true, 'a packet may fill several receive buffers'],
    );
    assert.ok(record.features.every(({ note, why }) => note !== '' && why !== ''));
    assert.equal(record.lcores, [2, 3]);
    // The driver has the next move where it has given the device nothing.
    write(frontend, 0, 'avail', 72);
    write(frontend, 1, 'avail', 65534);
    assert.match(told(bench).ring('receiveq 0'), /next is the driver: the device has no buffers for packets/);
    assert.match(told(bench).ring('transmitq 0'), /next is the driver: everything that was sent is done/);
  }));

test('what is missing before a ring can start, one after the other: the front-end has the next move', () =>
  withServer(async (bench) => {
    const { frontend } = await bench.connect();
    await frontend.open(PROTOCOL_MQ | REPLY_ACK | STATUS);
    const why = (): string => /next is the front-end: (.*)/.exec(told(bench).ring('receiveq 0'))?.[1] ?? '';
    await frontend.enable(0);
    assert.is(why(), 'features have not been chosen');
    await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | MRG_RXBUF | BIT_30));
    assert.is(why(), 'no memory is shared');
    await frontend.share();
    assert.match(why(), /has not come$/);
    await frontend.startRing(0);
    assert.is(why(), 'the driver has not said DRIVER_OK');
    await frontend.do(Id.SET_STATUS, u64s(15n));
    assert.match(told(bench).ring('receiveq 0'), /started, enabled/);
    await frontend.enable(0, false);
    assert.is(why(), 'the ring is not enabled');
  }));

test('a dirty log, an MTU, the channel, and a ring that the guest has broken', () =>
  withServer(async (bench) => {
    const { frontend, device } = await bench.connect();
    const log = native.createMemory('log', 8192, 0);
    const [ours, theirs] = native.socketPair();
    try {
      await frontend.open(PROTOCOL_MQ | REPLY_ACK | LOG_SHMFD | BACKEND_REQ | IN_BAND | (1n << 4n));
      await frontend.ask(Id.SET_LOG_BASE, u64s(8192n, 0n), VERSION, [log]);
      await frontend.do(Id.SET_FEATURES, u64s(VERSION_1 | BIT_30 | LOG_ALL));
      await frontend.do(Id.NET_SET_MTU, u64s(9000n));
      await frontend.do(Id.SET_BACKEND_REQ_FD, undefined, [theirs]);
      await frontend.share();
      await frontend.startRing(1);
      device.onEvent!({ type: 'ring-broken', ring: 1, reason: 'descriptor 7 points at itself' });
      const { text, ring, record } = told(bench);
      assert.match(text, /\n {2}dirty log: 0\.0 MiB\n/);
      assert.match(text, /\n {2}MTU: 9000, set by the front-end\n/);
      assert.match(text, /\n {2}channel for requests of the back-end: open\n/);
      assert.match(ring('transmitq 0'), /256 entries, broken, disabled/);
      assert.match(
        ring('transmitq 0'),
        /next is the front-end: broken: descriptor 7 points at itself; it has to be stopped and started again/,
      );
      assert.equal([record.mtu, record.log, record.backendChannel], [9000, { bytes: 8192, isActive: true }, 'open']);
      assert.is(record.rings.find(({ queue }) => queue === 'transmitq 0')!.state, 'broken');
    } finally {
      for (const fd of [log, ours, theirs]) native.closeFd(fd);
    }
  }));

test('a connection that is over has nothing to be described', () =>
  withServer(async (bench) => {
    const { frontend } = await bench.connect();
    frontend.close();
    await bench.server.close();
    assert.is(describe(connectionOf(bench)), undefined);
  }));

test.run();
