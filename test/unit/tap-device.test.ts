/** A tap device on somebody else's descriptor, which here is a pipe: what it does when it is closed. */

import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { TapDevice } from '../../driver/backend/ports/tap-device.js';
import { Burst } from '../../driver/memory/burst.js';
import { createPool } from '../../driver/net/create-pool.js';
import { withFolder } from '../support/temp-folder.js';

const test = suite('tap device');
/** A virtio header of nothing, and the shortest frame. */
const FRAME = new Uint8Array(12 + 60);

test('a closed one reads and writes nothing, and gives its buffers back once', async () => {
  await withFolder((folder) => {
    const path = join(folder, 'pipe');
    execFileSync('mkfifo', [path]);
    const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    const pool = createPool({ size: 256, bufferBytes: 2176, pages: '4K' });
    const burst = new Burst(pool, 32);
    const tap = new TapDevice(pool, { name: 'pipe', fd });
    writeSync(fd, FRAME);
    assert.is(tap.read(burst), 1);
    burst.free();
    writeSync(fd, FRAME);
    tap.close();
    tap.close();
    assert.is(pool.available, pool.size);
    assert.is(tap.read(burst), 0);
    assert.is(burst.allocate(1), 1);
    assert.is(tap.write(burst), 0);
    assert.is(burst.count, 1);
    burst.free();
    assert.is(pool.available, pool.size);
    closeSync(fd);
    pool.memory.close();
  });
});

test.run();
