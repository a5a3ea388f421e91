/** Arithmetic of the Internet checksum (RFC 1071): sums of 16-bit words with the carry brought round. */

/** Adds a word, or another such sum, to a sum; both 0 to 65535. */
export function addToSum(sum: number, word: number): number {
  const total = sum + word;
  return (total & 0xffff) + (total >>> 16);
}

/** The checksum of a sum: what makes the sum over both 0xffff. */
export const checksumOf = (sum: number): number => ~sum & 0xffff;

/** The sum over data and its own checksum, where nothing was changed on the way. */
export const CORRECT_SUM = 0xffff;
