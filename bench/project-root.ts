/** Where the project's folder is, from the sources and from dist alike. */

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

function findRoot(folder: string): string {
  return existsSync(join(folder, 'package.json')) ? folder : findRoot(dirname(folder));
}

/** The folder of package.json. */
export const projectRoot = findRoot(dirname(fileURLToPath(import.meta.url)));
