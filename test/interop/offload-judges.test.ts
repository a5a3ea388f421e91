/** Segments and checksums made in software, as scapy would have made them, and as tshark finds them. */

import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import { PacketField, PacketFlag } from '../../driver/memory/packet-fields.js';
import { PacketPool } from '../../driver/memory/packet-pool.js';
import { PacketView } from '../../driver/memory/packet-view.js';
import { MAX_SEGMENTS, Segmenter } from '../../driver/offload/segment.js';
import { PcapWriter } from '../../driver/pcap/pcap-writer.js';
import { runCommand } from '../support/commands.js';
import { type PacketShape, packetOf, place } from '../support/offload-packets.js';
import { skipWithout } from '../support/skip.js';
import { withFolder } from '../support/temp-folder.js';
import { countMatching } from '../support/tshark.js';

const JUDGE = fileURLToPath(new URL('../../../test/support/scapy_judge.py', import.meta.url));
const { FLAGS, WORDS } = PacketField;
const { SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_UDP } = PacketFlag;
const SEGMENT = 1300;
const CHECKED = ['tcp.check_checksum:TRUE', 'udp.check_checksum:TRUE', 'ip.check_checksum:TRUE'];

const test = skipWithout(suite('segments, judged by others'), 'python3', 'scapy', 'tshark');

test('scapy makes the same lengths and checksums, tshark finds none wrong, and the payload is whole', () =>
  withFolder(async (folder) => {
    using memory = DmaMemory.allocate({ bytes: 512 * 1024, pages: '4K' });
    const pool = PacketPool.create(memory, { size: 512, bufferBytes: 1024, headroom: 64 });
    const segmenter = new Segmenter(pool);
    const view = new PacketView(pool);
    const out = new Uint32Array(MAX_SEGMENTS);
    const path = join(folder, 'segments.pcap');
    const writer = PcapWriter.create(path);
    const digests: string[] = [];
    let count = 0;
    for (const [version, protocol, flag] of [
      [4, 'tcp', SEGMENT_TCP4],
      [4, 'udp', SEGMENT_UDP],
      [6, 'tcp', SEGMENT_TCP6],
      [6, 'udp', SEGMENT_UDP],
    ] as const) {
      const payload = new Uint8Array(40_001).map((_, at) => at * 13 + (at >>> 7));
      const shape: PacketShape = {
        version,
        protocol,
        payload,
        tags: version === 4 ? 1 : 0,
        tcpOptions: 3,
        flags: 0x99,
      };
      const handle = place(pool, packetOf(version === 6 ? { ...shape, options: 1 } : shape));
      pool.fields[handle * WORDS + FLAGS] = flag | (SEGMENT << 16);
      const segments = segmenter.plan(handle);
      assert.ok(segmenter.cut(out, 0));
      for (const segment of out.subarray(0, segments)) {
        writer.write(view.move(segment).copyPacket(), 1_700_000_000_000_000_000n + BigInt(count++));
      }
      pool.free(out, 0, segments);
      pool.free(Uint32Array.of(handle), 0, 1);
      digests.push(`${version}${protocol.toUpperCase()}=${createHash('sha256').update(payload).digest('hex')}`);
    }
    writer.close();
    const said = await runCommand('/usr/bin/python3', [JUDGE, path], { timeoutMs: 60_000 });
    assert.is(said.trim(), [count, 0, ...digests].join(' '));
    const wrong = 'tcp.checksum.status == 0 || udp.checksum.status == 0 || ip.checksum.status == 0 || _ws.malformed';
    assert.is(await countMatching(path, wrong, CHECKED), 0);
    assert.is(await countMatching(path, 'tcp.checksum.status == 1 || udp.checksum.status == 1', CHECKED), count);
  }));

test.run();
