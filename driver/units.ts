/** Branded numbers, only where a mix-up corrupts memory, and the checked ways to make them. */

import { ErrorCode, VirtioError } from './errors.js';

declare const brand: unique symbol;
type Branded<T, Name extends string> = T & { readonly [brand]: Name };

/** An address as the device uses it for DMA: what a descriptor carries. */
export type Iova = Branded<bigint, 'Iova'>;
/** An address in the front-end's own address space, as vhost-user ring addresses count. */
export type FrontendVa = Branded<bigint, 'FrontendVa'>;
/** The number of a packet buffer in its pool: 0 to `pool.size - 1`. */
export type PacketHandle = Branded<number, 'PacketHandle'>;

export const iova = (address: bigint): Iova => checkU64(address) as Iova;
export const frontendVa = (address: bigint): FrontendVa => checkU64(address) as FrontendVa;

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

const U64_MAX = (1n << 64n) - 1n;

function checkU64(value: bigint): bigint {
  if (value < 0n || value > U64_MAX) {
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${value} is not a 64-bit address`, { value });
  }
  return value;
}

/** The low 32 bits of a 64-bit address. */
export const lowWord = (address: bigint): number => Number(address & 0xffff_ffffn);
/** The high 32 bits of a 64-bit address. */
export const highWord = (address: bigint): number => Number(address >> 32n);

/** `value` rounded up to a multiple of `unit`, a power of two or not. */
export const roundUp = (value: number, unit: number): number => Math.ceil(value / unit) * unit;

export const isPowerOfTwo = (value: number): boolean =>
  Number.isInteger(value) && value > 0 && 2 ** Math.floor(Math.log2(value)) === value;
