/** Parts of the test runner by themselves: Node versions, output, changes of the machine. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { type MachineState, stateChanges } from '../support/machine-state.js';
import { nodeComplaint, otherVersions } from '../support/node-versions.js';
import { ALL_PEERS, missingPeers, packagesOf } from '../support/peers.js';
import { closingLine, Report } from '../support/report.js';
import { uniqueName } from '../support/test-names.js';
import { skipReasons, uvuSummary } from '../support/uvu-output.js';

const test = suite('test runner, parts');

test('Node 20.17 is the oldest that will do', () => {
  for (const version of ['20.17.0', '20.20.2', '22.0.0', '24.21.0', '26.0.0'])
    assert.is(nodeComplaint(version), undefined);
  for (const version of ['18.20.0', '20.16.9', '8.0.0']) assert.match(nodeComplaint(version) ?? '', 'too old');
});

test('other versions: one of each other release line', () => {
  const lines = (running: string) => otherVersions(running).map((version) => version.split('.')[0]);
  assert.equal(lines('20.20.2'), ['22', '24']);
  assert.equal(lines('22.1.0'), ['24']);
});

test('the last summary in the output counts, with or without colours', () => {
  const summary = (passed: number) =>
    `  Total:     12\n  Passed:    ${passed}\n  Skipped:   1\n  Duration:  3.01ms\n\n`;
  assert.equal(uvuSummary(`${summary(3)}said by a test\n${summary(11)}`), { total: 12, passed: 11, skipped: 1 });
  const coloured =
    '\n  Total:     2\u001b[32m\n  Passed:    2\u001b[39m\n  Skipped:   \u001b[33m4\u001b[39m\n  Duration:  1ms';
  assert.equal(uvuSummary(coloured), { total: 2, passed: 2, skipped: 4 });
  assert.is(uvuSummary('Exiting early before testing is finished.'), undefined);
});

test('reasons for skipping', () => {
  const output = 'skipped: a (needs root)\n x  • skipped: not a line of its own\nskipped: b (needs the moon)\n';
  assert.equal(skipReasons(output), ['a (needs root)', 'b (needs the moon)']);
});

test('the closing line names skipped tests only where there are any', () => {
  assert.is(closingLine({ passed: 12, failed: 0, skipped: 0 }), '12 passed, 0 failed');
  assert.is(closingLine({ passed: 12, failed: 1, skipped: 3 }), '12 passed, 1 failed, 3 skipped');
});

test('changes of the machine: by name only one’s own, where nobody else is about all', () => {
  const state = (pages: number, ...names: string[]): MachineState => ({
    hugepages: new Map([['hugepages-2048kB', pages]]),
    names: new Set(names),
  });
  const before = state(0, 'network namespace old');
  const after = state(4, 'network namespace old', 'network namespace vpabc1230', 'network interface docker0');
  assert.equal(stateChanges(before, after, { mine: 'abc123', hugepages: false }), [
    'left behind: network namespace vpabc1230',
  ]);
  assert.equal(stateChanges(before, after, { mine: undefined, hugepages: true }), [
    'hugepages-2048kB: 0 pages reserved before, 4 after',
    'left behind: network namespace vpabc1230',
    'left behind: network interface docker0',
  ]);
  assert.equal(stateChanges(after, before, { mine: undefined, hugepages: false }), [], 'what is gone is no leftover');
});

test('names are unique and fit into an interface name', () => {
  const names = Array.from({ length: 100 }, () => uniqueName('vp'));
  assert.is(new Set(names).size, 100);
  assert.ok(names.every((name) => name.length <= 15));
});

test('every peer has a package, and a missing one is found missing', () => {
  assert.is(packagesOf(ALL_PEERS).length > 0, true);
  assert.equal(missingPeers([]), []);
});

test('on a terminal the running line is cleared before every line', () => {
  let text = '';
  const report = new Report({ write: (part) => (text += part), isTTY: true, columns: 40 });
  report.startSuite('unit', 1);
  report.startFile('unit/x.test.ts');
  report.line('something');
  report.endSuite();
  assert.match(text, '\r\u001b[Ksomething\n');
});

test.run();
