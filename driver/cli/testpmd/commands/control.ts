/** Commands that start and stop to forward, and end the application. */

import { type Command, command } from '../console/grammar.js';
import { startForwarding, stopForwarding } from '../forward-control.js';

export const controlCommands: readonly Command[] = [
  command('start', 'Starts to forward packets.', (testpmd) => startForwarding(testpmd, 0)),
  command('start tx_first', 'Sends one burst on each stream, then starts to forward.', (testpmd) =>
    startForwarding(testpmd, 1),
  ),
  command(
    'start tx_first {bursts:u32}',
    'Sends that many bursts on each stream, then starts to forward.',
    (testpmd, { bursts }) => startForwarding(testpmd, bursts),
  ),
  command('stop', 'Stops to forward, and shows what was forwarded.', (testpmd) => stopForwarding(testpmd)),
  command('load {file:word}', 'Runs the commands of a file.', (testpmd, { file }) => testpmd.runFile(file)),
  command('quit', 'Stops, closes all ports and ends.', (testpmd) => {
    testpmd.isQuitting = true;
  }),
];
