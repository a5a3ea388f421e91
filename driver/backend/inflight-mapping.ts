/** A ring's part of an inflight region on a poll thread: mapped by an engine of its own. */

import { native } from '../../native/index.js';
import { ErrorCode, VirtioError } from '../errors.js';
import type { MemoryRange } from '../spec/pci-function.js';

/** Told why a ring is not where its set-up says. */
export type Resync = (reason: string) => void;

/** The mapping of a region that a ring is over. */
export interface OpenInflight {
  /** Whether a page of the region is gone: its file was cut off. */
  isLost(): boolean;
  /** Lets go of the region. */
  close(): void;
}

/**
 * Maps a region and has `open` make a ring over it; what `open` returns to be called is called before it is let go of.
 *
 * @throws VirtioError INVALID_ARGUMENT for a region that is too small, or not in its file; and what `open` throws
 */
export function mapInflight(
  range: MemoryRange,
  what: string,
  bytes: number,
  open: (region: ArrayBuffer) => () => void,
): OpenInflight {
  if (range.bytes < bytes || range.fileOffset % 8 !== 0) {
    const found = `${range.bytes} bytes at ${range.fileOffset}`;
    throw badRegion(`an inflight region for ${what} has ${bytes} bytes, not ${found}`, range);
  }
  // An engine of its own: the guest's buffers must not reach the region, and it is guarded against truncation.
  const engine = new native.CopyEngine(1);
  try {
    engine.addRegion({ fd: range.fd, fileOffset: range.fileOffset, guestAddress: 0n, bytes });
    const release = open(engine.view(0n, bytes));
    return {
      isLost: () => engine.faults() > 0,
      close: () => {
        release();
        engine.close();
      },
    };
  } catch (error) {
    engine.close();
    if (error instanceof VirtioError) throw error;
    throw badRegion(`an inflight region cannot be used: ${String(error)}`, range, error);
  }
}

const badRegion = (message: string, value: MemoryRange, cause?: unknown): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, message, {
    value,
    requirement: 'vhost-user "Inflight I/O tracking"',
    ...(cause === undefined ? {} : { cause }),
  });
