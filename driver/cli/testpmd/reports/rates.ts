/** How fast counters of a port grow: since they were last looked at, as testpmd has it. */

import type { DeviceStatistics, ExtendedValue } from '../devices/ethernet-device.js';

/** An extended statistic, and how much it grows a second. */
export interface MeteredValue extends ExtendedValue {
  readonly rate: number;
}

/** A second. */
export interface PortRates {
  readonly rxPackets: number;
  readonly rxBits: number;
  readonly txPackets: number;
  readonly txBits: number;
}

const MS_PER_SECOND = 1000;
const BITS_PER_BYTE = 8;

/** Counters that are looked at now and then. */
class Rates<Counter extends string> {
  /** Milliseconds. */
  readonly #now: () => number;
  #last: Partial<Record<Counter, number>> = {};
  #lastTime: number | undefined;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** How much each counter has grown a second since the last call, in whole numbers; 0 at the first one and after a reset. */
  next(values: Readonly<Record<Counter, number>>): Readonly<Record<Counter, number>> {
    const time = this.#now();
    const seconds = this.#lastTime === undefined ? 0 : (time - this.#lastTime) / MS_PER_SECOND;
    const rates: Record<Counter, number> = { ...values };
    for (const name of Object.keys(values) as Counter[]) {
      const grown = Math.max(0, values[name] - (this.#last[name] ?? 0));
      rates[name] = seconds > 0 ? Math.floor(grown / seconds) : 0;
    }
    this.#last = values;
    this.#lastTime = time;
    return rates;
  }
}

/** The rates of a port since its last report. */
export class PortMeter {
  readonly #port: Rates<'rxPackets' | 'rxBytes' | 'txPackets' | 'txBytes'>;
  readonly #extended: Rates<string>;

  constructor(now?: () => number) {
    this.#port = new Rates(now);
    this.#extended = new Rates(now);
  }

  next({ rxPackets, rxBytes, txPackets, txBytes }: DeviceStatistics): PortRates {
    const rates = this.#port.next({ rxPackets, rxBytes, txPackets, txBytes });
    return {
      rxPackets: rates.rxPackets,
      rxBits: rates.rxBytes * BITS_PER_BYTE,
      txPackets: rates.txPackets,
      txBits: rates.txBytes * BITS_PER_BYTE,
    };
  }

  /** Extended statistics of these names that the port has, each with how much it grows a second. */
  nextExtended(names: readonly string[], values: readonly ExtendedValue[]): readonly MeteredValue[] {
    const shown = names.flatMap((name) => values.find((value) => value.name === name) ?? []);
    const rates = this.#extended.next(Object.fromEntries(shown.map(({ name, value }) => [name, value])));
    return shown.map(({ name, value }) => ({ name, value, rate: rates[name] ?? 0 }));
  }
}
