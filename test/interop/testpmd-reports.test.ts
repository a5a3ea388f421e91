/** What testpmd tells beyond DPDK's: records, captures that tshark reads, statistics again and again. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type CliEnd, runCli, startCli } from '../support/cli.js';
import { runCommand } from '../support/commands.js';
import { runGolden } from '../support/golden-run.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 60;

const test = suite('testpmd, reports');
const testWithTshark = skipWithout(suite('testpmd, captures'), 'tshark');

const EAL = ['testpmd', '--no-huge', '--no-pci', '-l', '0,1'];
const OWN = ['--total-num-mbufs=2048'];
const NULL_PORTS = ['--vdev', 'net_null0', '--vdev', 'net_null1,size=100'];

/** Runs commands through testpmd with two null ports. */
async function run(folder: string, commands: readonly string[], ...options: readonly string[]): Promise<CliEnd> {
  const file = join(folder, 'commands');
  writeFileSync(file, commands.map((command) => `${command}\n`).join(''));
  const end = await runCli([...EAL, ...NULL_PORTS, '--', '-i', `--cmdline-file=${file}`, ...OWN, ...options]);
  assert.equal([end.status, end.left], [0, []], end.stderr);
  return end;
}

const recordsOf = ({ stdout }: CliEnd): readonly Record<string, unknown>[] =>
  stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));

test('--json: each reporting command is a record, and standard output has nothing else', () =>
  withFolder(async (folder) => {
    const commands = [
      'show port info all',
      'show port summary 1',
      'show port stats 0',
      'show port xstats 0',
      'show fwd stats all',
      'show config rxtx',
      'show config cores',
      'show config fwd',
      'show config rxoffs',
      'show config rxpkts',
      'show config rxhdrs',
      'show config txpkts',
      'show config txtimes',
      'show port 0 rx_offload capabilities',
      'show port 0 tx_offload configuration',
      'show port 0 rss reta 128 (0x1,0x1)',
      'show port 0 macs',
      'show port 0 mcast_macs',
      'show device info net_null0',
      'dump_mempool',
      'port stop 0',
      'csum show 0',
      'tso show 0',
    ];
    const records = recordsOf(await run(folder, commands, '--json'));
    assert.equal(
      records.map(({ report }) => report),
      [
        'port-info',
        'port-info',
        'port-summary',
        'port-statistics',
        'port-extended-statistics',
        'forward-statistics',
        'configuration-rxtx',
        'configuration-cores',
        'configuration-fwd',
        'configuration-rxoffs',
        'configuration-rxpkts',
        'configuration-rxhdrs',
        'configuration-txpkts',
        'configuration-txtimes',
        'offload-capabilities',
        'offload-configuration',
        'rss-redirection-table',
        'mac-addresses',
        'multicast-addresses',
        'device-info',
        'dump-mempool',
        'checksum-offloads',
        'segmentation',
      ],
    );
    assert.equal([records[0]?.['driverName'], records[0]?.['maxRxQueues']], ['net_null', 1024]);
    assert.match(String(records[0]?.['macAddress']), /^([\da-f]{2}:){5}[\da-f]{2}$/);
  }));

test('--stats-period: the statistics of all ports each period, until a signal comes', async () => {
  const parameters = ['--', ...OWN, '--stats-period=1', '--json'];
  const cli = startCli([...EAL, ...NULL_PORTS, ...parameters]);
  await cli.printed(/("port":1.*\n[\s\S]*){3}/);
  cli.kill('SIGINT');
  const end = await cli.done;
  assert.equal(end.left, []);
  const records = recordsOf(end).filter(({ report, port }) => report === 'port-statistics' && port === 1);
  const [first, second] = records;
  assert.ok(Number(second?.['rxPackets']) > Number(first?.['rxPackets']), 'packets are forwarded all the while');
});

