/** The front-end of the kernel's vhost-net against a scripted kernel: requests and their order, features, pairs, events. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorCode, VirtioError } from '../../driver/errors.js';
import { Port } from '../../driver/net/port.js';
import { openPort } from '../../driver/open.js';
import { ControlAck, ControlClass, MacCommand, MqCommand } from '../../driver/spec/control.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import type { TransportEvent } from '../../driver/spec/transport.js';
import {
  TapFlag,
  TUN_PATH,
  TunRequest,
  VHOST_NET_PATH,
  VHOST_NO_FD,
  VhostRequest,
} from '../../driver/spec/vhost-kernel.js';
import { VhostKernelTransport } from '../../driver/transport/vhost-kernel.js';
import type { VhostKernelTransportOptions } from '../../driver/transport/vhost-kernel-options.js';
import { iova } from '../../driver/units.js';
import { native } from '../../native/index.js';
import { until } from '../support/until.js';
import { Errno, FakeKernel, type FakeKernelOptions, KERNEL_OFFER } from '../support/vhost-kernel-fake.js';
import { assertNoFdLeak } from '../support/vhost-user-raw.js';

const test = suite('vhost-kernel: transport');

const BASE = 1n << 32n;
const MEMORY_BYTES = 1 << 20;
const WANTED = FeatureSet.of(Feature.VERSION_1, Feature.MRG_RXBUF, Feature.MAC, Feature.STATUS);
const WANTED_MQ = WANTED.with(Feature.MQ, Feature.CTRL_VQ);
const TAP_FLAGS = TapFlag.TAP | TapFlag.NO_PI | TapFlag.VNET_HDR;

interface Bench {
  readonly kernel: FakeKernel;
  readonly memory: number;
  readonly events: TransportEvent[];
  open(name?: string, options?: Partial<VhostKernelTransportOptions>): VhostKernelTransport;
}

/** Runs `body` with a kernel; afterwards all transports are closed, and nothing may be open. */
function withKernel(body: (bench: Bench) => Promise<void>, options: FakeKernelOptions = {}): Promise<void> {
  return assertNoFdLeak(async () => {
    const kernel = new FakeKernel(options);
    const memory = native.createMemory('guest', MEMORY_BYTES, 0);
    const events: TransportEvent[] = [];
    const transports: VhostKernelTransport[] = [];
    try {
      const open: Bench['open'] = (name = 'tap7', more = {}) => {
        const transport = VhostKernelTransport.open(name, { queuePairs: 1, libc: kernel, ...more });
        transport.onEvent = (event) => events.push(event);
        transports.push(transport);
        return transport;
      };
      await body({ kernel, memory, events, open });
    } finally {
      for (const transport of transports) await transport.close();
      native.closeFd(memory);
    }
    assert.is(kernel.openFiles, 0, 'files of the kernel are open');
    assert.is(kernel.interfaces.size, 0, 'interfaces are left');
  });
}

const queue = (index: number, size = 256) => {
  const desc = BASE + BigInt(index) * 0x10000n;
  return { size, desc: iova(desc), driver: iova(desc + 0x4000n), device: iova(desc + 0x8000n) };
};

/** Everything a driver does until DRIVER_OK, in the specification's order. */
async function bringUp(transport: VhostKernelTransport, memory: number, features = WANTED, pairs = 1): Promise<void> {
  await transport.reset();
  for (const status of [1, 3]) await transport.setStatus(status);
  await transport.accept(features);
  await transport.setStatus(11);
  await transport.shareMemory(iova(BASE), { fd: memory, fileOffset: 0, bytes: MEMORY_BYTES });
  for (let index = 0; index < 2 * pairs; index++) await transport.setUpQueue(index, queue(index));
  await transport.setStatus(15);
}

const ends =
  (code: ErrorCode, pattern: RegExp) =>
  (error: unknown): boolean => {
    assert.instance(error, VirtioError);
    const line = (error as VirtioError).toLine();
    assert.match(line, new RegExp(`^${code}: `));
    assert.match(line, pattern);
    return true;
  };

