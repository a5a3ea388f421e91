/** Makes capture files byte by byte, by the formats' documents: in either byte order, whole and damaged. */

/** Words and bytes in one byte order. */
export class Bytes {
  readonly #little: boolean;
  readonly #parts: Uint8Array[] = [];

  constructor(little: boolean) {
    this.#little = little;
  }

  u16(...values: readonly number[]): this {
    for (const value of values) this.#number(2, (view) => view.setUint16(0, value, this.#little));
    return this;
  }

  u32(...values: readonly number[]): this {
    for (const value of values) this.#number(4, (view) => view.setUint32(0, value, this.#little));
    return this;
  }

  i64(value: bigint): this {
    return this.#number(8, (view) => view.setBigInt64(0, value, this.#little));
  }

  raw(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    return this;
  }

  /** Zeroes up to a multiple of four. */
  pad(): this {
    const length = this.#parts.reduce((sum, part) => sum + part.length, 0);
    return this.raw(new Uint8Array((4 - (length % 4)) % 4));
  }

  done(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.#parts));
  }

  #number(bytes: number, set: (view: DataView) => void): this {
    const view = new DataView(new ArrayBuffer(bytes));
    set(view);
    return this.raw(new Uint8Array(view.buffer));
  }
}

export interface MadePacket {
  readonly seconds: number;
  /** Micro- or nanoseconds, as the file counts. */
  readonly fraction: number;
  readonly bytes: Uint8Array;
  /** Length on the wire when the packet is cut off. */
  readonly originalLength?: number;
}

export interface PcapForm {
  readonly little: boolean;
  readonly nanoseconds: boolean;
  readonly linkType?: number;
  readonly version?: readonly [number, number];
}

/** A pcap file. */
export function makePcap(form: PcapForm, packets: readonly MadePacket[]): Uint8Array {
  const [major, minor] = form.version ?? [2, 4];
  const file = new Bytes(form.little)
    .u32(form.nanoseconds ? 0xa1b23c4d : 0xa1b2c3d4)
    .u16(major, minor)
    .u32(0, 0, 65535, form.linkType ?? 1);
  for (const { seconds, fraction, bytes, originalLength } of packets) {
    file.u32(seconds, fraction, bytes.length, originalLength ?? bytes.length).raw(bytes);
  }
  return file.done();
}

/** One block of a pcapng file around `body`. */
export function block(little: boolean, type: number, body: Uint8Array): Uint8Array {
  const padded = new Bytes(little).raw(body).pad().done();
  const bytes = padded.length + 12;
  return new Bytes(little).u32(type, bytes).raw(padded).u32(bytes).done();
}

export const sectionHeader = (little: boolean, major = 1): Uint8Array =>
  block(little, 0x0a0d0d0a, new Bytes(little).u32(0x1a2b3c4d).u16(major, 0).i64(-1n).done());

export interface InterfaceForm {
  readonly linkType?: number;
  readonly snapLength?: number;
  /** Option if_tsresol. */
  readonly resolution?: number;
  /** Option if_tsoffset. */
  readonly offsetSeconds?: bigint;
}

export function interfaceDescription(little: boolean, form: InterfaceForm = {}): Uint8Array {
  const body = new Bytes(little).u16(form.linkType ?? 1, 0).u32(form.snapLength ?? 0);
  // An option that nobody asked about comes first: if_name, of a length that needs padding.
  body.u16(2, 5).raw(new TextEncoder().encode('veth0')).pad();
  if (form.resolution !== undefined) body.u16(9, 1).raw(Uint8Array.of(form.resolution)).pad();
  if (form.offsetSeconds !== undefined) body.u16(14, 8).i64(form.offsetSeconds);
  return block(little, 1, body.u16(0, 0).done());
}

/** An enhanced packet; `units` is its timestamp in the interface's units. */
export function enhancedPacket(little: boolean, interfaceNumber: number, units: bigint, bytes: Uint8Array): Uint8Array {
  const body = new Bytes(little)
    .u32(interfaceNumber, Number(units >> 32n), Number(units & 0xffff_ffffn), bytes.length, bytes.length)
    .raw(bytes)
    .pad()
    // An option after the data: epb_flags.
    .u16(2, 4)
    .u32(1)
    .u16(0, 0);
  return block(little, 6, body.done());
}

/** A simple packet, of which `bytes` were captured. */
export const simplePacket = (little: boolean, bytes: Uint8Array, originalLength = bytes.length): Uint8Array =>
  block(little, 3, new Bytes(little).u32(originalLength).raw(bytes).done());

/** A packet block of old files. */
export function oldPacket(little: boolean, interfaceNumber: number, units: bigint, bytes: Uint8Array): Uint8Array {
  const body = new Bytes(little)
    .u16(interfaceNumber, 0)
    .u32(Number(units >> 32n), Number(units & 0xffff_ffffn), bytes.length, bytes.length)
    .raw(bytes);
  return block(little, 2, body.done());
}

/** `length` bytes that differ from their neighbours. */
export const pattern = (length: number, seed = 0): Uint8Array =>
  Uint8Array.from({ length }, (_, index) => (index * 7 + seed) & 0xff);

export const join = (...parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
