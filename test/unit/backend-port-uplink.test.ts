/** What a tap at a switch holds for a kernel that cuts no UDP segments (before Linux 6.2) and takes nothing; the kernel is made up. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { createPort as createSwitch } from '../../driver/backend/ports/switch.js';
import { createPort as createUplink } from '../../driver/backend/ports/switch-uplink.js';
import { SwitchCounter } from '../../driver/backend/switch/switch-counters.js';
import { Burst } from '../../driver/memory/burst.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { native, TapOffload } from '../../native/index.js';
import { HandThread } from '../support/hand-guest.js';
import { packetOf, place, placesOf } from '../support/offload-packets.js';

const test = suite('back-end: a tap at a switch');

const SHAPE = { version: 4, protocol: 'udp', payload: new Uint8Array(20_000).fill(3) } as const;

/** Runs `body` with a tap that knows of no UDP segments and whose queue is full. */
function withOldKernel(body: () => void): void {
  const calls: Partial<typeof native> = {
    openTap: (name) => ({ name, fd: native.createEventFd(0) }),
    setTapOffloads: (_fd, offloads) => {
      if ((offloads & TapOffload.USO4) === 0) return;
      throw Object.assign(new Error('EINVAL'), { code: 'EINVAL', errno: -22, syscall: 'ioctl' });
    },
    readTap: () => 0,
    writeTap: () => 0,
  };
  const real = { ...native };
  Object.assign(native, calls);
  try {
    body();
  } finally {
    Object.assign(native, real);
  }
}

test('segments that the kernel does not take are dropped when the buffers of all members run low, and counted', () =>
  withOldKernel(() => {
    using thread = new HandThread();
    const { pool } = thread;
    const counters = new SharedArrayBuffer(8 * 64);
    const context = { pool, queuePairs: 1, report: (reason: string) => assert.unreachable(reason) };
    const uplink = createUplink(context, { name: 'old kernel', tap: { name: 'none' }, counters });
    const member = createSwitch(context, { name: 'old kernel' });
    uplink.poll!();
    const free = pool.available;
    const burst = new Burst(pool, 4);
    const handle = place(pool, packetOf(SHAPE));
    const field = handle * PacketField.WORDS;
    pool.fields[field + PacketField.FLAGS] = PacketFlag.NEEDS_CHECKSUM | PacketFlag.SEGMENT_UDP | (400 << 16);
    pool.fields[field + PacketField.CHECKSUM] = placesOf(SHAPE).transport | (6 << 16);
    burst.handles[burst.count++] = handle;
    member.fromGuest(burst, 0);
    const dropped = (): number => new Float64Array(counters)[SwitchCounter.DROP_NOT_TAKEN]!;
    for (let turn = 0; turn < 4; turn++) uplink.poll!();
    assert.is(dropped(), 0);
    const others = new Uint32Array(pool.available - 100);
    for (let at = 0; at < others.length; at++) assert.ok(pool.allocate(others, at, 1));
    uplink.poll!();
    assert.is(dropped(), 50);
    assert.is(pool.available, free - others.length);
    pool.free(others, 0, others.length);
    member.close();
    uplink.close();
    assert.is(pool.available, pool.size);
  }));

test.run();
