/** Reads a few bytes of a guest's memory on the control plane, for those who only look. */

import { CopyDirection, CopyJob, CopyStatus, native } from '../../native/index.js';
import { highWord, lowWord } from '../units.js';
import type { MemoryTable } from './vhost-user-memory.js';

/**
 * A copy of `bytes` bytes at the front-end's address; undefined where they are not in one region, or are gone.
 *
 * Goes through the copy engine, which survives memory that is taken away.
 */
export function copyFromGuest(memory: MemoryTable, userAddress: bigint, bytes: number): ArrayBuffer | undefined {
  const guestAddress = memory.translate(userAddress, bytes);
  const region = memory.regions.find(
    (other) =>
      guestAddress !== undefined &&
      guestAddress >= other.guestAddress &&
      guestAddress < other.guestAddress + BigInt(other.bytes),
  );
  if (guestAddress === undefined || region === undefined) return undefined;
  const engine = new native.CopyEngine(1);
  const copy = new ArrayBuffer(Math.max(bytes, 8));
  try {
    const fileOffset = region.fileOffset + Number(guestAddress - region.guestAddress);
    engine.addRegion({ fd: region.fd, fileOffset, guestAddress, bytes, readOnly: true });
    engine.setPool(copy);
    const { jobs } = engine;
    jobs[CopyJob.GUEST_LOW] = lowWord(guestAddress);
    jobs[CopyJob.GUEST_HIGH] = highWord(guestAddress);
    jobs[CopyJob.POOL_OFFSET] = 0;
    jobs[CopyJob.LENGTH] = bytes;
    jobs[CopyJob.DIRECTION] = CopyDirection.FROM_GUEST;
    engine.run(1);
    return jobs[CopyJob.STATUS] === CopyStatus.OK ? copy.slice(0, bytes) : undefined;
  } catch {
    // The file was truncated, or there is no address space left: there is nothing to show.
    return undefined;
  } finally {
    engine.close();
  }
}