async function assertFails(promise: Promise<unknown>, code: ErrorCode, pattern = /./): Promise<void> {
  await promise.then(
    () => assert.unreachable(`should have failed with ${code}`),
    (error: unknown) => ends(code, pattern)(error),
  );
}

test('numbers of the requests are those of linux/vhost.h and linux/if_tun.h', () => {
  assert.equal(VhostRequest, {
    GET_FEATURES: 0x8008_af00,
    SET_FEATURES: 0x4008_af00,
    SET_OWNER: 0xaf01,
    RESET_OWNER: 0xaf02,
    SET_MEM_TABLE: 0x4008_af03,
    SET_VRING_NUM: 0x4008_af10,
    SET_VRING_ADDR: 0x4028_af11,
    SET_VRING_BASE: 0x4008_af12,
    GET_VRING_BASE: 0xc008_af12,
    SET_VRING_KICK: 0x4008_af20,
    SET_VRING_CALL: 0x4008_af21,
    SET_VRING_ERR: 0x4008_af22,
    NET_SET_BACKEND: 0x4008_af30,
  });
  assert.equal(TunRequest, {
    SET_IFF: 0x4004_54ca,
    SET_OFFLOAD: 0x4004_54d0,
    GET_IFF: 0x8004_54d2,
    SET_VNET_HDR_SIZE: 0x4004_54d8,
    SET_QUEUE: 0x4004_54d9,
    SET_VNET_LE: 0x4004_54dc,
    SET_CARRIER: 0x4004_54e2,
  });
  assert.equal([TAP_FLAGS, TapFlag.MULTI_QUEUE], [0x5002, 0x100]);
  assert.equal([TapFlag.ATTACH_QUEUE, TapFlag.DETACH_QUEUE], [0x200, 0x400]);
});

const RING = (net: string, index: number): string[] => [
  `${net} SET_VRING_NUM ${index} 256`,
  `${net} SET_VRING_BASE ${index} 0`,
  `${net} SET_VRING_ADDR ${index}`,
  `${net} SET_VRING_CALL ${index} eventfd`,
  `${net} SET_VRING_ERR ${index} eventfd`,
  `${net} SET_VRING_KICK ${index} eventfd`,
];

test('bring-up: the order of the requests; rings meet the tap last, then it has carrier', () =>
  withKernel(async ({ kernel, memory, open }) => {
    await bringUp(open(), memory);
    assert.equal(kernel.takeLog(), [
      'vhost0 SET_OWNER',
      `tap0 TUN_SET_IFF tap7 single ${TAP_FLAGS}`,
      'tap0 TUN_SET_CARRIER 0',
      'tap0 TUN_SET_VNET_LE 1',
      'tap0 TUN_SET_OFFLOAD 0',
      'vhost0 GET_FEATURES',
      // Reset.
      'tap0 TUN_SET_CARRIER 0',
      'tap0 TUN_GET_IFF',
      'vhost0 SET_FEATURES (MRG_RXBUF | VERSION_1)',
      'tap0 TUN_SET_VNET_HDR_SIZE 12',
      'vhost0 SET_MEM_TABLE 1',
      ...RING('vhost0', 0),
      ...RING('vhost0', 1),
      'vhost0 NET_SET_BACKEND 0 tap0',
      'vhost0 NET_SET_BACKEND 1 tap0',
      'tap0 TUN_SET_CARRIER 1',
    ]);
  }));

test('what the kernel learns: our addresses for descriptors, this process’ for memory and rings', () =>
  withKernel(async ({ kernel, memory, open }) => {
    const transport = open();
    await bringUp(transport, memory);
    const [net] = kernel.nets;
    const [region] = net!.regions!;
    assert.equal([region!.guest_phys_addr, region!.memory_size], [BASE, BigInt(MEMORY_BYTES)]);
    // The address is one where the memory really is.
    const map = native.mapShared(memory, 0, MEMORY_BYTES, 0);
    assert.is.not(region!.userspace_addr, native.addressOf(map), 'a mapping of its own');
    native.unmapShared(map);
    for (const [index, ring] of net!.rings.entries()) {
      const { desc, driver, device } = queue(index);
      const offset = region!.userspace_addr - BASE;
      assert.is(ring.addresses!.desc_user_addr, desc + offset);
      assert.is(ring.addresses!.avail_user_addr, driver + offset);
      assert.is(ring.addresses!.used_user_addr, device + offset);
      assert.is(ring.addresses!.flags, 0);
      assert.is(ring.call, transport.interruptFd(index));
    }
    assert.is(net!.rings[0].err, net!.rings[1].err);
  }));