test('features, rings and paths of both ends of a vhost-user socket, while packets are forwarded', async () => {
  const steps = [
    { lines: ['show port 0 features', 'show port 0 ring 0', 'explain path 0'], waitMs: 0 },
    {
      lines: ['port attach net_virtio_user0,path={folder}/vhost.sock,packed_vq=1', 'port start 1', 'start'],
      waitMs: 0,
    },
    {
      lines: ['show port 0 features', 'show port 1 features', 'show port 0 ring 0', 'show port 1 ring 0'],
      waitMs: 100,
    },
    { lines: ['show port 1 ring 7', 'explain path', 'explain path 9', 'show port 2 features'], waitMs: 0 },
    { lines: ['stop', 'port stop 1', 'show port 1 ring 0', 'quit'], waitMs: 0 },
  ];
  const vdevs = ['net_vhost0,iface={folder}/vhost.sock'];
  const end = await runGolden('ours', { vdevs, files: [], eal: [], options: ['-i'], steps });
  const output = end.output.replaceAll('\r', '');
  assert.is(end.status, 0, output);
  const answers = new Map(output.split('testpmd> ').map((part) => [part.split('\n', 1)[0] ?? '', part]));
  const answerTo = (command: string): string => answers.get(command) ?? '';
  const before = output.slice(0, output.indexOf('port attach'));
  assert.is(before.match(/^Port 0: no front-end is connected to \{folder\}\/vhost.sock$/gm)?.length, 2, before);
  assert.match(
    answerTo('show port 0 features'),
    /^ {2}34 RING_PACKED +the device offers it, the front-end accepted it$/m,
  );
  assert.match(answerTo('show port 1 features'), /^ {2}34 RING_PACKED +offered by the device, accepted /m);
  assert.match(answerTo('show port 0 ring 0'), /^ {2}guest queue +transmitq 0$/m);
  assert.match(answerTo('show port 0 ring 0'), /^ {2}guest queue +receiveq 0$/m);
  const rings = answerTo('show port 1 ring 0');
  assert.match(output, /^ {2}with the device +256$[\s\S]*^ {2}next +nobody: 256 buffers wait for packets$/m, rings);
  assert.match(output, /^ {2}next +nobody: everything was sent$/m);
  assert.match(rings, /^ {2}next +nobody: the port is stopped$/m, 'asked again when it was stopped');
  assert.match(answerTo('show port 1 ring 7'), /^RX ring 7 of port 1: .*no queue pair 7$/m);
  assert.match(answerTo('explain path'), /^Path of port 0 \(net_vhost0\):\n {2}packed rings \(RING_PACKED: /m);
  assert.match(answerTo('explain path'), /^Path of port 1 \(net_virtio_user0\):\n {2}packed rings \(RING_PACKED /m);
  assert.match(answerTo('explain path 9'), /^Invalid port 9$/m);
  assert.match(answerTo('show port 2 features'), /^Invalid port 2$/m);
});

testWithTshark('capture: what ports receive and send, each an interface, read by tshark; none when it is stopped', () =>
  withFolder(async (folder) => {
    const path = join(folder, 'all.pcapng');
    const other = join(folder, 'one.pcapng');
    const vdevs = ['net_null0', 'net_null1,size=100'];
    const steps = [
      { lines: ['set fwd macswap', 'set burst 4', `capture start all ${path}`, 'start'], waitMs: 0 },
      { lines: ['capture stop 0', 'capture stop 1', `capture start 1 ${other}`], waitMs: 50 },
      { lines: ['stop', 'capture stop all', 'capture start 7 /nowhere', 'capture start 0 /nowhere/file'], waitMs: 50 },
      { lines: ['quit'], waitMs: 0 },
    ];
    const { output, status } = await runGolden('ours', { vdevs, files: [], eal: [], options: ['-i'], steps });
    assert.is(status, 0);
    assert.match(output, /^Invalid port 7$/m);
    assert.match(output, /^Capture failed: NOT_FOUND: cannot create \/nowhere\/file/m);
    const fields = ['frame.interface_name', 'frame.interface_description', 'frame.packet_flags_direction', 'frame.len'];
    const wanted = fields.flatMap((field) => ['-e', field]);
    const kinds = async (file: string): Promise<readonly string[]> => {
      const output = await runCommand('tshark', ['-n', '-r', file, '-T', 'fields', ...wanted], { timeoutMs: 60_000 });
      return [...new Set(output.split('\n').filter(Boolean))].sort();
    };
    const [received, sent] = ['0x00000001', '0x00000002'];
    assert.equal(
      await kinds(path),
      [
        `net_null0\tport 0\t${sent}\t100`,
        `net_null0\tport 0\t${received}\t64`,
        `net_null1\tport 1\t${received}\t100`,
        `net_null1\tport 1\t${sent}\t64`,
      ].sort(),
    );
    assert.equal(await kinds(other), [`net_null1\tport 1\t${received}\t100`, `net_null1\tport 1\t${sent}\t64`].sort());
  }),
);

test.run();
testWithTshark.run();
