/** Cuts what comes in on a socket into lines, and bounds what the other side may take of memory and time. */

import type { Socket } from 'node:net';
import { ErrorCode, VirtioError } from '../../errors.js';

export interface LineLimits {
  /** Bytes, with the line break. */
  readonly longest: number;
  /** How long a line may take from its first byte to its last. */
  readonly patienceMs: number;
}

const LINE_BREAK = 0x0a;

/**
 * Yields line by line, without line breaks; what comes behind waits in the socket until the line is done with.
 *
 * A last line without a line break is none. Whoever ends the loop still has the socket to end.
 * @throws VirtioError PROTOCOL_VIOLATION for a line that is too long, TIMEOUT for one that does not end
 */
export async function* readLines(socket: Socket, { longest, patienceMs }: LineLimits): AsyncGenerator<string> {
  let parts: Buffer[] = [];
  let bytes = 0;
  let timer: NodeJS.Timeout | undefined;
  const late = (): VirtioError =>
    new VirtioError(ErrorCode.TIMEOUT, `a line has not ended within ${patienceMs / 1000} s`);
  try {
    for await (const chunk of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      let from = 0;
      for (let end = chunk.indexOf(LINE_BREAK); end >= 0; end = chunk.indexOf(LINE_BREAK, from)) {
        clearTimeout(timer);
        timer = undefined;
        const last = chunk.subarray(from, end);
        if (bytes + last.length >= longest) throw tooLong(longest);
        yield Buffer.concat([...parts, last]).toString('utf8');
        parts = [];
        bytes = 0;
        from = end + 1;
      }
      if (from === chunk.length) continue;
      parts.push(chunk.subarray(from));
      bytes += chunk.length - from;
      if (bytes >= longest) throw tooLong(longest);
      timer ??= setTimeout(() => socket.destroy(late()), patienceMs).unref();
    }
  } finally {
    clearTimeout(timer);
  }
}

const tooLong = (longest: number): VirtioError =>
  new VirtioError(ErrorCode.PROTOCOL_VIOLATION, `a line is longer than ${longest} bytes`, { value: longest });
