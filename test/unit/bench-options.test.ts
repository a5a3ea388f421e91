/** The bench's command line and the paths it knows. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { CommanderError, parseOptions, usageStatus } from '../../bench/options.js';
import { choosePaths, featureMismatch, PATHS, pathTaken, virtioUserArguments } from '../../bench/paths.js';
import { matrixOf } from '../../bench/scenario.js';
import { ErrorCode, VirtioError } from '../../driver/errors.js';

const test = suite('bench options');

/** Runs `body` with everything that it writes to standard error and output thrown away. */
function silently<T>(body: () => T): T {
  const writes = [process.stderr.write, process.stdout.write] as const;
  process.stderr.write = process.stdout.write = () => true;
  try {
    return body();
  } finally {
    [process.stderr.write, process.stdout.write] = writes;
  }
}

function statusOf(...args: string[]): number {
  try {
    silently(() => parseOptions(args));
    return -1;
  } catch (error) {
    assert.ok(error instanceof CommanderError);
    return usageStatus(error);
  }
}

test('by itself: every part and pairing, at least five rounds of two starts', () => {
  const options = parseOptions([]);
  assert.equal(options.pairings, ['dpdk-dpdk', 'ours-dpdk', 'dpdk-ours', 'ours-ours', 'switch-dpdk', 'switch-ours']);
  assert.equal(options.parts, [
    ...['rates', 'latency', 'non-drop', 'growth', 'layers', 'start-up', 'reconnect', 'memory'],
  ]);
  assert.ok(options.rounds >= 5 && options.starts >= 2);
});

test('the matrix by itself has ten paths, every size, one and two queues', () => {
  const matrix = matrixOf(parseOptions([]));
  assert.is(new Set(matrix.map(({ path }) => path.name)).size, 10);
  const sizes = matrix.filter(({ path }) => path.name === 'split_mergeable').map(({ size }) => size);
  assert.equal([...new Set(sizes)], [64, 128, 256, 512, 1024, 1518, 'imix']);
  assert.equal([...new Set(matrix.map(({ queues }) => queues))], [1, 2]);
});

test('--full crosses all of that, and lists are crossed with each other', () => {
  assert.is(matrixOf(parseOptions(['--full'])).length, 10 * 7 * 2);
  assert.is(matrixOf(parseOptions(['--path', 'all', '--sizes', '64', '--queues', '1,2'])).length, 20);
  const [only, ...others] = matrixOf(parseOptions(['--path', 'packed_mergeable', '--sizes', 'imix']));
  assert.equal([only?.path.name, only?.size, only?.queues, others.length], ['packed_mergeable', 'imix', 1, 0]);
});

test('--quick is one path, two sizes and one start, without the longest parts, unless more is asked for', () => {
  const quick = parseOptions(['--quick']);
  assert.is(matrixOf(quick).length, 2);
  assert.is(quick.starts, 1);
  assert.equal(quick.parts, ['rates', 'layers', 'start-up', 'memory']);
  assert.ok(quick.trialSeconds < parseOptions([]).trialSeconds);
  assert.is(parseOptions(['--quick', '--starts', '2']).starts, 2);
  assert.is(new Set(matrixOf(parseOptions(['--quick', '--path', 'all'])).map(({ path }) => path.name)).size, 10);
  assert.equal(parseOptions(['--quick', '--only', 'latency,growth']).parts, ['latency', 'growth']);
});

test('lists and numbers are read', () => {
  const options = parseOptions([
    ...['--pairings', 'ours-ours,dpdk-ours', '--sizes', '128,imix', '--rounds', '7', '--json', 'x', '--out', 'y'],
    ...['--trial', '0.5', '--loss', '0.001', '--growth', 'burst,guest-memory'],
  ]);
  assert.equal(options.pairings, ['ours-ours', 'dpdk-ours']);
  assert.equal(options.sizes, [128, 'imix']);
  assert.is(options.rounds, 7);
  assert.is(options.json, 'x');
  assert.is(options.out, 'y');
  assert.is(options.trialSeconds, 0.5);
  assert.is(options.lossMax, 0.001);
  assert.equal(options.axes, ['burst', 'guest-memory']);
});

test('wrong usage is status 2, help is 0', () => {
  assert.is(statusOf('--pairings', 'ours'), 2);
  assert.is(statusOf('--sizes', '59'), 2);
  assert.is(statusOf('--sizes', '64,1519'), 2);
  assert.is(statusOf('--rounds', '0'), 2);
  assert.is(statusOf('--rounds', '1e1'), 2);
  assert.is(statusOf('--path', 'split'), 2);
  assert.is(statusOf('--only', 'speed'), 2);
  assert.is(statusOf('--growth', 'all'), 2);
  assert.is(statusOf('--trial', '0'), 2);
  assert.is(statusOf('--loss', '2'), 2);
  assert.is(statusOf('--bogus'), 2);
  assert.is(statusOf('--help'), 0);
});

test("the ten paths of DPDK's loop-back plan", () => {
  const kinds = ['mergeable', 'non_mergeable', 'inorder_mergeable', 'inorder_non_mergeable', 'vectorized'];
  assert.equal(
    PATHS.map((path) => path.name),
    ['split', 'packed'].flatMap((ring) => kinds.map((kind) => `${ring}_${kind}`)),
  );
});

test('each path asks for what its name says', () => {
  for (const path of PATHS) {
    assert.is(path.packed, path.name.startsWith('packed'), path.name);
    assert.is(path.mergeable, /(^|_)(?<!non_)mergeable$/.test(path.name), path.name);
    const isInOrder = path.name.includes('inorder') || path.name === 'packed_vectorized';
    assert.is(path.inOrder, isInOrder, path.name);
  }
  assert.is(
    virtioUserArguments(choosePaths('packed_vectorized')[0]!),
    'packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=1',
  );
  assert.is(virtioUserArguments(choosePaths('split_mergeable')[0]!), 'packed_vq=0,mrg_rxbuf=1,in_order=0,vectorized=0');
});

test('features that are not those of the path are named', () => {
  const [path] = choosePaths('split_mergeable');
  assert.is(featureMismatch(path!, 0x150008000n), '', 'VERSION_1 | MRG_RXBUF | INDIRECT_DESC | PROTOCOL_FEATURES');
  assert.is(featureMismatch(path!, 1n << 34n), 'mergeable is off, packed is on');
  assert.is(featureMismatch(choosePaths('packed_vectorized')[0]!, (1n << 34n) | (1n << 35n)), '');
});

test('the path that DPDK takes with these features; without IN_ORDER others than those that name it', () => {
  const bits = { mergeable: 1n << 15n, packed: 1n << 34n, inOrder: 1n << 35n };
  for (const path of PATHS) {
    const wanted = (path.mergeable ? bits.mergeable : 0n) | (path.packed ? bits.packed : 0n);
    assert.is(pathTaken(path, wanted | (path.inOrder ? bits.inOrder : 0n)).name, path.name);
    const ring = path.packed ? 'packed' : 'split';
    const plain = `${ring}_${path.mergeable ? 'mergeable' : 'non_mergeable'}`;
    assert.is(pathTaken(path, wanted).name, path.name === 'split_vectorized' ? path.name : plain, path.name);
  }
});

test('a path that is none is refused, and the known ones named', () => {
  try {
    choosePaths('split_mergeable,bogus');
    assert.unreachable();
  } catch (error) {
    assert.ok(error instanceof VirtioError);
    assert.is(error.code, ErrorCode.INVALID_ARGUMENT);
    assert.match(error.advice ?? '', 'packed_mergeable');
  }
});

test.run();
