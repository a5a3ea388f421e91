/** Bytes of vhost-user messages to values and back, by the tables of driver/spec/vhost-user.ts. */

import { ErrorCode, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import {
  type FdArity,
  type FrontendRequestName,
  frontendRequestName,
  type frontendRequests,
  type Payload,
  type Structure,
  VRING_NO_FD,
  vhostUserHeader,
} from '../spec/vhost-user.js';

type ValuesOf<L> = L extends { read(view: DataView, offset?: number): infer V } ? V : never;

/** The values a payload of shape `P` carries. Counts and sizes are not among them: they follow from the rest. */
export type PayloadValues<P> = P extends { readonly kind: 'none' }
  ? undefined
  : P extends { readonly kind: 'fixed'; readonly layout: infer L }
    ? ValuesOf<L>
    : P extends { readonly kind: 'array'; readonly item: infer L }
      ? readonly ValuesOf<L>[]
      : P extends { readonly kind: 'bytes'; readonly head: infer L; readonly size: infer S extends string }
        ? Omit<ValuesOf<L>, S> & { readonly bytes: Uint8Array }
        : P extends { readonly kind: 'opaque' }
          ? Uint8Array
          : never;

/** What a front-end request carries. */
export type RequestValues<N extends FrontendRequestName> = PayloadValues<(typeof frontendRequests)[N]['payload']>;
/** What its own reply carries; undefined where it has none. */
export type ReplyValues<N extends FrontendRequestName> = PayloadValues<(typeof frontendRequests)[N]['reply']>;

type Fields = Readonly<Record<string, number | bigint>>;

export interface MessageHeader {
  readonly request: number;
  readonly flags: number;
  readonly size: number;
}

const EMPTY = new Uint8Array(0);

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Names a request as people know it: `SET_MEM_TABLE`, or `request 77`. */
export const requestName = (id: number): string => frontendRequestName(id) ?? `request ${id}`;

export const decodeHeader = (bytes: Uint8Array): MessageHeader => vhostUserHeader.read(viewOf(bytes));

/** A whole message: header, then `payload`. */
export function encodeMessage(request: number, flags: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(vhostUserHeader.bytes + payload.length);
  vhostUserHeader.write(viewOf(bytes), { request, flags, size: payload.length });
  bytes.set(payload, vhostUserHeader.bytes);
  return bytes;
}

/** The bytes of a payload of the given shape. */
export function encodePayload<P extends Payload>(shape: P, values: PayloadValues<P>): Uint8Array;
export function encodePayload(shape: Payload, values: unknown): Uint8Array {
  switch (shape.kind) {
    case 'none':
      return EMPTY;
    case 'opaque':
      return values as Uint8Array;
    case 'fixed': {
      const bytes = new Uint8Array(shape.layout.bytes);
      shape.layout.write(viewOf(bytes), values as object);
      return bytes;
    }
    case 'array': {
      const items = values as readonly object[];
      const bytes = new Uint8Array(shape.head.bytes + items.length * shape.item.bytes);
      shape.head.write(viewOf(bytes), { [shape.count]: items.length });
      items.forEach((item, index) => {
        shape.item.write(viewOf(bytes), item, shape.head.bytes + index * shape.item.bytes);
      });
      return bytes;
    }
    case 'bytes': {
      const { bytes: tail, ...head } = values as { bytes: Uint8Array };
      const bytes = new Uint8Array(shape.head.bytes + tail.length);
      shape.head.write(viewOf(bytes), { ...head, [shape.size]: tail.length });
      bytes.set(tail, shape.head.bytes);
      return bytes;
    }
  }
}

/**
 * The values in a payload of the given shape. The length must be exactly what the shape, and its own count, ask for;
 * whole items beyond the count are passed over.
 *
 * @throws VirtioError PROTOCOL_VIOLATION otherwise
 */
export function decodePayload<P extends Payload>(shape: P, bytes: Uint8Array): PayloadValues<P>;
export function decodePayload(shape: Payload, bytes: Uint8Array): unknown {
  switch (shape.kind) {
    case 'none':
      checkSize(bytes, 0, 0);
      return undefined;
    case 'opaque':
      checkSize(bytes, shape.shortest, shape.longest);
      return bytes;
    case 'fixed':
      return readFixed(shape.layout, shape.shortest, bytes);
    case 'array': {
      const head = readHead(shape.head, bytes);
      // Full width: the count is a u32, and the cap keeps the product far from where numbers lose bits.
      const count = Number(head[shape.count]);
      const size = shape.head.bytes + count * shape.item.bytes;
      // A front-end may send its whole table, with places that hold nothing behind `count`: Linux in user mode does.
      const empty = Math.floor((bytes.length - size) / shape.item.bytes);
      checkSize(bytes, size, size + Math.max(empty, 0) * shape.item.bytes);
      return Array.from({ length: count }, (_, index) =>
        shape.item.read(viewOf(bytes), shape.head.bytes + index * shape.item.bytes),
      ) as Fields[];
    }
    case 'bytes': {
      const { [shape.size]: length, ...head } = readHead(shape.head, bytes);
      const size = shape.head.bytes + Number(length);
      checkSize(bytes, size, size);
      return { ...head, bytes: bytes.subarray(shape.head.bytes) };
    }
  }
}

/**
 * Checks how many descriptors came with a message against what the table says.
 *
 * @throws VirtioError PROTOCOL_VIOLATION
 */
export function checkFds(arity: FdArity, values: unknown, count: number): void {
  const [least, most] = fdBounds(arity, values);
  if (count >= least && count <= most) return;
  const expected = least === most ? `${least}` : `${least} or ${most}`;
  throw new VirtioError(ErrorCode.PROTOCOL_VIOLATION, `${count} descriptors came where ${expected} should`, {
    value: count,
    requirement: 'vhost-user "Communication"',
  });
}

function fdBounds(arity: FdArity, values: unknown): readonly [number, number] {
  switch (arity) {
    case 'none':
      return [0, 0];
    case 'one':
      return [1, 1];
    case 'none-or-one':
      return [0, 1];
    case 'each-item': {
      const count = (values as readonly unknown[]).length;
      return [count, count];
    }
    case 'unless-bit-8': {
      const count = ((values as { u64: bigint }).u64 & VRING_NO_FD) === 0n ? 1 : 0;
      return [count, count];
    }
  }
}

/** A structure that may come without its last padding. */
function readFixed(layout: Structure, shortest: number, bytes: Uint8Array): Fields {
  if (bytes.length === shortest && shortest < layout.bytes) {
    const padded = new Uint8Array(layout.bytes);
    padded.set(bytes);
    return layout.read(viewOf(padded)) as Fields;
  }
  checkSize(bytes, layout.bytes, layout.bytes);
  return layout.read(viewOf(bytes)) as Fields;
}

function readHead(layout: Structure, bytes: Uint8Array): Fields {
  checkSize(bytes, layout.bytes, caps.payloadBytes);
  return layout.read(viewOf(bytes)) as Fields;
}

function checkSize(bytes: Uint8Array, least: number, most: number): void {
  if (bytes.length >= least && bytes.length <= most) return;
  throw new VirtioError(
    ErrorCode.PROTOCOL_VIOLATION,
    `the payload has ${bytes.length} bytes, not ${least === most ? least : `${least} to ${most}`}`,
    { value: bytes.length, requirement: 'vhost-user "Message Specification"' },
  );
}
