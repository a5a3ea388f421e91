/** Counts what comes back of a source's packets: whole, damaged, lost, late, twice. */

import type { Burst } from '../../memory/burst.js';
import { PacketBytes } from '../../memory/packet-bytes.js';
import type { PacketPool } from '../../memory/packet-pool.js';
import { SequenceOutcome, SequenceWindow } from './sequence-window.js';
import { streamCounters } from './stream-counters.js';
import { STREAMS, TestPacketReader } from './test-packet.js';

export class StreamCheck {
  readonly #reader: TestPacketReader;
  readonly #window = new SequenceWindow(STREAMS);

  constructor(pool: PacketPool) {
    this.#reader = new TestPacketReader(new PacketBytes(pool));
  }

  /** Looks at all packets of a burst and leaves them there. */
  look(burst: Burst, counters: Float64Array): void {
    for (let index = 0; index < burst.count; index++) {
      const found = this.#reader.read(burst.handles[index]!);
      if (found === 'foreign') counters[streamCounters.foreign]! += 1;
      else if (found === 'corrupted') counters[streamCounters.corrupted]! += 1;
      if (found !== 'foreign') this.#note(found === 'good', counters);
    }
  }

  /** A damaged packet has come all the same: it is not lost, too. */
  #note(isGood: boolean, counters: Float64Array): void {
    const outcome = this.#window.note(this.#reader.stream, this.#reader.run, this.#reader.number);
    if (outcome === SequenceOutcome.DUPLICATE) {
      counters[streamCounters.duplicate]! += 1;
      return;
    }
    if (isGood) counters[streamCounters.good]! += 1;
    if (outcome === SequenceOutcome.FIRST) counters[streamCounters.begun]! += 1;
    else if (outcome === SequenceOutcome.NEW) counters[streamCounters.lost]! += this.#window.skipped;
    else {
      counters[streamCounters.late]! += 1;
      counters[streamCounters.lost]! -= 1;
    }
  }
}
