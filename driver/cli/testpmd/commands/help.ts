/** `help` and `help SECTION`: what commands there are. */

import { type Command, command } from '../console/grammar.js';

/** What the help says of a section in one line. */
export interface HelpSection {
  readonly summary: string;
  readonly commands: readonly Command[];
}

/** The commands that explain these sections. */
export function helpCommands(sections: Readonly<Record<string, HelpSection>>): readonly Command[] {
  const names = Object.keys(sections);
  return [
    command('help', 'the sections of this help', ({ output }) => {
      const rows = Object.entries(sections).map(([name, { summary }]) => `    help ${name.padEnd(27)}: ${summary}`);
      const all = `    help ${'all'.padEnd(27)}: All of the above sections.`;
      output.write(`\nHelp is available for the following sections:\n\n${[...rows, all].join('\n')}\n\n`);
    }),
    command(
      `help {section:${[...names, 'all'].join('|')}}` as 'help {section:word}',
      'the commands of a section',
      ({ output }, { section }) => {
        for (const name of section === 'all' ? names : [section]) output.write(sectionText(name, sections[name]));
      },
    ),
  ];
}

function sectionText(name: string, section: HelpSection | undefined): string {
  const title = `${name.slice(0, 1).toUpperCase()}${name.slice(1)}:`;
  const rows = (section?.commands ?? []).map(({ tokens, help }) => {
    return `${tokens.map(({ text }) => text).join(' ')}\n    ${help}\n`;
  });
  return `\n${title}\n${'-'.repeat(title.length)}\n\n${rows.join('\n')}\n`;
}
