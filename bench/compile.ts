/** Compiles the bench's C++ programs where they are run. */

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { ErrorCode, VirtioError } from 'virtio-pmd';
import { projectRoot } from './project-root.js';

const COMPILE_MS = 60_000;

/**
 * Compiles a file of the bench into `program`.
 *
 * @param source from the bench's folder on
 * @param libraries for the linker, behind the source
 * @throws VirtioError NOT_FOUND without a compiler, UNSUPPORTED when it does not compile.
 */
export async function compile(
  source: string,
  args: readonly string[],
  program: string,
  libraries: readonly string[] = [],
): Promise<void> {
  const file = join(projectRoot, 'bench', source);
  const all = ['-O2', '-std=c++17', ...args, '-o', program, file, ...libraries];
  try {
    await promisify(execFile)('g++', all, { timeout: COMPILE_MS });
  } catch (cause) {
    const { code, stderr = '' } = cause as { code?: unknown; stderr?: string };
    if (code === 'ENOENT') {
      throw new VirtioError(ErrorCode.NOT_FOUND, 'g++ is not installed', { advice: 'apt-get install g++', cause });
    }
    throw new VirtioError(ErrorCode.UNSUPPORTED, `${source} does not compile: ${stderr.split('\n')[0]}`, { cause });
  }
}

/**
 * What a library says that programs need: arguments for the compiler and for the linker.
 *
 * @throws VirtioError NOT_FOUND where it is not installed
 */
export async function flagsOf(
  library: string,
  debianPackage: string,
): Promise<{ compiler: string[]; linker: string[] }> {
  const ask = async (what: '--cflags' | '--libs') =>
    (await promisify(execFile)('pkg-config', [what, library])).stdout.trim().split(/\s+/);
  try {
    return { compiler: await ask('--cflags'), linker: await ask('--libs') };
  } catch (cause) {
    const advice = `apt-get install pkg-config ${debianPackage}`;
    throw new VirtioError(ErrorCode.NOT_FOUND, `${library} is not installed`, { value: library, advice, cause });
  }
}
