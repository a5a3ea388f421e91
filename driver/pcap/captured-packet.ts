/** A packet as a capture file holds it. */

export interface CapturedPacket {
  /** Since 1970-01-01 UTC; 0 where the file does not say. */
  readonly timestampNs: bigint;
  /** What was captured, a copy of the caller's own. */
  readonly bytes: Uint8Array;
  /** Length on the wire: more than `bytes` holds where the capture cut packets off. */
  readonly originalLength: number;
}

/** Reads the packets of one capture format, front to back; undefined at the end. */
export interface PacketSource {
  next(): CapturedPacket | undefined;
}
