/**
 * A script of the golden test: commands of testpmd as they are typed, behind a head that says how it is started.
 *
 * Lines that begin with `#: ` are the head: `#: vdev net_null0`, `#: eal -l 0,1`, `#: options --rxq=2`. In the middle `#: wait 300`
 * holds the next command back until all before were answered and 300 ms more. `{folder}` is a folder of the run's own, `{tap}` the name
 * of a tap of its own;
 * `#: file NAME` and lines that begin with `#| ` put a file there.
 */

import { readFileSync } from 'node:fs';

export interface GoldenScript {
  readonly vdevs: readonly string[];
  readonly eal: readonly string[];
  readonly options: readonly string[];
  readonly files?: readonly { readonly name: string; readonly text: string }[];
  readonly steps: readonly { readonly lines: readonly string[]; readonly waitMs: number }[];
}

const words = (text: string): string[] => text.split(' ').filter((word) => word !== '');

export function readGoldenScript(path: string): GoldenScript {
  const vdevs: string[] = [];
  const eal: string[] = [];
  const options: string[] = [];
  const files: { name: string; text: string }[] = [];
  const steps: { lines: string[]; waitMs: number }[] = [{ lines: [], waitMs: 0 }];
  for (const line of readFileSync(path, 'utf8').split('\n').slice(0, -1)) {
    const file = files.at(-1);
    if (line.startsWith('#| ') && file !== undefined) {
      file.text += `${line.slice(3)}\n`;
      continue;
    }
    const [, what, rest = ''] = /^#: (\w+) ?(.*)$/.exec(line) ?? [];
    if (what === undefined) steps.at(-1)?.lines.push(line);
    else if (what === 'vdev') vdevs.push(rest);
    else if (what === 'eal') eal.push(...words(rest));
    else if (what === 'options') options.push(...words(rest));
    else if (what === 'file') files.push({ name: rest, text: '' });
    else if (what === 'wait') steps.push({ lines: [], waitMs: Number(rest) });
    else throw new Error(`${path}: ${line} is nothing that a script's head says`);
  }
  return { vdevs, eal, options, files, steps };
}
