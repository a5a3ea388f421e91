/** What a start costs: which files each thread of a command loads. Time depends on the machine, modules do not. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as everything from '../../driver/index.js';
import * as forThreads from '../../driver/thread.js';
import { runCli } from '../support/cli.js';
import { withFolder } from '../support/temp-folder.js';

const test = suite('start-up');

interface Coverage {
  readonly result: readonly { readonly url: string }[];
}

/** Runs a command line; returns the files that each of its threads has loaded, without the folder that all are in. */
const loadedBy = (args: readonly string[]): Promise<readonly (readonly string[])[]> =>
  withFolder(async (folder) => {
    // Node writes a file for each thread that ends.
    const { status, stderr } = await runCli(args, { environment: { NODE_V8_COVERAGE: folder } });
    assert.is(status, 0, stderr);
    const ours = new URL('../../', import.meta.url).href;
    return readdirSync(folder).map((name) => {
      const { result } = JSON.parse(readFileSync(join(folder, name), 'utf8')) as Coverage;
      const files = result.map(({ url }) => url).filter((url) => url.startsWith(ours));
      return files.map((url) => url.slice(ours.length)).sort();
    });
  });

/** The one thread that has loaded a file. */
function threadWith(threads: readonly (readonly string[])[], file: string): readonly string[] {
  const found = threads.filter((files) => files.includes(file));
  assert.is(found.length, 1, `threads that load ${file}`);
  return found[0]!;
}

/** Fails for a thread with more files than it may have, or with one of those that it has no use for. */
function check(files: readonly string[], most: number, useless: RegExp): void {
  assert.equal(
    files.filter((file) => useless.test(file)),
    [],
    'files without use',
  );
  assert.ok(files.length <= most, `${files.length} files, at most ${most} of:\n${files.join('\n')}`);
}

/** A run that takes longer than half a second opens a control socket, which is more modules. */
const unseen = ['--no-control-socket'];

test('loopback: each thread loads what it uses, and nothing else', async () => {
  const threads = await loadedBy(['loopback', '--packets', '10', '--json', ...unseen]);
  assert.is(threads.length, 3);
  check(
    threadWith(threads, 'driver/cli/main.js'),
    142,
    /^driver\/(index|open|thread)\.|^driver\/pcap\/|\/net\/(port-settings|port-info|control-(?!queue|ring))|\/table\.|\/(vfio|sysfs|vhost|pci-legacy|tap-device|learning-switch)|^driver\/cli\/(backend|doctor|devbind)\//,
  );
  check(
    threadWith(threads, 'driver/cli/loopback/worker.js'),
    56,
    /^driver\/(index|open|thread)\.|^driver\/(transport|pci|wire|pcap|backend)\/|\/net\/port\.|\/capture/,
  );
  check(
    threadWith(threads, 'driver/backend/device-worker.js'),
    96,
    /^driver\/(index|open|thread)\.|^driver\/(transport|pci|net|pcap|wire|backend\/switch)\/|\/ports\/(icmpecho|pcap|sink|source|switch|tap)/,
  );
});

test('loopback over vhost-user: the same, with a server and without a PCI function', async () => {
  const threads = await loadedBy(['loopback', '--transport', 'vhost-user', '--packets', '10', '--json', ...unseen]);
  check(
    threadWith(threads, 'driver/cli/main.js'),
    161,
    /^driver\/(index|thread)\.|\/net\/(port-settings|port-info|control-(?!queue|ring))|^driver\/(pcap|pci\/(?!pci-address))|\/(vfio|sysfs|vhost-kernel|pci-modern|pci-legacy|emulated)/,
  );
});

test('a help text loads no library, and that of a command no other command', async () => {
  const [all = []] = await loadedBy(['--help']);
  check(all, 34, /^driver\/(?!cli\/|errors\.)/);
  for (const name of ['loopback', 'backend', 'devbind', 'doctor', 'top']) {
    assert.ok(all.includes(`driver/cli/${name}/command.js`), name);
    const [one = []] = await loadedBy([name, '--help']);
    check(one, 20, new RegExp(`^driver/(?!cli/|errors\\.)|^driver/cli/(?!${name}/)[a-z]+/`));
  }
});

test('virtio-pmd/thread is a part of virtio-pmd', () => {
  const all: Readonly<Record<string, unknown>> = everything;
  for (const [name, value] of Object.entries(forThreads)) assert.is(value, all[name], name);
  assert.ok(Object.keys(forThreads).length > 10);
});

test.run();
