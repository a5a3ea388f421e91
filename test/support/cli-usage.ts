/** Command lines that can never work. */

import * as assert from 'uvu/assert';

import { runCli } from './cli.js';

/** Runs it and sees the one line, the status, and that neither output nor anything else was made. */
export async function assertWrongUsage(args: readonly string[], complaint: RegExp): Promise<void> {
  const end = await runCli(args);
  const what = `virtio-pmd ${args.join(' ')}: ${end.stdout}${end.stderr}`;
  assert.is(end.status, 2, what);
  assert.is(end.errors.length, 1, what);
  assert.match(end.stderr, /^virtio-pmd: INVALID_ARGUMENT: [^\n]+ \([^\n]+\)\n$/, what);
  assert.match(end.stderr, complaint);
  assert.is(end.stdout, '', what);
  assert.equal(end.left, [], what);
}
