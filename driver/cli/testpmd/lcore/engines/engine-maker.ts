/** How a forward engine is made. */

import type { PacketPool } from '../../../../thread.js';
import type { ForwardSettings } from '../forward-settings.js';
import type { ForwardEngine, Stream } from '../stream.js';
import type { StreamTraffic } from '../stream-traffic.js';

/** What engines are made with, beside their stream. */
export interface EngineContext {
  readonly pool: PacketPool;
  readonly settings: ForwardSettings;
  /** The number of this lcore. */
  readonly lcore: number;
  /** Shows text, on standard output or standard error. */
  readonly print: (text: string, isError?: boolean) => void;
}

export type EngineMaker = (stream: Stream, traffic: StreamTraffic, context: EngineContext) => ForwardEngine;
