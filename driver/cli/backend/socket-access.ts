/** Who may connect to the sockets: `--socket-mode` and `--socket-group`. */

import { chownSync, readFileSync } from 'node:fs';
import { ErrorCode, isSystemError, VirtioError } from '../../errors.js';

const GROUPS_FILE = '/etc/group';

const invalid = (message: string, value: string, advice: string): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, message, { value, advice });

/** Permission bits from octal digits. @throws VirtioError INVALID_ARGUMENT */
export function socketMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text)) {
    throw invalid(
      `--socket-mode takes three octal digits, such as 660, not ${text === '' ? 'empty' : text}`,
      text,
      'see --help',
    );
  }
  return Number.parseInt(text, 8);
}

/** The group's name or number as it was given; only an empty one cannot be meant. @throws VirtioError INVALID_ARGUMENT */
export function socketGroup(text: string): string {
  if (!/^[^\s:,]+$/.test(text)) {
    throw invalid(`--socket-group takes a group, not ${text === '' ? 'empty' : text}`, text, 'see --help');
  }
  return text;
}

/** The number of a group. @throws VirtioError INVALID_ARGUMENT when there is none of that name */
export function groupNumber(group: string, groups: () => string = () => readFileSync(GROUPS_FILE, 'utf8')): number {
  if (/^\d{1,10}$/.test(group) && Number(group) < 2 ** 32 - 1) return Number(group);
  const entry = groups()
    .split('\n')
    .map((line) => line.split(':'))
    .find(([name]) => name === group);
  const number = entry?.[2] ?? '';
  if (/^\d+$/.test(number)) return Number(number);
  throw invalid(
    `--socket-group: there is no group ${group} in ${GROUPS_FILE}`,
    group,
    'create it with groupadd, or give its number',
  );
}

/** Gives a socket file to a group. @throws VirtioError PERMISSION_DENIED, IO */
export function giveToGroup(path: string, group: string, number: number): void {
  try {
    chownSync(path, -1, number);
  } catch (error) {
    if (!isSystemError(error, 'EPERM')) throw error;
    throw new VirtioError(ErrorCode.PERMISSION_DENIED, `not allowed to give ${path} to the group ${group}`, {
      value: group,
      cause: error,
      advice: 'run it as a member of that group, or as root',
    });
  }
}
