/** Options for how the application runs: what reads commands, which ports and lcores forward, what is reported. */

import { readFileSync } from 'node:fs';
import { macOf } from '../console/token.js';
import { portListOf, setForwardLcoreMask, setForwardPortMask, setForwardPorts } from '../forward-sets.js';
import { MAX_PORTS, type Testpmd } from '../testpmd.js';
import { atoi, type OptionHandlers, wholeHexOf } from './option-handler.js';
import { refusal } from './refusal.js';

const interactive = ({ output, settings }: Testpmd): void => {
  output.say('Interactive-mode selected');
  settings.isInteractive = true;
};

const autoStart = ({ output, settings }: Testpmd): void => {
  output.say('Auto-start selected');
  settings.autoStart = true;
};

/** Seconds: testpmd keeps the low 16 bits of what is more. */
const MAX_STATS_PERIOD = 0xffff;

export const applicationOptions: OptionHandlers = {
  i: interactive,
  interactive,
  a: autoStart,
  'auto-start': autoStart,
  'cmdline-file': ({ output, settings }, value) => {
    output.say(`CLI commands to be read from ${value}`);
    settings.cmdlineFile = value;
  },
  'tx-first': ({ output, settings }) => {
    output.say('Ports to start sending a burst of packets first');
    settings.txFirst = true;
  },
  'stats-period': ({ settings }, value) => {
    if (!/^\s*\d+$/.test(value) || Number(value) > MAX_STATS_PERIOD) throw refusal('Invalid stats-period value');
    settings.statsPeriod = Number(value);
  },
  'display-xstats': ({ settings }, value) => {
    settings.displayXstats = value.split(',').filter((name) => name !== '');
  },
  json: ({ settings }) => {
    settings.json = true;
  },
  metrics: ({ settings }, value) => {
    if (!/^\d{1,5}$/.test(value) || Number(value) > 65_535) throw refusal(`Invalid metrics port: ${value}`);
    settings.metricsPort = Number(value);
  },
  'control-socket': ({ settings }, value) => {
    settings.controlSocket = value;
  },
  'no-control-socket': ({ settings }) => {
    settings.controlSocket = false;
  },
  'eth-peers-configfile': readPeers,
  'eth-peer': ({ settings }, value) => {
    const [, port, address] = /^\s*(\d+),(.*)$/.exec(value) ?? [];
    if (port === undefined || address === undefined) throw refusal(`Invalid eth-peer: ${value}`);
    if (Number(port) >= MAX_PORTS) throw refusal(`eth-peer: port ${port} >= RTE_MAX_ETHPORTS(${MAX_PORTS})`);
    const mac = macOf(address);
    if (mac === undefined) throw refusal(`Invalid ethernet address: ${address}`);
    settings.peers.set(Number(port), mac);
  },
  'nb-ports': (testpmd, value) => {
    const count = atoi(value);
    if (count <= 0 || count > testpmd.ports.size) throw refusal(`Invalid port ${count}`);
    testpmd.forwardPortCount = count;
  },
  'nb-cores': (testpmd, value) => {
    const count = atoi(value);
    const limit = testpmd.lcores.workers.length;
    if (count <= 0 || count > limit) throw refusal(`nb-cores should be > 0 and <= ${limit}`);
    testpmd.forwardLcoreCount = count;
  },
  coremask: (testpmd, value) => {
    const mask = wholeHexOf(value);
    if (mask === undefined) throw refusal('Invalid fwd core mask');
    if (!setForwardLcoreMask(testpmd, mask)) throw refusal('coremask is not valid');
  },
  portmask: (testpmd, value) => {
    const mask = wholeHexOf(value);
    if (mask === undefined) throw refusal('Invalid fwd port mask');
    setForwardPortMask(testpmd, mask);
  },
  portlist: (testpmd, value) => {
    const ports = portListOf(value, MAX_PORTS);
    if (ports === undefined) throw refusal('Invalid fwd port list');
    setForwardPorts(
      testpmd,
      ports.filter((port) => testpmd.ports.has(port)),
    );
  },
  'port-topology': ({ settings }, value) => {
    if (value !== 'paired' && value !== 'chained' && value !== 'loop') {
      throw refusal(`port-topology ${value} invalid - must be: paired, chained or loop`);
    }
    settings.topology = value;
  },
  'record-core-cycles': ({ settings }) => {
    settings.recordCoreCycles = true;
  },
  'record-burst-stats': ({ settings }) => {
    settings.recordBurstStats = true;
  },
  'disable-link-check': ({ settings }) => {
    settings.linkCheck = false;
  },
  'disable-device-start': ({ settings }) => {
    settings.deviceStart = false;
  },
  'no-lsc-interrupt': ({ settings }) => {
    settings.lscInterrupt = false;
  },
  'num-procs': (_, value) => {
    if (atoi(value) !== 1) throw refusal('--num-procs is not possible: a process shares its memory with no other');
  },
  'proc-id': (_, value) => {
    if (atoi(value) !== 0) throw refusal("The multi-process option 'proc-id(1)' should be less than 'num-procs(1)'");
  },
  numa: ({ settings }) => {
    settings.numa = true;
  },
  'no-numa': ({ settings }) => {
    settings.numa = false;
  },
  'socket-num': ({ output }, value) => {
    if (atoi(value) === 0) return;
    output.warn('Invalid socket id, options are: 0');
    throw refusal('Invalid socket id');
  },
};

/** An address a line, for the ports in order. */
function readPeers({ output, settings }: Testpmd, path: string): void {
  let lines: readonly string[];
  try {
    lines = readFileSync(path, 'utf8').split('\n').slice(0, MAX_PORTS);
  } catch {
    output.warn('Failed to open eth config file\n: No such file or directory');
    throw refusal('Cannot open logfile');
  }
  for (const [port, line] of lines.entries()) {
    if (line === '' && port === lines.length - 1) return;
    const mac = macOf(line.trim());
    if (mac === undefined) {
      output.warn(`Bad MAC address format on line ${port + 1}`);
      throw refusal('Cannot open logfile');
    }
    settings.peers.set(port, mac);
  }
}
