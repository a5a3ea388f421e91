/** What the poll threads of the tests run: what `data` says. */

import { ErrorCode, VirtioError } from '../../driver/errors.js';
import type { LcoreContext } from '../../driver/lcore/context.js';
import { Idle, type IdlePolicy } from '../../driver/lcore/idle.js';
import { native } from '../../native/index.js';

export type LcoreWork =
  /** Polls until it is stopped, and answers requests. */
  | { readonly kind: 'poll'; readonly idle?: IdlePolicy }
  /** Returns at once. */
  | { readonly kind: 'return'; readonly value: unknown }
  /** Throws at once: a VirtioError, or something else. */
  | { readonly kind: 'throw'; readonly what: 'virtio' | 'plain' | 'text' }
  /** Ends the thread without a word. */
  | { readonly kind: 'exit' }
  /** Never looks at `stop.requested`. */
  | { readonly kind: 'hang' };

/** What the poll loop counts while it runs. */
export interface PollResult {
  readonly turns: number;
  readonly requests: number;
  readonly cpus: readonly number[];
}

export function lcoreMain({ stop, data, cpu, emit }: LcoreContext): unknown {
  const work = data as LcoreWork;
  if (work.kind === 'return') return work.value;
  if (work.kind === 'throw') throw failures[work.what];
  if (work.kind === 'exit') process.exit(3);
  if (work.kind === 'hang') for (;;) native.yieldThread();
  return poll({ stop, data, cpu, emit }, work.idle ?? 'yield');
}

function poll({ stop, emit }: LcoreContext, policy: IdlePolicy): PollResult {
  const idle = new Idle(policy, stop);
  let turns = 0;
  let requests = 0;
  stop.onRequest('add', ({ a, b }: { a: number; b: number }) => {
    requests++;
    return a + b;
  });
  stop.onRequest('turns', () => turns);
  stop.onRequest('emit', (event: unknown) => emit(event));
  stop.onRequest('fail', (what: keyof typeof failures) => {
    throw failures[what];
  });
  stop.onRequest('answer with what cannot be sent', () => () => 0);
  stop.onRequest('fail with what cannot be sent', () => {
    throw new VirtioError(ErrorCode.IO, 'a value that cannot be sent', { value: { inside: () => 0 } });
  });
  while (!stop.requested) {
    turns++;
    idle.turn(0);
  }
  return { turns, requests, cpus: native.affinity() };
}

const failures = {
  virtio: new VirtioError(ErrorCode.NOT_FOUND, 'there is no such thing', {
    value: { port: 7 },
    advice: 'look elsewhere',
    requirement: 'virtio 1.2 §2.1',
  }),
  plain: new TypeError('not what was expected'),
  text: 'just a text',
} as const;
