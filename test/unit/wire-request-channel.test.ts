/** Requests and replies of the asking end: order, acknowledgement, refusal, time limits, and replies that cannot be. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type ErrorCode, VirtioError } from '../../driver/errors.js';
import { RequestChannel } from '../../driver/wire/request-channel.js';
import { VhostUserSocket } from '../../driver/wire/vhost-user-socket.js';
import { native } from '../../native/index.js';
import { assertNoFdLeak, Id, NEED_REPLY, RawPeer, REPLY, u32s, u64s, VERSION } from '../support/vhost-user-raw.js';

const test = suite('wire: request channel');

const ANSWER = { flags: VERSION | REPLY };

function withChannel(body: (channel: RequestChannel, peer: RawPeer) => Promise<void>, timeoutMs = 5000): Promise<void> {
  return assertNoFdLeak(async () => {
    const [ours, theirs] = native.socketPair();
    const channel = new RequestChannel(new VhostUserSocket(ours), { timeoutMs });
    const peer = new RawPeer(theirs);
    try {
      await body(channel, peer);
    } finally {
      channel.close();
      peer.close();
    }
  });
}

async function assertFails(promise: Promise<unknown>, code: ErrorCode, pattern: RegExp): Promise<void> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, VirtioError);
    assert.is((error as VirtioError).code, code, (error as VirtioError).message);
    assert.match((error as VirtioError).message, pattern);
    return;
  }
  assert.unreachable(`should have failed with ${code}`);
}

test('a request with a reply of its own resolves to its values', () =>
  withChannel(async (channel, peer) => {
    const features = channel.call('GET_FEATURES', undefined);
    await peer.expect(Id.GET_FEATURES, VERSION);
    await peer.send(Id.GET_FEATURES, u64s(0x1_4000_0000n), ANSWER);
    assert.equal(await features, { u64: 0x1_4000_0000n });
  }));

test('requests go one after the other, each after the reply to the one before', () =>
  withChannel(async (channel, peer) => {
    const first = channel.call('GET_VRING_BASE', { index: 0, num: 0 });
    const second = channel.call('GET_VRING_BASE', { index: 1, num: 0 });
    for (const index of [0, 1]) {
      const request = await peer.expect(Id.GET_VRING_BASE, VERSION);
      assert.equal(request.payload, u32s(index, 0));
      await new Promise((resolve) => setTimeout(resolve, 5));
      await peer.send(Id.GET_VRING_BASE, u32s(index, index + 7), ANSWER);
    }
    assert.equal(await first, { index: 0, num: 7 });
    assert.equal(await second, { index: 1, num: 8 });
  }));

test('without REPLY_ACK a request without a reply resolves when it is sent, and does not ask for one', () =>
  withChannel(async (channel, peer) => {
    await channel.call('SET_OWNER', undefined);
    await peer.expect(Id.SET_OWNER, VERSION);
  }));

test('with REPLY_ACK it waits for a u64 0; anything else is REQUEST_REFUSED, and the channel goes on', () =>
  withChannel(async (channel, peer) => {
    channel.hasReplyAck = true;
    const accepted = channel.call('SET_FEATURES', { u64: 5n });
    assert.equal((await peer.expect(Id.SET_FEATURES, VERSION | NEED_REPLY)).payload, u64s(5n));
    await peer.send(Id.SET_FEATURES, u64s(0n), ANSWER);
    assert.is(await accepted, undefined);
    const refused = channel.call('SET_FEATURES', { u64: 7n });
    await peer.expect(Id.SET_FEATURES, VERSION | NEED_REPLY);
    await peer.send(Id.SET_FEATURES, u64s(1n), ANSWER);
    await assertFails(refused, 'REQUEST_REFUSED', /refused SET_FEATURES/);
    const next = channel.call('GET_STATUS', undefined);
    await peer.expect(Id.GET_STATUS, VERSION);
    await peer.send(Id.GET_STATUS, u64s(15n), ANSWER);
    assert.equal(await next, { u64: 15n });
  }));

test('descriptors go along and stay open here', () =>
  withChannel(async (channel, peer) => {
    const fd = native.createEventFd(0);
    await channel.call('SET_VRING_KICK', { u64: 0n }, { fds: [fd] });
    const received = await peer.expect(Id.SET_VRING_KICK, VERSION, 1);
    native.signalEventFd(received.fds[0]!);
    assert.is(native.drainEventFd(fd), 1n);
    native.closeFd(received.fds[0]!);
    native.closeFd(fd);
  }));

test('GET_CONFIG refuses with an empty payload', () =>
  withChannel(async (channel, peer) => {
    const config = channel.call('GET_CONFIG', { offset: 0, flags: 0, bytes: new Uint8Array(12) });
    await peer.expect(Id.GET_CONFIG, VERSION);
    await peer.send(Id.GET_CONFIG, Buffer.alloc(0), ANSWER);
    await assertFails(config, 'REQUEST_REFUSED', /refused GET_CONFIG/);
    assert.is(channel.gone, undefined);
  }));

test('no answer in time is TIMEOUT, and gives the connection up', () =>
  withChannel(async (channel, peer) => {
    const waiting = channel.call('GET_FEATURES', undefined);
    const behind = channel.call('GET_STATUS', undefined);
    await assertFails(waiting, 'TIMEOUT', /an answer to GET_FEATURES did not come within 20 ms/);
    await assertFails(behind, 'PEER_GONE', /no answer to GET_FEATURES/);
    await peer.expect(Id.GET_FEATURES, VERSION);
    await peer.expectClosed();
  }, 20));

test('an aborted wait is ABORTED', () =>
  withChannel(async (channel) => {
    const abort = new AbortController();
    const waiting = channel.call('GET_FEATURES', undefined, { signal: abort.signal });
    setTimeout(() => abort.abort(), 5);
    await assertFails(waiting, 'ABORTED', /GET_FEATURES was aborted/);
  }));

test('a peer that goes away fails what is pending and says so once', () =>
  withChannel(async (channel, peer) => {
    const reasons: string[] = [];
    channel.onGone = (reason) => reasons.push(reason.message);
    const waiting = channel.call('GET_FEATURES', undefined);
    await peer.expect(Id.GET_FEATURES, VERSION);
    peer.close();
    await assertFails(waiting, 'PEER_GONE', /closed the connection after GET_FEATURES/);
    await assertFails(channel.call('GET_STATUS', undefined), 'PEER_GONE', /closed/);
    assert.equal(reasons, ['the back-end closed the connection after GET_FEATURES']);
  }));

test('answers that cannot be end the connection', async () => {
  const answers: [string, (peer: RawPeer) => Promise<void>, RegExp][] = [
    [
      'of another request',
      (peer) => peer.send(Id.GET_STATUS, u64s(0n), ANSWER),
      /GET_STATUS while an answer to GET_FEATURES/,
    ],
    ['without the reply flag', (peer) => peer.send(Id.GET_FEATURES, u64s(0n)), /sent a request GET_FEATURES/],
    ['too short', (peer) => peer.send(Id.GET_FEATURES, u32s(0), ANSWER), /4 bytes, not 8/],
    ['too long', (peer) => peer.send(Id.GET_FEATURES, u64s(0n, 0n), ANSWER), /16 bytes, not 8/],
    [
      'with a descriptor',
      (peer) => peer.send(Id.GET_FEATURES, u64s(0n), { ...ANSWER, fds: [0] }),
      /1 descriptors came/,
    ],
  ];
  for (const [what, answer, pattern] of answers) {
    await withChannel(async (channel, peer) => {
      const waiting = channel.call('GET_FEATURES', undefined);
      await peer.expect(Id.GET_FEATURES, VERSION);
      await answer(peer);
      await assertFails(waiting, 'PROTOCOL_VIOLATION', pattern);
      assert.ok(channel.gone !== undefined, what);
    });
  }
});

test('what nobody asked for ends the connection', () =>
  withChannel(async (channel, peer) => {
    const reasons: string[] = [];
    channel.onGone = (reason) => reasons.push(reason.code);
    await peer.send(Id.GET_FEATURES, u64s(0n), { ...ANSWER, fds: [0] });
    await peer.expectClosed();
    assert.equal(reasons, ['PROTOCOL_VIOLATION']);
  }));

test.run();
