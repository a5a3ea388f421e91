/** A command of the control queue, as those that carry it out see it. */

/** Bytes of a command that can be read at a time: two tables of addresses, both full. */
export const CONTROL_SCRATCH_BYTES = 4096;
/** Where the command's result is written to, behind the ack; and how long it may be. */
export const RESULT_AT = 1;
export const RESULT_BYTES_MOST = CONTROL_SCRATCH_BYTES - RESULT_AT;
/** A command as it lies in guest memory, header included. */
export interface ControlCommand {
  /** As the chain has them: any number, none of them read yet. */
  readonly bytes: number;
  /** Where parts of it are read to: `CONTROL_SCRATCH_BYTES`. */
  readonly scratch: Uint8Array;
  /** Copies `count` bytes from position `from` on to the scratch at `to`; false where they are not in guest memory. */
  read(from: number, count: number, to: number): boolean;
  /** Bytes that the chain has room for behind the ack. */
  readonly resultRoom: number;
  /** Bytes of the result, which is in the scratch from `RESULT_AT` on; 0 at first, and of a command that is refused. */
  resultBytes: number;
}
