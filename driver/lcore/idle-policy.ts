/** What a poll loop may do when there is nothing to do; `Idle` does it. */

/**
 * `spin` polls on, and `pause` after a microsecond and a half: for a processor of one's own. `yield` gives the processor to
 * whoever waits for it. `sleep` yields and after a while sleeps in steps of a millisecond: for machines with other work.
 *
 * On a packed ring the other side writes just where an idle loop looks, and loses the cache line to every look: `pause` is for
 * a driver's loop there.
 */
export type IdlePolicy = 'spin' | 'pause' | 'yield' | 'sleep';

export const IDLE_POLICIES = ['spin', 'pause', 'yield', 'sleep'] as const satisfies readonly IdlePolicy[];
