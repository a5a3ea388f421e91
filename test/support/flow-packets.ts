/** Packets of flows over IPv4 and IPv6, and their hash by its definition. */

/** The key of the published vectors (Microsoft, "Verifying the RSS Hash Calculation"). */
export const HASH_KEY = Uint8Array.from(
  Buffer.from('6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa', 'hex'),
);

/** The Toeplitz hash as it is defined: a word of the key for each bit that is set. */
export function referenceHash(key: ArrayLike<number>, input: ArrayLike<number>): number {
  let window = 0n;
  for (let at = 0; at < input.length + 4; at++) window = (window << 8n) | BigInt(key[at] ?? 0);
  const bits = 8 * (input.length + 4);
  let hash = 0n;
  for (let bit = 0; bit < 8 * input.length; bit++) {
    if ((input[bit >>> 3]! & (0x80 >>> (bit & 7))) === 0) continue;
    hash ^= (window >> BigInt(bits - 32 - bit)) & 0xffff_ffffn;
  }
  return Number(hash);
}

/** What stands behind an IP header. */
interface Layer {
  readonly protocol: number;
  readonly bytes: readonly number[];
}

const word = (value: number): number[] => [(value >>> 8) & 0xff, value & 0xff];

export const address4 = (text: string): number[] => text.split('.').map(Number);
/** Written out in all its eight parts. */
export const address6 = (text: string): number[] => text.split(':').flatMap((part) => word(Number.parseInt(part, 16)));

export const tcp = (source: number, destination: number): Layer => ({
  protocol: 6,
  bytes: [...word(source), ...word(destination), ...new Array(16).fill(0x77)],
});
export const udp = (source: number, destination: number): Layer => ({
  protocol: 17,
  bytes: [...word(source), ...word(destination), 0, 8, 0, 0],
});

const ethernet = (type: number): number[] => [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, ...word(type)];

export function ipv4(
  source: readonly number[],
  destination: readonly number[],
  { protocol, bytes }: Layer,
): Uint8Array {
  const header = [0x45, 0, ...word(20 + bytes.length), 0, 0, 0, 0, 64, protocol, 0, 0, ...source, ...destination];
  return Uint8Array.from([...ethernet(0x0800), ...header, ...bytes]);
}

/** The packet with other fragment bits. */
export function fragment4(packet: Uint8Array, offsetAndFlags: number): Uint8Array {
  const changed = packet.slice();
  changed.set(word(offsetAndFlags), 14 + 6);
  return changed;
}

const kinds = { 'hop-by-hop': 0, routing: 43, fragment: 44, destination: 60 } as const;
type Extension = Layer;

/**
 * An extension header whose first byte is still to be set: options with a home address or without, a routing header of
 * type 2, or a fragment's (`number` is offset and flag). Of options `number` single bytes of padding come first.
 */
export function extension(kind: keyof typeof kinds, address?: readonly number[], number = 0): Extension {
  const protocol = kinds[kind];
  if (kind === 'fragment') return { protocol, bytes: [0, 0, ...word(number), 0, 0, 0, 9] };
  if (kind === 'routing') return { protocol, bytes: [0, 2, 2, 1, 0, 0, 0, 0, ...address!] };
  if (address === undefined) return { protocol, bytes: [0, 0, 1, 4, 0, 0, 0, 0] };
  const options = [...new Array(number).fill(0), 0xc9, 16, ...address];
  const units = Math.ceil((2 + options.length) / 8);
  const bytes = [0, units - 1, ...options];
  return { protocol, bytes: [...bytes, ...new Array(8 * units - bytes.length).fill(0)] };
}

export function ipv6(
  source: readonly number[],
  destination: readonly number[],
  layer: Layer,
  extensions: readonly Extension[] = [],
): Uint8Array {
  const layers = [...extensions, layer];
  const payload = layers.flatMap(({ bytes }, index) =>
    index < extensions.length ? [layers[index + 1]!.protocol, ...bytes.slice(1)] : [...bytes],
  );
  const header = [0x60, 0, 0, 0, ...word(payload.length), layers[0]!.protocol, 64, ...source, ...destination];
  return Uint8Array.from([...ethernet(0x86dd), ...header, ...payload]);
}

/** The packet with a tag in front of its type. */
export const tagged = (packet: Uint8Array, type: number, identifier = 5): Uint8Array =>
  Uint8Array.from([...packet.subarray(0, 12), ...word(type), ...word(identifier), ...packet.subarray(12)]);

/** TCP and UDP over both versions. */
export function dualStack(): Uint8Array[] {
  const [from4, to4] = [address4('192.168.1.2'), address4('10.20.30.40')];
  const [from6, to6] = [address6('2001:db8:1:2:3:4:5:6'), address6('fe80:0:0:0:1:2:3:4')];
  return [tcp(4000, 80), udp(53, 5353)].flatMap((layer) => [ipv4(from4, to4, layer), ipv6(from6, to6, layer)]);
}
