/** What a command prints on standard output, and how numbers look there. */

import { ErrorCode, isSystemError, VirtioError } from '../errors.js';

/**
 * Prints text; resolves when it is out. A reader that has gone away wants nothing more, and is no failure.
 *
 * @throws VirtioError IO when it cannot be written (a full disk)
 */
export function print(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(text, (error) => {
      if (error === undefined || error === null || isSystemError(error, 'EPIPE')) return resolve();
      const full = isSystemError(error, 'ENOSPC') ? 'no space left on the disk' : error.message;
      reject(
        new VirtioError(ErrorCode.IO, `the result could not be written: ${full}`, {
          cause: error,
          advice: 'make room, or let it go elsewhere',
        }),
      );
    });
  });
}

/** Standard output and standard error report a failed write as an event too, which would end the process. */
export function quietenStreams(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
}

/** `1,234,567`. */
export const count = (value: number): string => String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ',');

/** A rate in the unit that leaves one to three digits before the point: `14.28 Mpps`. */
export function packetRate(perSecond: number): string {
  if (perSecond >= 1e6) return `${(perSecond / 1e6).toFixed(2)} Mpps`;
  if (perSecond >= 1e3) return `${(perSecond / 1e3).toFixed(2)} kpps`;
  return `${perSecond.toFixed(0)} pps`;
}

/** `7.31 Gbit/s`, of the packets' own bytes. */
export const bitRate = (bytesPerSecond: number): string => `${((bytesPerSecond * 8) / 1e9).toFixed(2)} Gbit/s`;

/** `0.42 s`, `12 s`. */
export const duration = (seconds: number): string => `${seconds.toFixed(seconds < 10 ? 2 : 0)} s`;

/** `8.0 MiB`. */
export const memorySize = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** `1 queue`, `2 queues`. */
export const plural = (value: number, one: string, many = `${one}s`): string =>
  `${count(value)} ${value === 1 ? one : many}`;
