/** Numbers as they stand in the view: few digits, bars and curves. */

const UNITS = ['', ' k', ' M', ' G', ' T', ' P'] as const;

/** Three digits that count and the power of a thousand: `0`, `12`, `1.23 k`, `45.6 M`, `789 G`. */
export function scaled(value: number): string {
  let power = 0;
  let rest = value;
  // What would be rounded to 1000 is 1 of the next.
  while (rest >= 999.5 && power < UNITS.length - 1) {
    rest /= 1000;
    power++;
  }
  if (power === 0) return rest > 0 && rest < 9.95 && !Number.isInteger(rest) ? rest.toFixed(1) : rest.toFixed(0);
  const digits = rest < 9.995 ? 2 : rest < 99.95 ? 1 : 0;
  return `${rest.toFixed(digits)}${UNITS[power]}`;
}

export const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;

/** `59 s`, `12:34`, `1:02:03`, `3 d 04:05`. */
export function elapsed(seconds: number): string {
  const whole = Math.floor(seconds);
  const two = (value: number): string => String(value).padStart(2, '0');
  const [days, hours, minutes] = [
    Math.floor(whole / 86_400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
  ];
  if (days > 0) return `${days} d ${two(hours)}:${two(minutes)}`;
  if (hours > 0) return `${hours}:${two(minutes)}:${two(whole % 60)}`;
  return minutes > 0 ? `${minutes}:${two(whole % 60)}` : `${whole} s`;
}

/** What bars and curves are made of. */
export interface Glyphs {
  readonly full: string;
  readonly empty: string;
  /** From nothing to all. */
  readonly levels: string;
}

const BLOCKS: Glyphs = { full: '█', empty: '░', levels: ' ▁▂▃▄▅▆▇█' };
const PLAIN: Glyphs = { full: '#', empty: '.', levels: ' .:-=+*#' };

/** Blocks where the locale says that the terminal knows them (locale(7)). */
export function glyphsFor(environment: Readonly<Record<string, string | undefined>>): Glyphs {
  const locale = environment['LC_ALL'] || environment['LC_CTYPE'] || environment['LANG'] || '';
  return /utf-?8/i.test(locale) ? BLOCKS : PLAIN;
}

/** A share of 0 to 1, so many characters long. */
export function bar(share: number, width: number, { full, empty }: Glyphs): string {
  const filled = Math.min(Math.max(Math.round(share * width), share > 0 ? 1 : 0), width);
  return full.repeat(filled) + empty.repeat(width - filled);
}

/** The last values, the newest at the right, the greatest of them as high as it goes. */
export function curve(values: readonly number[], width: number, { levels }: Glyphs): string {
  const shown = width > 0 ? values.slice(-width) : [];
  const most = shown.reduce((a, b) => Math.max(a, b), 0);
  const steps = levels.length - 1;
  const level = (value: number): number => (value > 0 ? Math.max(Math.round((value / most) * steps), 1) : 0);
  return shown.map((value) => levels[level(value)]).join('');
}
