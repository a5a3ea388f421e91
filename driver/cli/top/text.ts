/** Text in columns of a terminal: what a name takes of them, and how it is brought to a width. */

import stringWidth from 'string-width';

const CUT = '…';
const segmenter = new Intl.Segmenter();

/** A name that somebody else chose, without what a terminal would obey. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
export const printable = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, '?');

/** The text in exactly so many columns, to the left or to the right; one that is too long loses its middle. */
export function fit(text: string, width: number, isRight = false): string {
  const shown = cut(text, width);
  const room = ' '.repeat(Math.max(width - stringWidth(shown), 0));
  return isRight ? room + shown : shown + room;
}

function cut(text: string, width: number): string {
  if (stringWidth(text) <= width) return text;
  if (width <= 1) return CUT.slice(0, width);
  // Names differ at their ends more than at their beginnings.
  const head = Math.floor((width - 1) / 3);
  const characters = Array.from(segmenter.segment(text), ({ segment }) => segment);
  const begin = asMany(characters, head);
  const end = asMany(characters.toReversed(), width - 1 - stringWidth(begin.join(''))).toReversed();
  return begin.join('') + CUT + end.join('');
}

/** As many of the characters as fit, from the first on. */
function asMany(characters: readonly string[], width: number): string[] {
  const some: string[] = [];
  let taken = 0;
  for (const character of characters) {
    taken += stringWidth(character);
    if (taken > width) break;
    some.push(character);
  }
  return some;
}
