/** testpmd's command line: getopt_long(3), EAL's lcores and refusals. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parseEalOptions } from '../../driver/cli/testpmd/options/eal-options.js';
import { getopt, type OptionRules } from '../../driver/cli/testpmd/options/getopt.js';
import { lcoresOfList, lcoresOfMap, lcoresOfMask } from '../../driver/cli/testpmd/options/lcore-list.js';
import { Refusal } from '../../driver/cli/testpmd/options/refusal.js';

const test = suite('testpmd, options');

const rules: OptionRules = {
  i: 'none',
  l: 'required',
  rxq: 'required',
  rxd: 'required',
  'rxq-share': 'optional',
  help: 'none',
};

/** Names and values, or the complaint. */
const given = (...args: readonly string[]): unknown =>
  getopt(args, rules).options.map((option) => ('error' in option ? option.error : [option.name, option.value]));

test('getopt: values behind the name, in the next word, behind the letter', () => {
  assert.equal(given('-i', '-l', '0,1', '--rxq=2', '--rxd', '3', '--rxq-share'), [
    ['i', undefined],
    ['l', '0,1'],
    ['rxq', '2'],
    ['rxd', '3'],
    ['rxq-share', undefined],
  ]);
  assert.equal(given('-il0'), [
    ['i', undefined],
    ['l', '0'],
  ]);
});

test('getopt: operands may stand in between, and everything behind -- is one', () => {
  const { options, operands } = getopt(['a', '-i', 'b', '--', '-l'], rules);
  assert.is(options.length, 1);
  assert.equal(operands, ['a', 'b', '-l']);
});

test('getopt: the beginning of a name stands for it; of several, for the first of the same kind', () => {
  assert.equal(given('--he'), [['help', undefined]]);
  assert.equal(given('--rx', '4'), ["option '--rx' is ambiguous; possibilities: '--rxq' '--rxq-share'"]);
  assert.equal(given('--rxd', '4'), [['rxd', '4']]);
});

test('getopt: complaints', () => {
  assert.equal(given('--bogus=3'), ["unrecognized option '--bogus'"]);
  assert.equal(given('--rxq'), ["option '--rxq' requires an argument"]);
  assert.equal(given('--help=me'), ["option '--help' doesn't allow an argument"]);
  assert.equal(given('-x', '-i'), ["invalid option -- 'x'"]);
});

test('lcores: lists, masks and maps', () => {
  assert.equal([...(lcoresOfList('0,2-3,2')?.keys() ?? [])], [0, 2, 3]);
  assert.equal([...(lcoresOfMask('0xd')?.keys() ?? [])], [0, 2, 3]);
  assert.equal(
    [...(lcoresOfMap('0@1,(1,2)@(4-5),7') ?? [])],
    [
      [0, [1]],
      [1, [4, 5]],
      [2, [4, 5]],
      [7, [7]],
    ],
  );
  for (const list of ['', '0,', 'a', '3-', '999']) assert.is(lcoresOfList(list), undefined, list);
  for (const mask of ['', '0', 'xyz']) assert.is(lcoresOfMask(mask), undefined, mask);
  for (const map of ['', '(0', '0@', 'a@1']) assert.is(lcoresOfMap(map), undefined, map);
});

const refused = (args: readonly string[], message: RegExp): void => {
  assert.throws(
    () => parseEalOptions(args, [0, 1]),
    (error: unknown) => error instanceof Refusal && message.test(error.message),
  );
};

test('EAL: what it takes, and what it leaves to testpmd', () => {
  const eal = parseEalOptions(['-l', '0,1', '--vdev', 'net_null0', '--vdev=net_null1', '--no-pci', '--', '-i'], [0, 1]);
  assert.equal(eal.vdevs, ['net_null0', 'net_null1']);
  assert.is(eal.mainLcore, 0);
  assert.equal(eal.rest, ['-i']);
  assert.is(parseEalOptions(['-l', '0,1', '--main-lcore=1'], [0, 1]).mainLcore, 1);
  assert.equal([...parseEalOptions([], [0, 1]).lcores.keys()], [0, 1]);
});

test('EAL: what it refuses', () => {
  refused(['-l', '0,5'], /lcore 5 unavailable\nEAL: invalid core list, please check specified cores are part of 0-1/);
  refused(['-l', '0', '-c', '1'], /Option -c is ignored, because \(-l\) is set!/);
  refused(['-a', '0000:00:04.0', '-b', '0000:00:05.0'], /can't be used at the same time/);
  refused(['--proc-type=secondary'], /--proc-type=secondary is not possible/);
  refused(['--main-lcore=4'], /invalid parameter for --main-lcore/);
  refused(['-s', '1'], /-s is not possible: there are no service cores/);
  refused(['--bogus'], /unrecognized option '--bogus'/);
});

test.run();
