/** The route table of the layer-3 forwarder: the longest prefix, as looking at every route finds it. */

import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { parseRoute, type Route, RouteTable } from '../../examples/route-table.js';

const test = suite('route table');

const maskOf = (length: number): number => (length === 0 ? 0 : (-1 << (32 - length)) >>> 0);
const isIn = (address: number, { prefix, length }: Route): boolean => ((address ^ prefix) & maskOf(length)) === 0;

/** The number of the longest prefix that an address is in, by looking at all. */
function longest(routes: readonly Route[], address: number): number {
  let best = -1;
  for (const [number, route] of routes.entries()) {
    if (isIn(address, route) && route.length >= (routes[best]?.length ?? 0)) best = number;
  }
  return best;
}

/** Prefixes that are often in one another: few values for each byte. */
const address = fc
  .array(fc.constantFrom(0, 1, 10, 127, 128, 200, 255), { minLength: 4, maxLength: 4 })
  .map((bytes) => Buffer.from(bytes).readUInt32BE());
const route = fc
  .record({ prefix: address, length: fc.integer({ min: 0, max: 32 }) })
  .map(({ prefix, length }): Route => ({ prefix: (prefix & maskOf(length)) >>> 0, length, port: 0, nextHop: [] }));
const key = ({ prefix, length }: Route): string => `${prefix}/${length}`;

test('it finds what looking at every route finds', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(route, { maxLength: 40, selector: key }),
      fc.array(address, { minLength: 1, maxLength: 50 }),
      (routes, addresses) => {
        const table = new RouteTable(routes);
        for (const each of addresses) assert.is(table.find(each | 0), longest(routes, each));
      },
    ),
    { numRuns: 300 },
  );
});

test('no route, the default route, and a host among its network', () => {
  assert.is(new RouteTable([]).find(0x0a00_0001), -1);
  const routes = ['0.0.0.0/0=1', '10.0.0.0/8=0', '10.0.0.1/32=1'].map((text) =>
    parseRoute(`${text},02:00:00:00:00:0b`, 2),
  );
  const table = new RouteTable(routes);
  assert.equal(
    [0x0b00_0001, 0x0a00_0002, 0x0a00_0001, 0xffff_ffff | 0].map((each) => table.find(each)),
    [0, 1, 2, 0],
  );
  assert.equal(routes[0], { prefix: 0, length: 0, port: 1, nextHop: [2, 0, 0, 0, 0, 11] });
});

test('what is no route is refused', () => {
  for (const text of [
    '',
    '10.0.0.0=0,02:00:00:00:00:01',
    '10.0.0.0/33=0,02:00:00:00:00:01',
    '10.0.0/8=0,02:00:00:00:00:01',
    '10.0.0.0/8=0,02:00:00:00:00:01:',
    '10.0.0.0/8=0,02:00:00:00:00:',
  ]) {
    assert.throws(() => parseRoute(text, 2), /is no route/, text);
  }
  assert.throws(() => parseRoute('10.0.0.0/8=2,02:00:00:00:00:01', 2), /ports 0 to 1/);
  assert.throws(() => parseRoute('10.0.0.0/8=1,02:00:00:00:01', 2), /is no route/);
});

test.run();
