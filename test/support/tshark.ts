/** Asks tshark what is in a capture file. */

import { runCommand } from './commands.js';

/** A packet as tshark sees it. */
export interface SeenPacket {
  readonly timestampNs: bigint;
  readonly length: number;
  readonly originalLength: number;
  /** MD5 of the captured bytes, in hex. */
  readonly md5: string;
}

function parse(line: string): SeenPacket {
  const [time = '', captured, length, md5 = ''] = line.split('\t');
  const [seconds = '0', fraction = '0'] = time.split('.');
  return {
    timestampNs: BigInt(seconds) * 1_000_000_000n + BigInt(fraction.padEnd(9, '0')),
    length: Number(captured),
    originalLength: Number(length),
    md5,
  };
}

/** Every packet of the file. */
export async function seenPackets(path: string): Promise<SeenPacket[]> {
  const fields = ['frame.time_epoch', 'frame.cap_len', 'frame.len', 'frame.md5_hash'];
  const wanted = fields.flatMap((field) => ['-e', field]);
  const args = ['-n', '-r', path, '-o', 'frame.generate_md5_hash:TRUE', '-T', 'fields', ...wanted];
  const output = await runCommand('tshark', args, { timeoutMs: 60_000 });
  return output.split('\n').filter(Boolean).map(parse);
}

/** How many packets of the file match a display filter (`vlan.id == 100`), under these preferences (`tcp.check_checksum:TRUE`). */
export async function countMatching(
  path: string,
  filter: string,
  preferences: readonly string[] = [],
): Promise<number> {
  const set = preferences.flatMap((preference) => ['-o', preference]);
  const args = ['-n', '-r', path, ...set, '-Y', filter, '-T', 'fields', '-e', 'frame.number'];
  const output = await runCommand('tshark', args, { timeoutMs: 60_000 });
  return output.split('\n').filter(Boolean).length;
}
