/** What `virtio-pmd top` makes of snapshots: rates, rows, columns and lines, at several widths. */

import stringWidth from 'string-width';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { RunningProcess } from '../../driver/cli/control/processes.js';
import { choiceLines } from '../../driver/cli/top/choose.js';
import { bar, curve, elapsed, glyphsFor, scaled } from '../../driver/cli/top/figures.js';
import { Rates, type Sample } from '../../driver/cli/top/rates.js';
import { type Frame, render } from '../../driver/cli/top/render.js';
import { fit, printable } from '../../driver/cli/top/text.js';
import { afterKey, rowsOf, type ViewState, viewState } from '../../driver/cli/top/view-state.js';
import { portSnapshot, queueSnapshot, snapshotAt } from '../support/snapshots.js';

const test = suite('virtio-pmd top: the view');

const glyphs = glyphsFor({ LANG: 'C.UTF-8' });
const frame = (columns: number, rows = 24): Frame => ({ columns, rows, glyphs });
const state = viewState(1000);
const pressed = (keys: readonly string[], from: ViewState = state): ViewState =>
  keys.reduce((current, key) => afterKey(current, key) ?? current, from);

/** Two guests, two seconds apart: one is busy, one stands still. */
function busySample(): Sample {
  const rates = new Rates();
  const ports = (packets: number, drops: number) => [
    portSnapshot('1: /run/vm1.sock', [
      queueSnapshot('receiveq 0', {
        packets,
        bytes: 64 * packets,
        drops: { notTaken: drops, runt: 3 },
        polls: packets / 10,
        emptyPolls: packets / 20,
        notifications: { kind: 'call', sent: packets / 100, saved: 0 },
        ring: { size: 256, withDevice: 64 },
      }),
      queueSnapshot('transmitq 0', {
        packets: 2 * packets,
        bytes: 3000 * packets,
        ring: { size: 32768, withDevice: 0 },
      }),
    ]),
    portSnapshot('2: /run/vm2.sock', [queueSnapshot('receiveq 0'), queueSnapshot('transmitq 0')]),
  ];
  const threads = (cpuSeconds: number) => ({ threads: [{ name: 'device-2', id: 7, cpuSeconds, processor: 2 }] });
  rates.sample(snapshotAt(100, ports(1000, 0), threads(50)));
  return rates.sample(snapshotAt(102, ports(2_001_000, 500), threads(51.5)));
}

const textOf = (sample: Sample, view: ViewState, at: Frame): string[] =>
  render(sample, view, at).map(({ text }) => text);

test('rates are differences a second; totals by the way of packets', () => {
  const sample = busySample();
  const [receive, transmit, idle] = sample.queues;
  assert.is(sample.seconds, 2);
  assert.is(receive!.packetsPerSecond, 1_000_000);
  assert.is(receive!.bytesPerSecond, 64_000_000);
  assert.is(receive!.dropsPerSecond, 250);
  assert.equal(receive!.dropReasons, { notTaken: 250 }, 'reasons that do not occur now are left out');
  assert.is(receive!.hits, 0.5);
  assert.is(receive!.notificationsPerSecond, 10_000);
  assert.is(transmit!.packetsPerSecond, 2_000_000);
  assert.equal([idle!.packetsPerSecond, idle!.hits, idle!.ring], [0, null, null]);
  assert.equal(sample.out, { packetsPerSecond: 1_000_000, bytesPerSecond: 64_000_000 });
  assert.equal(sample.in, { packetsPerSecond: 2_000_000, bytesPerSecond: 3_000_000_000 });
  assert.equal([sample.drops, sample.dropsPerSecond], [503 + 0, 250]);
  assert.equal(sample.threads, [{ name: 'device-2', id: 7, cpu: 0.75, processor: 2 }]);
});

test('a counter that was reset begins at 0; a queue that is new has no rate yet; the same moment none at all', () => {
  const rates = new Rates();
  const queue = (packets: number) => [portSnapshot('p', [queueSnapshot('transmitq 0', { packets })])];
  assert.is(rates.sample(snapshotAt(1, queue(5000))).queues[0]!.packetsPerSecond, 0, 'the first look');
  assert.is(rates.sample(snapshotAt(2, queue(30))).queues[0]!.packetsPerSecond, 30);
  assert.is(rates.sample(snapshotAt(2, queue(90))).queues[0]!.packetsPerSecond, 0);
  const other = [portSnapshot('q', [queueSnapshot('transmitq 0', { packets: 1e9 })])];
  assert.is(rates.sample(snapshotAt(3, other)).queues[0]!.packetsPerSecond, 0);
});

test('names that look alike when they are joined are different queues', () => {
  const rates = new Rates();
  const ports = (first: number, second: number) => [
    portSnapshot('a', [queueSnapshot('b c', { packets: first })]),
    portSnapshot('a b', [queueSnapshot('c', { packets: second })]),
  ];
  rates.sample(snapshotAt(1, ports(0, 0)));
  const { queues } = rates.sample(snapshotAt(2, ports(10, 20)));
  assert.equal(
    queues.map(({ packetsPerSecond }) => packetsPerSecond),
    [10, 20],
  );
});

