/** A checkout in a temporary folder, with test files planted in it, to run the runner on. */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** What every planted file begins with: the test library by its place, for a temporary folder has no packages. */
const HEAD = `import { suite } from '${import.meta.resolve('uvu')}';
import * as assert from '${import.meta.resolve('uvu/assert')}';
`;

export interface PlantedCheckout {
  readonly root: string;
  /** Plants a test file as source and compiled file, e.g. `unit/good`. */
  plant(name: string, code: string): void;
  remove(): void;
}

/** Makes one; the caller removes it. */
export function plantCheckout(): PlantedCheckout {
  const root = mkdtempSync(join(tmpdir(), 'co-'));
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  return {
    root,
    plant(name, code) {
      write('dist/package.json', '{"type":"module"}');
      write(`test/${name}.test.ts`, '');
      write(`dist/test/${name}.test.js`, `${HEAD}${code}`);
    },
    remove: () => rmSync(root, { recursive: true, force: true }),
  };
}