test('the doorbell is the eventfd that the kernel sleeps on: the kernel does not poll', () =>
  withKernel(async ({ kernel, memory, open }) => {
    const transport = open();
    await transport.shareMemory(iova(BASE), { fd: memory, fileOffset: 0, bytes: MEMORY_BYTES });
    const doorbell = await transport.setUpQueue(1, queue(1));
    assert.equal(doorbell, { kind: 'eventfd', fd: kernel.nets[0]!.rings[1].kick });
  }));

test('reset: rings leave the tap before their eventfds go; then everything starts anew', () =>
  withKernel(async ({ kernel, memory, open }) => {
    const transport = open();
    await bringUp(transport, memory);
    kernel.takeLog();
    await transport.reset();
    const gone = (index: number) => ['KICK', 'CALL', 'ERR'].map((name) => `vhost0 SET_VRING_${name} ${index} none`);
    assert.equal(kernel.takeLog(), [
      'vhost0 NET_SET_BACKEND 0 none',
      'vhost0 NET_SET_BACKEND 1 none',
      ...gone(0),
      ...gone(1),
      'tap0 TUN_SET_CARRIER 0',
      'tap0 TUN_GET_IFF',
    ]);
    assert.is(await transport.status(), 0);
    assert.is(transport.interruptFd(0), undefined);
    await transport.unshareMemory(iova(BASE), MEMORY_BYTES);
    assert.equal(kernel.nets[0]!.regions, [], 'the kernel knows no memory that is not mapped');
    await bringUp(transport, memory);
    assert.is.not(kernel.nets[0]!.rings[1].backend, undefined);
  }));

test('memory that rings are in cannot be taken away from under them', () =>
  withKernel(async ({ kernel, memory, open }) => {
    const transport = open();
    await bringUp(transport, memory);
    await assertFails(
      transport.unshareMemory(iova(BASE), MEMORY_BYTES),
      ErrorCode.REQUEST_REFUSED,
      /SET_MEM_TABLE: EFAULT/,
    );
    assert.is(await transport.status(), 15);
    await transport.reset();
    await transport.unshareMemory(iova(BASE), MEMORY_BYTES);
    assert.equal(kernel.nets[0]!.regions, []);
  }));

test('rings that the kernel does not stop: its thread is ended before the memory is used again', async () => {
  const failing: Record<string, number> = {};
  await withKernel(
    async ({ kernel, memory, open }) => {
      const transport = open();
      await bringUp(transport, memory);
      failing['NET_SET_BACKEND'] = Errno.EIO;
      await assertFails(transport.reset(), ErrorCode.REQUEST_REFUSED, /VHOST_NET_SET_BACKEND: EIO/);
      assert.equal(kernel.nets, []);
      await transport.unshareMemory(iova(BASE), MEMORY_BYTES);
      await assertFails(transport.status(), ErrorCode.PEER_GONE, /did not stop its rings/);
    },
    { failing },
  );
});

