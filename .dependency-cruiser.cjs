/**
 * Who may import whom. The table is the rule; everything below it only turns it into what the checker reads.
 *
 * `driver/errors.ts` and `driver/units.ts` are free for all. A folder may always import its own files.
 */

const { readFileSync } = require('node:fs');
const { join } = require('node:path');

/**
 * The files that `driver/index.ts` exports names from. The command line is a user of the public interface, but takes what it
 * uses from these files: a command that loaded all of the index would take twice the time to start.
 */
const publicFiles = Array.from(
  readFileSync(join(process.cwd(), 'driver/index.ts'), 'utf8').matchAll(/from '\.\/([^']*)\.js'/g),
  ([, path]) => `driver/${path}.ts`,
);

const mayImport = {
  native: [],
  'driver/spec': [],
  'driver/memory': ['driver/spec', 'native'],
  'driver/offload': ['driver/spec', 'driver/memory'],
  'driver/ring': ['driver/spec', 'driver/memory', 'native'],
  'driver/wire': ['driver/spec', 'driver/memory', 'native'],
  'driver/lcore': ['driver/spec', 'driver/memory', 'native'],
  'driver/pcap': ['driver/spec'],
  'driver/pci': ['driver/spec', 'driver/memory', 'native'],
  'driver/transport': ['driver/spec', 'driver/memory', 'driver/pci', 'driver/wire', 'native'],
  'driver/net': [
    'driver/spec',
    'driver/memory',
    'driver/offload',
    'driver/ring',
    'driver/lcore',
    'driver/transport',
    'native',
  ],
  'driver/backend': [
    'driver/spec',
    'driver/memory',
    'driver/offload',
    'driver/ring',
    'driver/wire',
    'driver/lcore',
    'driver/pcap',
    'native',
  ],
  'driver/cli': ['driver/index.ts', 'driver/thread.ts', ...publicFiles],
};

/** Files at the root of driver/: what everybody may import, and what puts the parts together. */
const freeForAll = ['driver/errors.ts', 'driver/units.ts', 'driver/specialize.ts'];
const compositionRoots = ['driver/index.ts', 'driver/open.ts', 'driver/thread.ts'];

/** Programs over the public interface: they import the package by its name, which resolves to its compiled entry. */
const packageUsers = ['examples', 'bench'];
/** But for what measures each layer by itself. */
const layerUsers = { 'bench/layers': ['driver/spec', 'driver/memory', 'driver/ring', 'native'] };

const literal = (path) => path.replace(/[.]/g, '\\.');
const inside = (path) => (path.endsWith('.ts') ? `^${literal(path)}$` : `^${literal(path)}/`);
const ours = '^(driver|native|examples|test|bench|dist)/';
const listed = (names) => (names.length === 0 ? 'nothing of ours' : names.join(', '));

const tableRules = Object.entries(mayImport).map(([folder, allowed]) => ({
  name: `${folder.replace('/', '-')}-imports`,
  comment: `${folder} may import ${listed(allowed)}`,
  severity: 'error',
  from: { path: inside(folder) },
  to: { path: ours, pathNot: [folder, ...allowed, ...freeForAll].map(inside) },
}));

const userRules = packageUsers.map((folder) => ({
  name: `${folder}-imports`,
  comment: `${folder} may import its own files and the package by its name, virtio-pmd`,
  severity: 'error',
  from: { path: inside(folder), pathNot: Object.keys(layerUsers).map(inside) },
  to: { path: ours, pathNot: [inside(folder), '^dist/driver/(index|thread)\\.(js|d\\.ts)$'] },
}));

const layerRules = Object.entries(layerUsers).map(([folder, layers]) => ({
  name: `${folder.replace('/', '-')}-imports`,
  comment: `${folder} may import what the rest of bench may, and ${listed(layers)}`,
  severity: 'error',
  from: { path: inside(folder) },
  to: { path: ours, pathNot: [inside('bench'), '^dist/driver/(index|thread)\\.(js|d\\.ts)$', ...layers.map(inside)] },
}));

module.exports = {
  forbidden: [
    ...tableRules,
    ...userRules,
    ...layerRules,
    {
      name: 'free-for-all-imports',
      comment: `${listed(freeForAll)} import nothing but each other`,
      severity: 'error',
      from: { path: freeForAll.map(inside) },
      to: { path: ours, pathNot: freeForAll.map(inside) },
    },
    {
      name: 'composition-root-imports',
      comment: `${listed(compositionRoots)} may import anything of driver except the command line`,
      severity: 'error',
      from: { path: compositionRoots.map(inside) },
      to: { path: ours, pathNot: ['^driver/(?!cli/)'] },
    },
    {
      name: 'driver-cli-loads-the-index',
      comment: 'driver/cli imports types from driver/index.ts, and values from the files that it exports them from',
      severity: 'error',
      from: { path: inside('driver/cli') },
      to: { path: inside('driver/index.ts'), dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'not-in-the-table',
      comment: 'a file of driver/ that no row of the table covers: add its folder to the table first',
      severity: 'error',
      from: {
        path: '^driver/',
        pathNot: [...Object.keys(mayImport), ...freeForAll, ...compositionRoots].map(inside),
      },
      to: {},
    },
    {
      name: 'no-circular',
      comment: 'two files that import each other are one idea in two places',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'no-orphans',
      comment: 'a file that neither imports nor is imported is not part of anything',
      severity: 'error',
      from: { orphan: true },
      to: {},
    },
    {
      name: 'not-to-unresolvable',
      comment: 'the import leads nowhere (for virtio-pmd itself: compile first)',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: 'library-not-to-dev-dependency',
      comment: 'what is shipped may only need what package.json lists under dependencies',
      severity: 'error',
      from: { path: '^(driver|native)/' },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown'], dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'library-not-to-test',
      comment: 'tests import the library, never the other way round',
      severity: 'error',
      from: { path: '^(driver|native|examples|bench)/' },
      to: { path: '^test/' },
    },
  ],
  options: {
    doNotFollow: { path: ['node_modules', '^dist/'] },
    exclude: { path: '^native/build/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'require', 'node', 'default'],
    },
  },
};
