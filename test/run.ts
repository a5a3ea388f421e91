/**
 * Runs the tests: `npm test [-- NAME…] [--setup] [--full] [--list] [--nodes]`.
 *
 * Exit status 0 when all passed, 1 when something failed, 2 on wrong usage. The last line is `N passed, N failed`,
 * with `, N skipped` where something was.
 */

import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { ALL_PEERS } from './support/peers.js';
import { runTests } from './support/runner.js';

const USAGE = `Usage: npm test [-- NAME…] [--setup] [--full] [--list] [--nodes]

  NAME     a suite (unit, conformance, abuse, interop, guest) or a part of a file's name; none means all
  --setup  install missing peers first (as root; done by itself where CI is set)
  --full   every count and combination; goes on where an earlier run of the same state was cut short
  --list   say which files there are, run nothing
  --nodes  also on the other supported versions of Node (done by itself when no NAME is given)
`;

function parse() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      setup: { type: 'boolean', default: false },
      full: { type: 'boolean', default: false },
      list: { type: 'boolean', default: false },
      nodes: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  return { ...values, names: positionals };
}

async function main(): Promise<number> {
  let options: ReturnType<typeof parse>;
  try {
    options = parse();
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${USAGE}`);
    return 2;
  }
  if (options.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());
  return runTests({
    root: join(dirname(fileURLToPath(import.meta.url)), '..', '..'),
    names: options.names,
    setup: options.setup,
    full: options.full,
    peers: ALL_PEERS,
    list: options.list,
    otherNodes: options.nodes || options.names.length === 0,
    strict: process.env['CI'] !== undefined,
    stream: process.stdout,
    signal: interrupted.signal,
  });
}

process.exitCode = await main();