test('two pairs: a vhost and a queue of the tap each; the second comes with VQ_PAIRS_SET (virtio 1.2 §5.1.6.5.6)', () =>
  withKernel(async ({ kernel, memory, open }) => {
    const transport = open('tap7', { queuePairs: 2 });
    assert.is(await transport.queueCount(), 4);
    assert.ok((await transport.offered()).transport.has(Feature.MQ));
    await bringUp(transport, memory, WANTED_MQ, 2);
    const attached = () => kernel.nets.map(({ rings }) => rings.filter(({ backend }) => backend !== undefined).length);
    assert.equal(attached(), [2, 0]);
    const log = kernel.takeLog();
    assert.ok(log.includes(`tap1 TUN_SET_IFF tap7 multiple ${TAP_FLAGS}`));
    assert.ok(log.includes('tap1 TUN_SET_QUEUE detach'), 'the kernel must not send to a queue that nobody empties');
    const setPairs = (pairs: number) =>
      transport.controlCommand(ControlClass.MQ, MqCommand.VQ_PAIRS_SET, Uint8Array.of(pairs, 0));
    assert.is(await setPairs(2), ControlAck.OK);
    assert.equal(kernel.takeLog(), [
      'tap1 TUN_SET_QUEUE attach',
      'vhost1 NET_SET_BACKEND 0 tap1',
      'vhost1 NET_SET_BACKEND 1 tap1',
    ]);
    assert.is(await setPairs(2), ControlAck.OK);
    assert.equal(kernel.takeLog(), [], 'nothing to do');
    assert.is(await setPairs(1), ControlAck.OK);
    assert.equal(kernel.takeLog(), [
      'vhost1 NET_SET_BACKEND 0 none',
      'vhost1 NET_SET_BACKEND 1 none',
      'tap1 TUN_SET_QUEUE detach',
    ]);
    for (const pairs of [0, 3]) assert.is(await setPairs(pairs), ControlAck.ERR);
    const config = await transport.readConfig(8, 2);
    assert.equal([...config], [2, 0]);
  }));

test('features: what the kernel means otherwise, or has no use here, is not offered', () =>
  withKernel(async ({ open }) => {
    const { device, transport } = await open().offered();
    assert.is(device.toString(), 'MRG_RXBUF | INDIRECT_DESC | EVENT_IDX | VERSION_1');
    assert.is(transport.toString(), 'MAC | STATUS | CTRL_VQ | CTRL_MAC_ADDR');
    assert.ok(
      KERNEL_OFFER.has(Feature.ANY_LAYOUT) && KERNEL_OFFER.has(Feature.ACCESS_PLATFORM),
      'it was there to drop',
    );
  }));

test('a feature that was not offered is not accepted; one that the kernel then refuses is named', async () => {
  await withKernel(async ({ open }) => {
    const wanted = WANTED.with(Feature.RING_PACKED);
    await assertFails(open().accept(wanted), ErrorCode.FEATURE_MISSING, /RING_PACKED/);
  });
  const failing = { SET_FEATURES: Errno.EOPNOTSUPP };
  await withKernel(
    async ({ open }) => {
      await assertFails(
        open().accept(WANTED),
        ErrorCode.NEGOTIATION_FAILED,
        /refuses the features MRG_RXBUF \| VERSION_1/,
      );
    },
    { failing },
  );
});

test('the header before a frame is as long as the accepted features make it (virtio 1.2 §5.1.6)', () =>
  withKernel(async ({ kernel, open }) => {
    const transport = open();
    const headerBytes = () => kernel.interfaces.get('tap7')?.headerBytes;
    await transport.accept(FeatureSet.of(Feature.INDIRECT_DESC));
    assert.is(headerBytes(), 10);
    await transport.accept(WANTED);
    assert.is(headerBytes(), 12);
    assert.equal(kernel.interfaces.get('tap7')?.offloads, 0);
  }));

test('an old kernel without VERSION_1: the driver says so', () =>
  withKernel(
    async ({ open }) => {
      const port = new Port(open());
      await assertFails(port.start(), ErrorCode.FEATURE_MISSING, /VERSION_1/);
      await port.close();
    },
    { offer: FeatureSet.of(Feature.MRG_RXBUF, Feature.ANY_LAYOUT) },
  ));

