/** The grammar of testpmd's commands: DPDK's cmdline, spec.md 5.2. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { completions, suggestion } from '../../driver/cli/testpmd/console/completion.js';
import { type Command, command, parseLine } from '../../driver/cli/testpmd/console/grammar.js';
import { integerOf, macOf } from '../../driver/cli/testpmd/console/token.js';

const test = suite('testpmd, grammar');

const nothing = (): void => undefined;
const commands: readonly Command[] = [
  command('start', '', nothing),
  command('start tx_first', '', nothing),
  command('stop', '', nothing),
  command('set burst {packets:u16}', '', nothing),
  command('show port {what:info|stats} {port:u16}', '', nothing),
  command('show port {what:info|stats} all', '', nothing),
  command('port attach {device:text}', '', nothing),
  command('set fwd {mode:io|mac}', '', nothing),
];

/** The arguments of a line, or why it is no command. */
const parsed = (line: string): unknown => {
  const result = parseLine(commands, line);
  return typeof result === 'object' ? result.args : result;
};

test('a line of blanks or a comment is nothing', () => {
  for (const line of ['', '   ', '# start', '  #start']) assert.is(parsed(line), undefined);
});

test('a first word that no command has is not found; anything further is a bad argument', () => {
  assert.is(parsed('strat'), 'Command not found');
  assert.is(parsed('sta'), 'Command not found');
  assert.is(parsed('set'), 'Bad arguments');
  assert.is(parsed('set burst many'), 'Bad arguments');
  assert.is(parsed('set burst 3 4'), 'Bad arguments');
});

test('arguments are taken by their names, blanks and a comment are no part of them', () => {
  assert.equal(parsed('  set   burst 0x10#16'), { packets: 16 });
  assert.equal(parsed('show port stats 3 # the third'), { what: 'stats', port: 3 });
  assert.equal(parsed('show port info all'), { what: 'info' });
  assert.equal(parsed('port attach net_tap0,iface=a b#c'), { device: 'net_tap0,iface=a b' });
});

test('a line that two commands fit is ambiguous', () => {
  const twice = [...commands, command('set {what:burst|verbose} {value:u16}', '', nothing)];
  assert.is(parseLine(twice, 'set burst 3'), 'Ambiguous command');
});

test('numbers: decimal, hexadecimal, binary, octal, within the bounds of their kind', () => {
  assert.equal(['0', '17', '017', '0x1F', '0b101', '-3', '08', '1e2', '', '0x', '+1'].map(integerOf), [
    0n,
    17n,
    15n,
    31n,
    5n,
    -3n,
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
  assert.is(parsed('set burst 65536'), 'Bad arguments');
  assert.is(parsed('set burst -1'), 'Bad arguments');
});

test('addresses: six groups of two digits, or three of four', () => {
  assert.equal([...(macOf('02:00:00:00:0a:FF') ?? [])], [2, 0, 0, 0, 10, 255]);
  assert.equal([...(macOf('0200:0000:0aff') ?? [])], [2, 0, 0, 0, 10, 255]);
  for (const word of ['2:0:0:0:a:ff', '020000000aff', '02:00:00:00:0a', '02:00:00:00:0a:fg']) {
    assert.is(macOf(word), undefined, word);
  }
});

test('a word is completed by what commands have at its place', () => {
  assert.equal(completions(commands, 'st'), [['start ', 'stop '], 'st']);
  assert.equal(completions(commands, 'show port s'), [['stats '], 's']);
  assert.equal(completions(commands, 'set fwd '), [['io ', 'mac '], '']);
  assert.equal(completions(commands, 'show fwd '), [[], '']);
});

test('a misspelt word is put right, what is missing is named', () => {
  assert.is(suggestion(commands, 'stpo'), 'did you mean: stop');
  assert.is(suggestion(commands, 'show prot stats 0'), 'did you mean: show port stats 0');
  assert.is(suggestion(commands, 'show port sta 0'), 'did you mean: show port stats 0');
  assert.is(suggestion(commands, 'set burst'), 'expected: set burst (packets)');
  assert.is(suggestion(commands, 'set fwd txonly'), 'expected: set fwd (io|mac)');
});

test.run();
