/** The front-end of the kernel's vhost-net when requests fail: each in turn, and nothing is left open or connected. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { VirtioError } from '../../driver/errors.js';
import { Port } from '../../driver/net/port.js';
import { VhostKernelTransport } from '../../driver/transport/vhost-kernel.js';
import { FakeKernel } from '../support/vhost-kernel-fake.js';
import { assertNoFdLeak, countMappings } from '../support/vhost-user-raw.js';

const test = suite('vhost-kernel: requests that fail');

/** Opens, starts, stops and closes a port; resolves to the first failure. */
async function life(kernel: FakeKernel): Promise<unknown> {
  let port: Port | undefined;
  try {
    port = new Port(VhostKernelTransport.open('tap7', { queuePairs: 2, libc: kernel }), { queues: 2, ringSize: 64 });
    await port.start();
    port.rxQueue(0);
    await port.stop();
    await port.close();
    return undefined;
  } catch (error) {
    await port?.close().catch(() => undefined);
    return error;
  }
}

test('any request of a port’s life fails: an error of ours, and no descriptor, mapping or connected ring is left', async () => {
  const whole = new FakeKernel();
  assert.is(await life(whole), undefined);
  assert.ok(whole.requests > 40, `${whole.requests} requests`);
  const mappings = countMappings();
  let failures = 0;
  for (let failAt = 0; failAt < whole.requests; failAt++) {
    const kernel = new FakeKernel({ failAt });
    await assertNoFdLeak(async () => {
      const error = await life(kernel);
      if (error !== undefined) {
        failures++;
        assert.instance(error, VirtioError, `request ${failAt}: ${error}\n${kernel.log.at(-1)}`);
      }
    });
    assert.is(kernel.openFiles, 0, `request ${failAt}`);
    assert.is(kernel.interfaces.size, 0, `request ${failAt}`);
  }
  assert.ok(countMappings() <= mappings + 2, `${countMappings()} mappings, ${mappings} before`);
  // The others are those of the carrier, which old kernels lack, and of queues that are out of use already.
  assert.ok(failures > whole.requests / 2, `${failures} of ${whole.requests} failed`);
});

test.run();