test('MAC address: the one that is given, or a local one; it can be set', () =>
  withKernel(async ({ open }) => {
    const mac = Uint8Array.of(2, 4, 6, 8, 10, 12);
    const transport = open('tap7', { macAddress: mac });
    assert.equal(await transport.readConfig(0, 6), mac);
    const other = Uint8Array.of(2, 0, 0, 0, 0, 1);
    await transport.accept(WANTED);
    const set = () => transport.controlCommand(ControlClass.MAC, MacCommand.ADDR_SET, other);
    assert.is(await set(), ControlAck.ERR, 'not negotiated');
    await transport.accept(WANTED.with(Feature.CTRL_VQ, Feature.CTRL_MAC_ADDR));
    assert.is(await set(), ControlAck.OK);
    assert.equal(await transport.readConfig(0, 6), other);
    const random = await open('tap8').readConfig(0, 6);
    assert.is(random[0]! & 3, 2);
    await assertFails(transport.readConfig(24, 5), ErrorCode.INVALID_ARGUMENT, /outside/);
  }));

test('a ring outside the shared memory, a queue that is not there, one that is set up: refused before the kernel sees it', () =>
  withKernel(async ({ kernel, memory, open }) => {
    const transport = open();
    await transport.shareMemory(iova(BASE), { fd: memory, fileOffset: 0, bytes: MEMORY_BYTES });
    kernel.takeLog();
    const beyond = { ...queue(0), device: iova(BASE + BigInt(MEMORY_BYTES) - 2048n) };
    await assertFails(transport.setUpQueue(0, beyond), ErrorCode.INVALID_ARGUMENT, /no memory that is shared/);
    await assertFails(transport.setUpQueue(0, { ...queue(0), desc: iova(0n) }), ErrorCode.INVALID_ARGUMENT, /shared/);
    await assertFails(transport.setUpQueue(2, queue(0)), ErrorCode.INVALID_ARGUMENT, /no queue 2/);
    assert.equal(kernel.takeLog(), []);
    await transport.setUpQueue(0, queue(0));
    await assertFails(transport.setUpQueue(0, queue(0)), ErrorCode.WRONG_STATE, /set up already/);
    const same = { fd: memory, fileOffset: 0, bytes: 4096 };
    await assertFails(transport.shareMemory(iova(BASE + 4096n), same), ErrorCode.INVALID_ARGUMENT, /shared already/);
    await assertFails(transport.unshareMemory(iova(BASE), 4096), ErrorCode.INVALID_ARGUMENT, /no 4096 bytes/);
  }));

test('an error that the kernel signals is needs-reset; an interface that is deleted is gone, once', () =>
  withKernel(async ({ kernel, memory, events, open }) => {
    const transport = open();
    await bringUp(transport, memory);
    native.signalEventFd(kernel.nets[0]!.rings[0].err);
    await until(() => events.length > 0, 'the event');
    assert.equal(events.splice(0), [{ type: 'needs-reset' }]);
    transport.checkEvents();
    assert.equal(events, [], 'it is there');
    kernel.delete('tap7');
    transport.checkEvents();
    transport.checkEvents();
    assert.equal(events, [{ type: 'gone', reason: 'its interface was deleted' }]);
    await assertFails(transport.reset(), ErrorCode.PEER_GONE, /tap7 .*deleted.*open it again/);
    assert.is(kernel.nets[0]!.rings[0].backend, undefined, 'the rings were taken from the kernel all the same');
    await assertFails(transport.status(), ErrorCode.PEER_GONE);
  }));

test('an interface that goes while the port is stopped is missed at the next start', () =>
  withKernel(async ({ kernel, open }) => {
    const transport = open();
    kernel.delete('tap7');
    await assertFails(transport.reset(), ErrorCode.PEER_GONE, /tap7 .*deleted/);
  }));

test('the kernel names the interface where nobody else does; one that was made for several queues is opened as such', () =>
  withKernel(
    async ({ open }) => {
      assert.is(open('').address, 'vhost-kernel:tap0');
      assert.is(open('many').address, 'vhost-kernel:many');
    },
    { interfaces: { many: { isMultiple: true } } },
  ));

