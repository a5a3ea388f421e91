/** The documentation holds together: its samples compile, its links lead somewhere, and every example is in it. */

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

import { blocksOf, docPages, missingLine } from '../support/doc-blocks.js';
import { withFolder } from '../support/temp-folder.js';

export const timeBoundSeconds = 180;

const test = suite('documentation');
const root = fileURLToPath(new URL('../../../', import.meta.url));
const pages = docPages(root);

/** What the compiler has to say about programs, each a file beside the page that it is on. */
function complaints(programs: ReadonlyMap<string, string>): string[] {
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile);
  const { options } = ts.convertCompilerOptionsFromJson(
    { ...config.compilerOptions, noEmit: true, incremental: false, tsBuildInfoFile: undefined },
    root,
  );
  const host = ts.createCompilerHost(options);
  const { readFile, fileExists, getSourceFile } = host;
  host.readFile = (name) => programs.get(name) ?? readFile(name);
  host.fileExists = (name) => programs.has(name) || fileExists(name);
  host.getSourceFile = (name, version, ...rest) => {
    const text = programs.get(name);
    return text === undefined ? getSourceFile(name, version, ...rest) : ts.createSourceFile(name, text, version, true);
  };
  const program = ts.createProgram([...programs.keys()], options, host);
  return ts.getPreEmitDiagnostics(program).map((each) => {
    const line = each.file?.getLineAndCharacterOfPosition(each.start ?? 0).line ?? 0;
    return `${each.file?.fileName}, line ${line + 1} of the sample: ${ts.flattenDiagnosticMessageText(each.messageText, '\n')}`;
  });
}

test('every sample in TypeScript compiles over the public interface; one that is wrong is found', () => {
  const wrong = join(root, 'docs/wrong.ts');
  const programs = new Map([[wrong, `import { openPort } from 'virtio-pmd';\nawait openPort(1);\n`]]);
  for (const page of pages) {
    for (const { language, line, text } of blocksOf(root, page)) {
      if (language === 'ts') programs.set(join(root, `${page}-${line}.ts`), text);
    }
  }
  assert.ok(programs.size > 5, `${programs.size} samples`);
  const [complaint = '', ...more] = complaints(programs);
  assert.match(complaint, /wrong\.ts, line 2 of the sample: Argument of type 'number'/);
  assert.equal(more, []);
});

test('links to files of the project lead somewhere', () => {
  for (const page of [...pages, 'ARCHITECTURE.md']) {
    const text = readFileSync(join(root, page), 'utf8');
    for (const [, target = ''] of text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
      if (/^https?:/.test(target)) continue;
      assert.ok(existsSync(join(root, dirname(page), target)), `${page} links to ${target}`);
    }
  }
});

test('every page is linked from the README, and so is every example', () => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  for (const page of pages.slice(1)) assert.ok(readme.includes(`](${page})`), `${page} is in the README`);
  for (const file of readdirSync(join(root, 'examples'))) {
    // Those that are programs by themselves.
    if (!readFileSync(join(root, 'examples', file), 'utf8').includes(`node dist/examples/`)) continue;
    assert.ok(readme.includes(`](examples/${file})`), `${file} is in the README`);
  }
});

test('an example is a file of fewer than 150 lines', () => {
  for (const file of readdirSync(join(root, 'examples'))) {
    const lines = readFileSync(join(root, 'examples', file), 'utf8').split('\n').length;
    assert.ok(lines < 150, `${file} has ${lines}`);
  }
});

test('every block says in what language it is', () => {
  for (const page of pages) {
    for (const { language, line } of blocksOf(root, page)) {
      assert.ok(['sh', 'console', 'ts', 'json', 'xml', 'text'].includes(language), `${page}:${line}: ${language}`);
    }
  }
});

test('a block is refused that could not fail, or has a word that means nothing', () =>
  withFolder((folder) => {
    for (const [words, complaint] of [
      ['background', /background has ready=TEXT/],
      ['background ready=', /background has ready=TEXT/],
      ['when=dist/x.js', /when is no word/],
    ] as const) {
      writeFileSync(join(folder, 'page.md'), `\`\`\`sh ${words}\ntrue\n\`\`\`\n`);
      assert.throws(() => blocksOf(folder, 'page.md'), complaint);
    }
  }));

test('output is compared by its words: numbers may differ, and nothing else', () => {
  const printed = '│ sent   │ 1,000 │ 3.41 Mpps │\nread 4 KiB\nthe end';
  assert.is(missingLine(['│ sent │ 2,000,000 │ 812.5 kpps │', 'read 5.7 MiB', 'the end'], printed), undefined);
  assert.is(missingLine(['read …'], printed), undefined);
  assert.is(missingLine(['│ received │ 1,000 │ 3.41 Mpps │'], printed), '│ received │ 1,000 │ 3.41 Mpps │');
  assert.is(missingLine(['the end', 'read 4 KiB'], printed), 'read 4 KiB', 'lines keep their order');
});

test.run();
