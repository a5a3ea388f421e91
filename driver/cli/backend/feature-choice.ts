/** Which of its features the back-end offers: `--features`. */

import { ErrorCode, VirtioError } from '../../errors.js';

/** Names in capitals, without VIRTIO_NET_F_ or VIRTIO_F_ before them. */
export interface FeatureChoice {
  /** `only`: these and no others. `without`: all but these. */
  readonly how: 'only' | 'without';
  readonly names: readonly string[];
}

const invalid = (message: string, value: string): VirtioError =>
  new VirtioError(ErrorCode.INVALID_ARGUMENT, message, {
    value,
    advice: 'name features as the specification does: --features MRG_RXBUF,EVENT_IDX or --features=-EVENT_IDX',
  });

/** Reads `A,B` (only these) or `-A,-B` (all but these). @throws VirtioError INVALID_ARGUMENT */
export function featureChoice(text: string): FeatureChoice {
  const parts = text.split(',').map((part) => part.trim());
  if (parts.some((part) => part === '' || part === '-')) {
    throw invalid(`--features takes names separated by commas, not ${text === '' ? 'empty' : text}`, text);
  }
  const isWithout = parts.map((part) => part.startsWith('-'));
  if (isWithout.some((value) => value !== isWithout[0])) {
    throw invalid(`--features has either names, or names with a minus before each, not both: ${text}`, text);
  }
  const names = parts.map((part) =>
    part
      .replace(/^-/, '')
      .toUpperCase()
      .replace(/^(VIRTIO_(NET_|RING_)?F_|VHOST_(USER_)?F_)/, ''),
  );
  return { how: isWithout[0] === true ? 'without' : 'only', names };
}
