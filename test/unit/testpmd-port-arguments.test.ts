/** What follows net_virtio_user0 and net_vhost0 on testpmd's command line: DPDK's arguments, usual values and complaints. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parseVhostArguments } from '../../driver/cli/testpmd/devices/vhost-arguments.js';
import { parseVirtioUserArguments } from '../../driver/cli/testpmd/devices/virtio-user-arguments.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';

const test = suite('arguments of testpmd ports');

function refusal(body: () => unknown): VirtioError {
  try {
    body();
  } catch (error) {
    assert.instance(error, VirtioError);
    return error as VirtioError;
  }
  throw new Error('it was taken');
}

test('net_virtio_user: usual values', () => {
  assert.equal(parseVirtioUserArguments('path=/run/a.sock'), {
    backend: 'vhost-user',
    path: '/run/a.sock',
    interface: undefined,
    macAddress: undefined,
    queues: 1,
    queueSize: 256,
    server: false,
    mergeable: true,
    inOrder: true,
    packed: false,
    speed: undefined,
    hasControlQueue: false,
  });
});

test('net_virtio_user: all that there are', () => {
  const given =
    'path=/run/a.sock,mac=0:1:2:3:4:ff,queues=0x2,queue_size=512,server=1,mrg_rxbuf=0,in_order=0,packed_vq=1,vectorized=1,speed=10000';
  assert.equal(parseVirtioUserArguments(given), {
    backend: 'vhost-user',
    path: '/run/a.sock',
    interface: undefined,
    macAddress: Uint8Array.of(0, 1, 2, 3, 4, 255),
    queues: 2,
    queueSize: 512,
    server: true,
    mergeable: false,
    inOrder: false,
    packed: true,
    speed: 10_000,
    hasControlQueue: true,
  });
});

test('net_virtio_user: what begins with no digit is 0, as strtoull has it; an address that is none counts for none', () => {
  const { queues, macAddress } = parseVirtioUserArguments('path=/run/a.sock,queues=x,mac=zz');
  assert.is(queues, 1);
  assert.is(macAddress, undefined);
});

test("net_virtio_user: this kernel's back-end has a tap", () => {
  const { backend, interface: name } = parseVirtioUserArguments('path=/dev/vhost-net,iface=tap7');
  assert.equal([backend, name], ['vhost-kernel', 'tap7']);
});

for (const [devargs, line] of [
  ['', 'arg path is mandatory for virtio_user'],
  ['path=/a,foo=1', 'error when parsing param'],
  ['path=/a,iface=tap0', 'arg iface applies only to vhost-kernel backend'],
  ['path=/a,queues=2,cq=0', 'multi-q requires ctrl-q'],
  ['path=/a,queues=9', 'arg queues 9 exceeds the limit 8'],
] as const) {
  test(`net_virtio_user refuses "${devargs}" with the line of DPDK's log`, () => {
    const { code, message } = refusal(() => parseVirtioUserArguments(devargs));
    assert.is(code, ErrorCode.INVALID_ARGUMENT);
    assert.is(message, `virtio_user_pmd_probe(): ${line}`);
  });
}

test('net_vhost: usual values, and all that there are', () => {
  const usual = { path: '/a', queues: 1, client: false, iommu: false, tso: false };
  assert.equal(parseVhostArguments('iface=/a'), usual);
  const all = 'iface=/a,queues=4,client=1,iommu-support=1,tso=1,linear-buffer=1,ext-buffer=1,postcopy-support=0';
  assert.equal(parseVhostArguments(all), { path: '/a', queues: 4, client: true, iommu: true, tso: true });
});

test('net_vhost refuses postcopy by name, more queues than a device has, what it does not know, and no socket', () => {
  const postcopy = refusal(() => parseVhostArguments('iface=/a,postcopy-support=1'));
  assert.is(postcopy.code, ErrorCode.UNSUPPORTED);
  assert.match(postcopy.message, 'postcopy');
  for (const devargs of ['iface=/a,queues=129', 'iface=/a,queues=x', 'iface=/a,foo=1', '', 'iface=']) {
    assert.is(refusal(() => parseVhostArguments(devargs)).code, ErrorCode.INVALID_ARGUMENT, devargs);
  }
});

test.run();
