/** One turn of one contender: what is measured, for how long, and when it does not count. */

/** What a turn gave. */
export interface Turn {
  /** Packets a second that came back to the host's side. */
  readonly rate: number;
  /** The share of one core that others took meanwhile: 0.06 is 6 %. */
  readonly taken: number;
}

export interface TurnTimes {
  /** Between thawing a contender and measuring it: caches and branch predictors become its own again. */
  readonly settleMs: number;
  readonly measureMs: number;
}

/** Whoever takes turns: frozen from its start until a turn, and after it. */
export interface Contender {
  readonly name: string;
  /** Thaws, settles, measures, freezes. */
  turn(times: TurnTimes): Promise<Turn>;
}

/** Turns are 0.8 s with what surrounds the measured part. */
export const TURN_TIMES: TurnTimes = { settleMs: 50, measureMs: 700 };

/** A turn in which others took more of a core than this says nothing. */
export const TAKEN_MAX = 0.06;

export const isDisturbed = (turn: Turn): boolean => turn.taken > TAKEN_MAX;
