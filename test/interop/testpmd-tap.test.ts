/** testpmd's net_tap with the kernel's network stack at the other end. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CLI } from '../support/cli.js';
import { skipUnless, skipWithout } from '../support/skip.js';
import { TapNamespace } from '../support/tap-namespace.js';
import { uniqueName } from '../support/test-names.js';
import { Testpmd } from '../support/testpmd.js';

const peers = skipWithout(suite('testpmd tap'), 'iproute2', 'ping', 'python3');
const test = skipUnless(peers, process.getuid?.() === 0, 'taps and namespaces need root');

const program = [process.execPath, CLI, 'testpmd'];

/** Starts ours over taps, moves each into a namespace of its own, and ends all of it. */
async function withTaps(
  addresses: readonly string[],
  options: readonly string[],
  use: (testpmd: Testpmd, spaces: readonly TapNamespace[]) => Promise<void>,
): Promise<void> {
  const names = addresses.map(() => uniqueName('tp'));
  const vdevs = names.map((name, index) => `net_tap${index},iface=${name}`);
  const testpmd = await Testpmd.start({ program, vdevs, options });
  const spaces: TapNamespace[] = [];
  try {
    for (const [index, name] of names.entries()) spaces.push(await TapNamespace.create(name, addresses[index]!));
    await use(testpmd, spaces);
  } finally {
    await testpmd.quit();
    for (const space of spaces) await space.close();
  }
}

test('icmpecho answers pings of the kernel, on two queues, in bursts smaller than what a tap reads', async () => {
  await withTaps(['198.18.7.1'], ['--rxq=2', '--txq=2', '--burst=4'], async (testpmd, [space]) => {
    await testpmd.command('set fwd icmpecho', /testpmd> $/);
    await testpmd.command('mac_addr set 0 02:00:00:00:07:07', /testpmd> $/);
    assert.is(await space!.macAddress(), '02:00:00:00:07:07', 'the interface has the address of the port');
    await testpmd.command('start', /testpmd> $/);
    assert.is(await space!.ping('198.18.7.9', 50), 50);
    await testpmd.command('stop', /Done\.\n/);
    await testpmd.command('start', /testpmd> $/);
    assert.is(await space!.ping('198.18.7.10', 10), 10, 'after another start');
    await testpmd.command('stop', /TX-packets: [1-9]\d+ [\s\S]*Done\.\n/);
  });
});

for (const mode of ['io', 'csum']) {
  test(`${mode} between two taps carries TCP between two kernels, every byte right`, async () => {
    await withTaps(['198.18.8.1', '198.18.8.2'], [], async (testpmd, spaces) => {
      await testpmd.command(`set fwd ${mode}`, /testpmd> $/);
      // Frames go on to whom they are for.
      if (mode === 'csum') for (const port of [0, 1]) await testpmd.command(`csum mac-swap off ${port}`, /testpmd> $/);
      await testpmd.command('start', /testpmd> $/);
      const { sent, arrived } = await spaces[0]!.transfer(spaces[1]!, 4_000_000);
      assert.is(arrived, sent);
      await testpmd.command('stop', /Done\.\n/);
    });
  });
}

test.run();
