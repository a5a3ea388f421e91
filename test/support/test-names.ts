/** Names that no two test files share, and that tell the runner afterwards whose leftovers they are. */

import { randomInt } from 'node:crypto';

const ID_LENGTH = 6;

/** Environment variable that carries the id of a test file's run, inherited by everything the file starts. */
export const TEST_ID_VARIABLE = 'VIRTIO_PMD_TEST_ID';

/** Six letters and digits: short enough for the 15 characters of an interface name. */
export const makeTestId = (): string =>
  randomInt(36 ** ID_LENGTH)
    .toString(36)
    .padStart(ID_LENGTH, '0');

/** The ids that are in force: of this file, and of the files whose test started it. */
const inherited = process.env[TEST_ID_VARIABLE];
const testId = inherited?.slice(-ID_LENGTH) ?? makeTestId();
let count = 0;

/**
 * Returns a name that no other test uses, for network namespaces, interfaces, memfds and the like.
 *
 * With a prefix of up to six letters it fits into an interface name (15 characters).
 */
export const uniqueName = (prefix: string): string => `${prefix}${testId}${(count++).toString(36)}`;