const REFUSALS: readonly [name: string, FakeKernelOptions, queuePairs: number, ErrorCode, RegExp][] = [
  ['no module', { openErrno: { [VHOST_NET_PATH]: Errno.ENOENT } }, 1, 'NOT_FOUND', /vhost-net .*modprobe vhost_net/],
  [
    'no right to it',
    { openErrno: { [VHOST_NET_PATH]: Errno.EACCES } },
    1,
    'PERMISSION_DENIED',
    /vhost-net .*run as root/,
  ],
  ['something else at its path', { failing: { SET_OWNER: Errno.ENOTTY } }, 1, 'WRONG_KIND', /vhost_net/],
  ['no thread for it', { failing: { SET_OWNER: Errno.ENOMEM } }, 1, 'NO_RESOURCES', /queue pairs/],
  ['no taps', { openErrno: { [TUN_PATH]: Errno.ENOENT } }, 1, 'NOT_FOUND', /modprobe tun/],
  ['no right to taps', { openErrno: { [TUN_PATH]: Errno.EACCES } }, 1, 'PERMISSION_DENIED', /net\/tun/],
  [
    'no right to make one',
    { failing: { TUN_SET_IFF: Errno.EPERM } },
    2,
    'PERMISSION_DENIED',
    /CAP_NET_ADMIN.*multi_queue user/,
  ],
  ['busy', { interfaces: { tap7: { taken: 1 } } }, 1, 'IN_USE', /tap7 .*another program/],
  ['no tap', { interfaces: { tap7: 'no tap' } }, 1, 'WRONG_KIND', /no tap .*ip -details link show tap7/],
  ['made for one queue', { interfaces: { tap7: {} } }, 2, 'WRONG_KIND', /made for one queue/],
  ['no queues left', { failing: { TUN_SET_IFF: Errno.E2BIG } }, 2, 'NO_RESOURCES', /fewer queue pairs/],
];

for (const [name, options, queuePairs, code, pattern] of REFUSALS) {
  test(`opening fails, says why, and leaves nothing open: ${name}`, () =>
    withKernel(async ({ kernel, open }) => {
      assert.throws(() => open('tap7', { queuePairs }), ends(code, pattern));
      assert.is(kernel.openFiles, 0);
      kernel.interfaces.clear();
    }, options));
}

test('names and numbers that can never work are refused before anything is opened', () =>
  withKernel(async ({ kernel, open }) => {
    for (const name of ['abcdefghijklmnop', 'a b', 'a/b', 'a:b', 'tap%d', '..', 'é', 'a\0b']) {
      assert.throws(() => open(name), ends(ErrorCode.INVALID_ARGUMENT, /name/), name);
    }
    open('abcdefghijklmno');
    for (const queuePairs of [0, 1.5, 129])
      assert.throws(() => open('x', { queuePairs }), ends(ErrorCode.INVALID_ARGUMENT, /128/));
    const macAddress = Uint8Array.of(1, 0, 0, 0, 0, 0);
    assert.throws(() => open('x', { macAddress }), ends(ErrorCode.INVALID_ARGUMENT, /group/));
    assert.is(kernel.openFiles, 2);
  }));

test('a port over it: starts and stops again and again, with event fds of its own each time', () =>
  withKernel(async ({ kernel, open }) => {
    const port = new Port(open('tap7', { queuePairs: 2 }), { queues: 2, ringSize: 64 });
    for (let round = 0; round < 3; round++) {
      await port.start();
      for (const { regions, rings } of kernel.nets) {
        assert.is(regions?.length, 2);
        for (const ring of rings) assert.is.not(ring.backend, undefined);
      }
      // The rings fill when a thread takes the queue; that is when the kernel hears of it.
      port.rxQueue(1);
      assert.is(native.drainEventFd(kernel.nets[1]!.rings[0].kick) > 0n, true, 'a kick');
      await port.stop();
      for (const { regions, rings } of kernel.nets) {
        assert.equal(regions, []);
        for (const ring of rings) assert.equal([ring.backend, ring.kick], [undefined, VHOST_NO_FD]);
      }
    }
    await port.close();
  }));

test('openPort takes vhost-kernel:IFNAME', () =>
  assertFails(openPort('vhost-kernel:abcdefghijklmnop'), ErrorCode.INVALID_ARGUMENT, /16 characters, and 15/));

test.run();
