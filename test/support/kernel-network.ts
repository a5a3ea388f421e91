/** A program between kernels: each of its ports reaches, over vhost-user, a tap in a network namespace of its own. */

import { tapPort } from '../../driver/backend/ports/built-in.js';
import { type RunningCli, startCli } from './cli.js';
import { GuestBackend } from './guest-backend.js';
import { TapNamespace } from './tap-namespace.js';
import { uniqueName } from './test-names.js';

export interface KernelNetwork {
  readonly cli: RunningCli;
  /** One for each port, in their order. */
  readonly spaces: readonly TapNamespace[];
}

export interface ProgramBetweenKernels {
  /** The compiled program. */
  readonly script: string;
  /** Its command line; `ports` are the addresses of its ports. */
  readonly arguments: (ports: readonly string[]) => readonly string[];
  /** What it prints when its ports work. */
  readonly ready: RegExp;
  /** The IPv4 address, in a /24, of the kernel behind each port. */
  readonly addresses: readonly string[];
}

/** Starts a program with a kernel behind each of its ports, calls `use`, and ends it whatever happens. */
export async function betweenKernels(
  { script, arguments: commandLine, ready, addresses }: ProgramBetweenKernels,
  use: (network: KernelNetwork) => Promise<void>,
): Promise<void> {
  const taps = addresses.map(() => uniqueName('tk'));
  const backends: GuestBackend[] = [];
  const spaces: TapNamespace[] = [];
  let cli: RunningCli | undefined;
  try {
    for (const name of taps) backends.push(await GuestBackend.start({ port: tapPort({ name }) }));
    cli = startCli(commandLine(backends.map(({ path }) => `vhost-user:${path}`)), { script });
    await cli.printed(ready);
    // The taps are there since the ports are.
    for (const [index, address] of addresses.entries()) spaces.push(await TapNamespace.create(taps[index]!, address));
    await use({ cli, spaces });
  } finally {
    cli?.kill('SIGKILL');
    await cli?.done;
    for (const backend of backends) await backend.close();
    for (const space of spaces) await space.close();
  }
}
