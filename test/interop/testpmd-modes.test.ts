/** Each forward mode of ours and of Debian's dpdk-testpmd makes the same packets of the same capture, byte for byte. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { PcapReader } from '../../driver/pcap/pcap-reader.js';
import { PcapWriter } from '../../driver/pcap/pcap-writer.js';
import { CLI } from '../support/cli.js';
import { toHex } from '../support/forward-engine.js';
import { modePackets } from '../support/mode-packets.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { Testpmd } from '../support/testpmd.js';
import { runTestpmd } from '../support/testpmd-batch.js';
import { PATIENCE_MS } from '../support/until.js';

const test = skipWithout(suite('testpmd modes'), 'dpdk');

const programs = {
  theirs: ['dpdk-testpmd'],
  ours: [process.execPath, CLI, 'testpmd'],
} as const;
/** Ethernet, IPv4 and UDP: what is behind them in packets that are made is whatever the buffers held. */
const HEADERS = 42;
/** When the first packet was captured, in nanoseconds. */
const FIRST_STAMP = 1_700_000_000_123_456_789n;

/** One way of using both programs: commands before a start, and how many packets come of it. */
interface Case {
  readonly name: string;
  readonly options?: readonly string[];
  readonly commands: readonly string[];
  readonly start?: string;
  readonly packets: number;
  /** Bytes of each packet that are compared; all where nothing is said. */
  readonly bytes?: number;
}

const all = modePackets.length;
const forwarding: readonly Case[] = [
  ...['io', 'mac', 'macswap', '5tswap', 'csum', 'noisy'].map((mode) => ({
    name: mode,
    commands: [`set fwd ${mode}`],
    packets: all,
  })),
  { name: 'io with retry', commands: ['set fwd io retry'], packets: all },
  { name: 'mac to a peer that was set', commands: ['set eth-peer 0 02:11:22:33:44:55', 'set fwd mac'], packets: all },
  { name: 'csum that looks into tunnels', commands: ['set fwd csum', 'csum parse-tunnel on 0'], packets: all },
  { name: 'csum that leaves addresses alone', commands: ['csum mac-swap off 0'], packets: all },
  { name: 'icmpecho', commands: ['set fwd icmpecho'], packets: 4 },
];

const making: readonly Case[] = [
  { name: 'txonly', commands: [], packets: 96, bytes: HEADERS },
  { name: 'txonly of several flows', options: ['--txonly-multi-flow'], commands: [], packets: 96, bytes: HEADERS },
  {
    name: 'txonly from and to addresses that were set',
    options: ['--tx-ip=1.2.3.4,5.6.7.8', '--tx-udp=100,200'],
    commands: [],
    packets: 96,
    bytes: HEADERS,
  },
  {
    name: 'txonly in segments',
    commands: ['set txpkts 20,30,40', 'set txsplit on'],
    packets: 96,
    bytes: HEADERS,
  },
].map((made) => ({ ...made, commands: [...made.commands, 'set fwd rxonly'], start: 'start tx_first 3' }));

const flowing: readonly Case[] = [
  { name: 'flowgen', options: ['--flowgen-flows=7'], commands: ['set fwd flowgen'], packets: 64, bytes: HEADERS },
  {
    name: 'flowgen of clones',
    options: ['--flowgen-clones=3', '--txpkts=100', '--burst=13'],
    commands: ['set fwd flowgen'],
    packets: 64,
    bytes: HEADERS,
  },
];

/** The first packets of a capture that is being written, lengths included; fewer while there are not as many. */
function readPackets(path: string, { packets, bytes }: Case): string[] {
  if (!existsSync(path)) return [];
  const found: string[] = [];
  using reader = PcapReader.open(path);
  try {
    for (let packet = reader.next(); packet !== undefined && found.length < packets; packet = reader.next()) {
      found.push(`${packet.bytes.length}: ${toHex(packet.bytes.subarray(0, bytes))}`);
    }
  } catch {
    // A burst is being written; the next look finds it whole.
  }
  return found;
}

