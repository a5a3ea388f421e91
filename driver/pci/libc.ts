/** The few functions of the C library that Node does not offer, called through ffi-napi: about 2.5 µs a call, so control path only. */

import { createRequire } from 'node:module';
import { getSystemErrorMap } from 'node:util';
import type { SystemError } from '../errors.js';

/** Failed calls throw a `SystemError` with Node's fields. */
export interface Libc {
  /** Opens a file; the descriptor is the caller's. `flags` as in `fs.constants`; close-on-exec is added. */
  open(path: string, flags: number): number;
  close(fd: number): void;
  /** A request with a number as argument. Returns what the request answers, 0 or more. */
  ioctlValue(fd: number, request: number, argument: number): number;
  /** A request with a structure as argument, which the kernel may write to. Returns what the request answers. */
  ioctlBuffer(fd: number, request: number, argument: Uint8Array): number;
}

/** What of ffi-napi is used; its own types would come with those of three more packages. */
interface FfiModule {
  Library(
    path: null,
    functions: Readonly<Record<string, readonly [result: string, arguments: readonly string[]]>>,
  ): {
    open(path: string, flags: number): number;
    close(fd: number): number;
    ioctl(fd: number, request: number, argument: number | Uint8Array): number;
  };
  errno(): number;
}

/** `O_CLOEXEC`, which `fs.constants` lacks; the same on x86-64 and arm64. */
const O_CLOEXEC = 0o2000000;

const require = createRequire(import.meta.url);
let loaded: Libc | undefined;

/** The binding, loaded at the first call: loading takes tens of milliseconds, and most programs never need it. */
export function libc(): Libc {
  loaded ??= bind(require('ffi-napi') as FfiModule);
  return loaded;
}

function bind(ffi: FfiModule): Libc {
  // ioctl has a variable argument list; on the Linux calling conventions integers and pointers go as in a fixed one.
  const values = ffi.Library(null, {
    open: ['int', ['string', 'int']],
    close: ['int', ['int']],
    ioctl: ['int', ['int', 'ulong', 'ulong']],
  });
  const buffers = ffi.Library(null, { ioctl: ['int', ['int', 'ulong', 'pointer']] });
  /** Returns the result of a call, or throws what errno says; to be called with nothing in between. */
  const checked = (result: number, syscall: string, path?: string): number => {
    if (result < 0) throw systemError(ffi.errno(), syscall, path);
    return result;
  };
  return {
    open: (path, flags) => checked(values.open(path, flags | O_CLOEXEC), 'open', path),
    close: (fd) => void checked(values.close(fd), 'close'),
    ioctlValue: (fd, request, argument) => checked(values.ioctl(fd, request, argument), 'ioctl'),
    // A Buffer over the same bytes: a pointer argument takes nothing else.
    ioctlBuffer: (fd, request, argument) =>
      checked(
        buffers.ioctl(fd, request, Buffer.from(argument.buffer, argument.byteOffset, argument.byteLength)),
        'ioctl',
      ),
  };
}

/** The error that Node makes of a failed call. */
export function systemError(number: number, syscall: string, path?: string): SystemError {
  const [code, message] = getSystemErrorMap().get(-number) ?? [`E${number}`, 'unknown error'];
  const where = path === undefined ? syscall : `${syscall} '${path}'`;
  const error = new Error(`${code}: ${message}, ${where}`);
  return Object.assign(error, { code, errno: -number, syscall, ...(path === undefined ? {} : { path }) });
}
