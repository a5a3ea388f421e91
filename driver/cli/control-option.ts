/** Where a command lets itself be looked at: the options of all that run for long. */

import { Option } from 'commander';
import { path } from './option-values.js';

export const controlSocketOptions = (): readonly Option[] => [
  new Option(
    '--control-socket <PATH>',
    'be looked at there (virtio-pmd top PATH), and not in the usual place',
  ).argParser(path('--control-socket')),
  new Option('--no-control-socket', 'have no control socket'),
];