/** What one of the programs sends in each of several cases, which differ in commands alone: its port restarts in between. */
async function sentBy(program: readonly string[], cases: readonly Case[], folder: string): Promise<string[][]> {
  const input = join(folder, 'in.pcap');
  const output = join(folder, `out-${program === programs.ours ? 'ours' : 'theirs'}.pcap`);
  const testpmd = await Testpmd.start({
    program,
    vdevs: [`net_pcap0,rx_pcap=${input},tx_pcap=${output}`],
    options: ['--no-flush-rx', '--port-topology=loop', ...(cases[0]!.options ?? [])],
  });
  try {
    const results: string[][] = [];
    for (const one of cases) {
      for (const command of one.commands) await testpmd.command(command, /testpmd> $/);
      await testpmd.command(one.start ?? 'start', /testpmd> /);
      const end = performance.now() + PATIENCE_MS;
      while (readPackets(output, one).length < one.packets && performance.now() < end) await pause(20);
      await testpmd.command('stop', /Done\.\n/);
      results.push(readPackets(output, one));
      await testpmd.command('port stop 0', /Done/);
      await testpmd.command('port start 0', /Done/);
    }
    return results;
  } finally {
    await testpmd.quit();
  }
}

function compare(cases: readonly Case[]): void {
  test(`${cases.map(({ name }) => name).join(', ')}: the same packets`, async () => {
    await withFolder(async (folder) => {
      using writer = PcapWriter.create(join(folder, 'in.pcap'));
      for (const packet of modePackets) writer.write(packet, 0n);
      writer.close();
      const theirs = await sentBy(programs.theirs, cases, folder);
      const ours = await sentBy(programs.ours, cases, folder);
      for (const [index, { name, packets }] of cases.entries()) {
        assert.is(theirs[index]!.length, packets, `${name}: packets of dpdk-testpmd`);
        assert.equal(ours[index], theirs[index], name);
      }
    });
  });
}

/** Lines that lcores show of packets. */
const PACKET_LINE =
  /^(port \d+\/queue| {2}src=| {2}ol_flags|Port \d+ pkt-len| {2}(ETH|ARP|IPV4|ICMP):| {9}[st]ha=|port=|[rt]x: )/;

/** What a program tells of the packets, less where they are in memory. */
async function toldBy(program: readonly string[], mode: string, verbose: number, folder: string): Promise<string[]> {
  const length = modePackets.at(-1)!.length;
  const output = await runTestpmd({
    program,
    folder,
    vdevs: [`net_pcap0,rx_pcap=${join(folder, 'in.pcap')}`],
    options: ['--no-flush-rx', '--port-topology=loop', `--forward-mode=${mode}`],
    commands: ['csum parse-tunnel on 0', `set verbose ${verbose}`],
    until: mode === 'csum' || mode === 'icmpecho' ? new RegExp(`pkt.len=${length}`) : new RegExp(`length=${length} `),
  });
  const lines = output.split('\n').filter((line) => PACKET_LINE.test(line));
  return lines.map((line) => line.replace(/mbuf=0x[0-9a-f]+/, 'mbuf=…'));
}

for (const [mode, verbose] of [
  ['rxonly', 1],
  ['mac', 2],
  ['macswap', 3],
  ['csum', 1],
  ['icmpecho', 1],
] as const) {
  test(`${mode} with verbose ${verbose} tells the same of every packet`, async () => {
    await withFolder(async (folder) => {
      using writer = PcapWriter.create(join(folder, 'in.pcap'));
      for (const [index, packet] of modePackets.entries()) writer.write(packet, FIRST_STAMP + BigInt(index));
      writer.close();
      const theirs = await toldBy(programs.theirs, mode, verbose, folder);
      assert.ok(theirs.length > 2 * modePackets.length, 'lines of dpdk-testpmd');
      assert.equal(await toldBy(programs.ours, mode, verbose, folder), theirs);
    });
  });
}

compare(forwarding);
for (const one of [...making, ...flowing]) compare([one]);

test.run();
