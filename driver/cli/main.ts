#!/usr/bin/env node
/** The command line `virtio-pmd`: finds the command, runs it, and ends with its exit status. */

import { Command, CommanderError } from 'commander';
import { ErrorCode, type VirtioError } from '../errors.js';
import { asVirtioError, ExitStatus, printError, statusOf, wrongUsage } from './failure.js';
import { Interrupt } from './interrupt.js';
import { quietenStreams } from './output.js';
import { packageVersion } from './version.js';

const EXAMPLES = `
Examples:
  virtio-pmd loopback
      a million packets through the driver and the bundled back-end
  virtio-pmd loopback --help
      everything that this command can do
  virtio-pmd backend --socket-path=/run/vm1.sock
      serves a guest's network device over a vhost-user socket
  virtio-pmd doctor 0000:00:04.0
      checks what this machine lacks to drive a device

Exit status: 0 done, 1 it failed while it ran, 2 wrong usage, 130 stopped by Ctrl-C.
Errors are one line on standard error: virtio-pmd: CODE: what is wrong (what to do)`;

type Finish = (status: number) => void;

/** Makes each command, in the order in which the help lists them. */
const commands = {
  loopback: async (interrupt, finish) => (await import('./loopback/command.js')).loopbackCommand(interrupt, finish),
  devbind: async (_, finish) => (await import('./devbind/command.js')).devbindCommand(finish),
  doctor: async (_, finish) => (await import('./doctor/command.js')).doctorCommand(finish),
  backend: async (interrupt, finish) => (await import('./backend/command.js')).backendCommand(interrupt, finish),
  top: async (interrupt, finish) => (await import('./top/command.js')).topCommand(interrupt, finish),
  testpmd: async () => (await import('./testpmd/command.js')).testpmdCommand(),
} as const satisfies Record<string, (interrupt: Interrupt, finish: Finish) => Promise<Command>>;

const isCommand = (name: string | undefined): name is keyof typeof commands =>
  name !== undefined && Object.hasOwn(commands, name);

/**
 * The command line; an action resolves to the exit status by way of `finish`.
 *
 * @param first what it begins with: a command is loaded alone, what is none is answered with regard to all of them
 */
async function makeProgram(first: string | undefined, interrupt: Interrupt, finish: Finish): Promise<Command> {
  const program = new Command('virtio-pmd')
    .description('A virtio-net poll-mode driver with a vhost-user back-end.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'show this help')
    .helpCommand(false)
    .addHelpText('after', EXAMPLES);
  const makers = isCommand(first) ? [commands[first]] : Object.values(commands);
  for (const make of makers) program.addCommand(await make(interrupt, finish));
  for (const command of [program, ...program.commands]) {
    // Errors come back as exceptions, so that all of them are printed in one form.
    command
      .exitOverride()
      .configureOutput({ outputError: () => undefined })
      .allowExcessArguments(false);
    command.showSuggestionAfterError(true);
  }
  return program;
}

/** What the parser objects to, as one line. */
function usageError(error: CommanderError, commandLine: readonly string[], program: Command): VirtioError {
  const named = program.commands.find((command) => command.name() === commandLine[0]);
  const command = named === undefined ? 'virtio-pmd' : `virtio-pmd ${named.name()}`;
  if (error.code === 'commander.excessArguments') return wrongUsage(`${command} takes options only`, command);
  const message = error.message.replace(/^error: /, '').replace(/\s*\n\s*\(Did you mean (.*)\?\)/s, ': is it $1?');
  return wrongUsage(message, command);
}

/** Its command line is DPDK's, and so are most of its complaints; what DPDK knows nothing of is said as by any command. */
async function testpmd(commandLine: readonly string[], interrupt: Interrupt): Promise<number> {
  try {
    return await (await import('./testpmd/command.js')).runTestpmd(commandLine, interrupt);
  } catch (error) {
    printError(asVirtioError(error));
    return ExitStatus.FAILURE;
  }
}

async function main(commandLine: readonly string[]): Promise<number> {
  quietenStreams();
  const interrupt = Interrupt.install();
  let status: number = ExitStatus.SUCCESS;
  if (commandLine[0] === 'testpmd') return await testpmd(commandLine.slice(1), interrupt);
  const program = await makeProgram(commandLine[0], interrupt, (value) => {
    status = value;
  });
  try {
    if (commandLine.length === 0) throw wrongUsage('no command was given', 'virtio-pmd');
    await program.parseAsync(commandLine, { from: 'user' });
    return status;
  } catch (error) {
    // Help and version end the parser too.
    if (error instanceof CommanderError && error.exitCode === 0) return ExitStatus.SUCCESS;
    const failure = error instanceof CommanderError ? usageError(error, commandLine, program) : asVirtioError(error);
    if (interrupt.status === undefined || failure.code !== ErrorCode.ABORTED) printError(failure);
    return interrupt.status ?? statusOf(failure);
  }
}

process.exitCode = await main(process.argv.slice(2));
