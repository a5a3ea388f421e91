/** The icmpecho port answers what scapy asks, as scapy and tshark expect it, and nothing else. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { icmpEchoPort } from '../../driver/backend/ports/built-in.js';
import * as icmpecho from '../../driver/backend/ports/icmpecho.js';
import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import { PcapWriter } from '../../driver/pcap/pcap-writer.js';
import { type HarnessOptions, PortHarness } from '../support/backend-port-harness.js';
import { runCommand } from '../support/commands.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { countMatching } from '../support/tshark.js';

const SCAPY = fileURLToPath(new URL('../../../test/support/echo_requests.py', import.meta.url));
const scapy = (...args: readonly string[]): Promise<string> =>
  runCommand('/usr/bin/python3', [SCAPY, ...args], { timeoutMs: 100_000 });

interface Request {
  readonly label: string;
  /** The counter that it is to be counted in. */
  readonly kind: string;
  readonly bytes: Uint8Array;
}

async function makeRequests(path: string): Promise<Request[]> {
  const made = JSON.parse(await scapy('make', path)) as { label: string; kind: string }[];
  using reader = PcapReader.open(path);
  const packets = [...reader];
  assert.is(packets.length, made.length);
  assert.ok(made.length > 90, `${made.length} requests`);
  return made.map(({ label, kind }, index) => ({ label, kind, bytes: packets[index]!.bytes }));
}

/** Asks one thing after the other; returns the answers by request, and checks how each was counted. */
function ask(requests: readonly Request[], options: HarnessOptions = {}): Map<number, Uint8Array> {
  const spec = icmpEchoPort();
  using harness = new PortHarness(icmpecho, spec.options, options);
  const answers = new Map<number, Uint8Array>();
  for (const [index, { label, kind, bytes }] of requests.entries()) {
    const before = spec.statistics();
    const back = harness.bounce([bytes]);
    const after = Object.entries(spec.statistics()).filter(([name, count]) => count !== before[name as never]);
    const counted = after.map(([name]) => name).join();
    assert.is(counted, kind, `how "${label}" is counted`);
    assert.is(back.length, kind.startsWith('drop') ? 0 : 1, `answers to "${label}"`);
    if (back[0] !== undefined) answers.set(index, back[0]);
  }
  return answers;
}

const test = skipWithout(suite('icmpecho port, scapy'), 'python3', 'scapy', 'tshark');

test('every answer is what scapy expects, with checksums that scapy and tshark find right', () =>
  withFolder(async (folder) => {
    const [requestFile, answerFile, indexFile] = ['requests.pcap', 'answers.pcap', 'indexes.json'].map((name) =>
      join(folder, name),
    ) as [string, string, string];
    const requests = await makeRequests(requestFile);
    const answers = ask(requests);
    const writer = PcapWriter.create(answerFile);
    for (const bytes of answers.values()) writer.write(bytes, 1n);
    writer.close();
    writeFileSync(indexFile, JSON.stringify([...answers.keys()]));
    const expected = requests.filter(({ kind }) => !kind.startsWith('drop')).length;
    assert.is(await scapy('check', requestFile, answerFile, indexFile), `${expected} answers, 0 wrong\n`);

    const wrong = [
      'ip.checksum.status == 0',
      'icmp.checksum.status == 0',
      'icmpv6.checksum.status == 0',
      '_ws.malformed',
    ];
    for (const filter of wrong) assert.is(await countMatching(answerFile, filter), 0, filter);
    const counted = (...kinds: readonly string[]) => requests.filter(({ kind }) => kinds.includes(kind)).length;
    assert.is(await countMatching(answerFile, 'icmp.type == 0 and icmp.checksum.status == 1'), counted('icmp'));
    assert.is(await countMatching(answerFile, 'icmpv6.checksum.status == 1'), counted('icmpv6', 'neighbour'));
    assert.is(await countMatching(answerFile, 'icmpv6.opt.type == 2'), counted('neighbour'));
    assert.is(await countMatching(answerFile, 'arp.opcode == 2'), counted('arp'));
  }));

test('packets in many pieces are answered as in one', () =>
  withFolder(async (folder) => {
    const requests = await makeRequests(join(folder, 'requests.pcap'));
    const whole = ask(requests);
    // The longest ones would be tens of thousands of pieces.
    const short = requests.map(({ bytes }) => bytes.length <= 1514);
    for (const segmentBytes of [22, 23, 37, 64, 101]) {
      const options = { bufferBytes: 256, poolSize: 256, segmentBytes };
      const kept = [...requests.entries()].filter(([index]) => short[index]);
      const answers = ask(
        kept.map(([, request]) => request),
        options,
      );
      for (const [number, [index, { label }]] of kept.entries()) {
        assert.equal(answers.get(number), whole.get(index), `"${label}" in pieces of ${segmentBytes}`);
      }
    }
    // An advertisement is written into the first piece, which must hold the Ethernet header.
    const pieces = requests
      .filter((_, index) => short[index])
      .map((request) => ({
        ...request,
        kind: request.kind === 'neighbour' ? 'dropNoRoom' : request.kind,
      }));
    for (const segmentBytes of [7, 13]) ask(pieces, { bufferBytes: 256, poolSize: 512, segmentBytes });
  }));

test.run();