test('80 x 24: everything that is usual, in 24 lines of 80 columns at most', () => {
  const lines = textOf(busySample(), state, frame(80));
  assert.is(lines.length, 24);
  assert.is(lines[0], 'virtio-pmd top: backend 1234, up 1:42; 2 ports, 4 queues, every 1 s');
  assert.is(lines[1], 'in        2.00 M packet/s  24.0 G bit/s');
  assert.is(lines[3], 'dropped      250 packet/s 503 in all; now 250 notTaken');
  assert.is(lines[4], 'threads  device-2 75 % on 2');
  assert.is(lines[6], 'PORT             QUEUE        PACKET/S   BIT/S  DROP/S RING FILL          HITS');
  assert.is(lines[7], '1: /run/vm1.sock receiveq 0     1.00 M   512 M     250 ██░░░░    64/256   50 %');
  assert.is(lines[8], '1: /run/vm1.sock transmitq 0    2.00 M  24.0 G       0 ░░░░░░   0/32768      -');
  assert.is(lines[9], '2: /run/vm2.sock receiveq 0          0       0       0 -                     -');
  assert.match(lines[23]!, /^q quit {2}s sort: port/);
});

for (const columns of [20, 40, 60, 80, 100, 132, 200]) {
  test(`${columns} columns: no line is longer, the header stands over its columns, more room shows more`, () => {
    const lines = textOf(busySample(), state, frame(columns));
    for (const line of lines) assert.ok(stringWidth(line) <= columns, `${stringWidth(line)}: ${line}`);
    const header = lines.find((line) => line.startsWith('PORT'))!;
    const row = lines[lines.indexOf(header) + 1]!;
    const titles = {
      'PACKET/S': 40,
      'DROP/S': 60,
      'RING FILL': 80,
      HITS: 80,
      'POLL/S': 100,
      'NO BUF/S': 132,
      DROPS: 200,
    };
    for (const [title, least] of Object.entries(titles)) {
      if (columns >= least) assert.ok(header.includes(title), `${title} in ${header}`);
    }
    const end = header.indexOf('PACKET/S') + 'PACKET/S'.length;
    if (columns >= 40) assert.ok(row.slice(0, end).endsWith('  1.00 M'), `${header}\n${row}`);
  });
}

test('few lines: what fits is shown, scrolling shows the rest, and never nothing', () => {
  const ports = Array.from({ length: 40 }, (_, index) => portSnapshot(`port ${index}`, [queueSnapshot('transmitq 0')]));
  const sample = new Rates().sample(snapshotAt(1, ports));
  const shown = (view: ViewState): string[] =>
    textOf(sample, view, frame(80, 16)).flatMap((line) => /^port \d+/.exec(line)?.[0] ?? []);
  assert.equal(shown(state).at(0), 'port 0');
  const room = shown(state).length;
  assert.ok(room >= 8, `${room}`);
  assert.equal(shown(pressed(['down', 'down'])).at(0), 'port 2');
  assert.equal(shown({ ...state, scroll: 1000 }).at(-1), 'port 39');
  assert.equal(shown({ ...state, scroll: 1000 }).length, room);
  assert.is(textOf(sample, state, frame(80, 3)).length, 3);
});

test('keys: sorting, reversing, by port, idle ones, pace', () => {
  const sample = busySample();
  const order = (keys: readonly string[]): string[] =>
    rowsOf(sample, pressed(keys)).map(({ port, queue }) => `${port[0]} ${queue}`);
  assert.equal(order([]), ['1 receiveq 0', '1 transmitq 0', '2 receiveq 0', '2 transmitq 0']);
  assert.equal(order(['r']), order([]).reverse());
  assert.equal(order(['p']).slice(0, 2), ['1 transmitq 0', '1 receiveq 0']);
  assert.equal(order(['s']), order(['p']), 's goes from port to packets');
  assert.equal(order(['d'])[0], '1 receiveq 0');
  assert.equal(order(['i']), ['1 receiveq 0', '1 transmitq 0']);
  assert.equal(order(['v']), ['1 out', '1 in', '2 out', '2 in']);
  assert.is(pressed(['s', 's', 's', 's', 's', 's']).sort, 'port');
  assert.is(pressed(['+']).intervalMs, 2000);
  assert.is(pressed(Array.from({ length: 20 }, () => '-')).intervalMs, 100);
  assert.is(afterKey(state, 'x'), undefined);
  assert.match(textOf(sample, pressed(['?']), frame(80)).join('\n'), /space +stand still/);
  assert.not.match(textOf(sample, pressed(['?', '?']), frame(80)).join('\n'), /space +stand still/);
});

test('by port: the queues of a way together', () => {
  const rates = new Rates();
  const ports = (packets: number) => [
    portSnapshot('p', [
      queueSnapshot('transmitq 0', { packets, polls: 10 * packets, emptyPolls: 0, ring: { size: 256, withDevice: 6 } }),
      queueSnapshot('transmitq 1', { packets, polls: 30 * packets, emptyPolls: 30 * packets, ring: { size: 256 } }),
    ]),
  ];
  rates.sample(snapshotAt(1, ports(0)));
  const [row, ...more] = rowsOf(rates.sample(snapshotAt(2, ports(100))), pressed(['v']));
  assert.equal(more, []);
  assert.equal([row!.packetsPerSecond, row!.hits, row!.queue], [200, 0.25, 'in']);
  assert.equal(row!.ring, { size: 512, withDevice: null }, 'of one of them nobody can tell');
});

test('as text, without a limit of lines: no keys, and every queue', () => {
  const lines = textOf(busySample(), state, frame(100, Number.POSITIVE_INFINITY));
  assert.is(lines.length, 7 + 4);
  assert.not.match(lines.join('\n'), /quit/);
});

test('nobody connected, and nothing that moved', () => {
  const empty = new Rates().sample(snapshotAt(1, []));
  assert.match(textOf(empty, state, frame(80)).join('\n'), /no port yet: nobody is connected/);
  const idle = new Rates().sample(snapshotAt(1, [portSnapshot('p', [queueSnapshot('transmitq 0')])]));
  assert.match(textOf(idle, pressed(['i']), frame(80)).join('\n'), /nothing has moved/);
});

test('names of the other process move no cursor, and wide ones take their columns', () => {
  assert.is(printable('a\x1b[2Jb\r\n\x9bc\u2028'), 'a?[2Jb???c?');
  const hostile = portSnapshot('\x1b]0;mine\x07', [queueSnapshot('\x1b[31mq', { drops: { '\x1b[H': 1 } })]);
  const rates = new Rates();
  const process = { pid: 1, command: '\x1b[1m', version: '0', startedAt: 0 };
  rates.sample(snapshotAt(1, [{ ...hostile, queues: [queueSnapshot('\x1b[31mq')] }], { process }));
  const sample = rates.sample(
    snapshotAt(2, [hostile], { process, threads: [{ name: '\x1b[5m', id: 1, cpuSeconds: 1 }] }),
  );
  const text = textOf(sample, state, frame(80)).join('');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: there is to be none
  assert.not.match(text, /[\x00-\x1f\x7f-\x9f]/);
  const wide = portSnapshot('虚拟机虚拟机虚拟机虚拟机虚拟机', [queueSnapshot('transmitq 0')]);
  for (const line of textOf(new Rates().sample(snapshotAt(1, [wide])), state, frame(80))) {
    assert.ok(stringWidth(line) <= 80, line);
  }
});

test('fit: exactly so wide, the middle goes first', () => {
  assert.is(fit('abc', 5), 'abc  ');
  assert.is(fit('abc', 5, true), '  abc');
  assert.is(fit('abcdefghij', 7), 'ab…ghij');
  assert.is(fit('abc', 1), '…');
  assert.is(fit('abc', 0), '');
  assert.is(stringWidth(fit('虚拟机虚拟机', 6)), 6);
});

test('figures: three digits, bars and curves', () => {
  const values = [0, 0.25, 9.96, 999, 999.6, 1234, 45_678, 999_499, 999_500, 14_880_952, 1.6e9, 2e15, 7e18];
  assert.equal(values.map(scaled), [
    ...[
      '0',
      '0.3',
      '10',
      '999',
      '1.00 k',
      '1.23 k',
      '45.7 k',
      '999 k',
      '1.00 M',
      '14.9 M',
      '1.60 G',
      '2.00 P',
      '7000 P',
    ],
  ]);
  assert.equal(
    [0.001, 0, 0.5, 1, 7].map((share) => bar(share, 4, glyphs)),
    ['█░░░', '░░░░', '██░░', '████', '████'],
  );
  assert.is(curve([0, 1, 4, 8], 3, glyphs), '▁▄█');
  assert.is(curve([], 3, glyphs), '');
  assert.is(curve([0, 0], 3, glyphs), '  ');
  assert.is(bar(0.5, 4, glyphsFor({ LANG: 'C' })), '##..', 'a terminal without blocks');
  assert.equal([0, 59.9, 60, 3723, 273_900].map(elapsed), ['0 s', '59 s', '1:00', '1:02:03', '3 d 04:05']);
});

test('the choice of a process: the chosen one stands out, a long list moves with it', () => {
  const running = Array.from(
    { length: 30 },
    (_, index): RunningProcess => ({
      ...{ pid: 100 + index, command: 'backend', version: '0.1.0', startedAt: Date.now() / 1000 - 60 },
      socket: `/run/virtio-pmd/${100 + index}.sock`,
    }),
  );
  for (const at of [0, 15, 29]) {
    const lines = choiceLines(running, at, { columns: 80, rows: 24 });
    assert.is(lines.length, 24);
    const chosen = lines.filter(({ style }) => style === 'header');
    assert.is(chosen.length, 1);
    assert.match(chosen[0]!.text, new RegExp(`${100 + at}  backend .* /run/virtio-pmd/${100 + at}.sock$`));
  }
});

test.run();
