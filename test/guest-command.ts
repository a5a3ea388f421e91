/**
 * `npm run guest [-- OPTIONS]`: boots a virtual machine, drives its network device there against the bundled back-end here,
 * and prints what `virtio-pmd loopback` prints in it.
 */

import { parseArgs } from 'node:util';

import { echoPort } from '../driver/backend/ports/built-in.js';
import { GuestBackend } from './support/guest-backend.js';
import { DRIVER_MODULES, makeHugepages, runCli } from './support/guest-driver.js';
import { bootGuest } from './support/guest-machine.js';
import { unpackPackage } from './support/guest-packages.js';
import { missingPeers, packagesOf } from './support/peers.js';

const DEVICE = '0000:00:09.0';
const HUGEPAGES = 48;
/** What the device has at most. */
const QUEUE_PAIRS = 4;
const RING_SIZE = 1024;
/** What the guest needs of Debian, unpacked into the cache. */
const UNPACKED = ['linux-image-amd64', 'busybox-static'] as const;

const USAGE = `Usage: npm run guest [-- [--json] [--translated | --no-iommu] [LOOPBACK OPTIONS]]

  --json        one JSON object: that of loopback, and boot_s, kernel, device, iova_mode (pa: physical addresses;
                va: the driver's own, which the IOMMU translates), transport
  --translated  the device is behind the machine's IOMMU, where it goes past it otherwise
  --no-iommu    a machine without an IOMMU: the device is driven through sysfs

Other options are those of virtio-pmd loopback: --packets (default 10,000), --size, --queues (at most ${QUEUE_PAIRS}),
--ring-size (at most ${RING_SIZE}), …
`;

function parse() {
  const { values, tokens } = parseArgs({
    strict: false,
    tokens: true,
    options: {
      json: { type: 'boolean' },
      translated: { type: 'boolean' },
      iommu: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
    allowNegative: true,
  });
  const own = new Set(['json', 'translated', 'iommu', 'help']);
  const rest = process.argv
    .slice(2)
    .filter((_word, index) => !tokens.some((token) => token.index === index && 'name' in token && own.has(token.name)));
  return {
    isJson: values['json'] === true,
    hasIommu: values['iommu'] !== false,
    isTranslated: values['translated'] === true,
    isHelp: values['help'] === true,
    rest,
  };
}

const propertiesOf = (isTranslated: boolean): string[] => [
  ...['addr=0x9', 'disable-legacy=on', `rx_queue_size=${RING_SIZE}`, `tx_queue_size=${RING_SIZE}`],
  ...(isTranslated ? ['iommu_platform=on', 'ats=on'] : []),
];

async function main(): Promise<number> {
  const { isJson, hasIommu, isTranslated, isHelp, rest } = parse();
  if (isHelp) {
    process.stdout.write(USAGE);
    return 0;
  }
  if (isTranslated && !hasIommu) {
    process.stderr.write('virtio-pmd: INVALID_ARGUMENT: --translated needs the IOMMU that --no-iommu leaves out\n');
    return 2;
  }
  const missing = packagesOf(missingPeers(['qemu']));
  if (missing.length > 0) {
    process.stderr.write(`virtio-pmd: NOT_FOUND: no QEMU here (apt-get install ${missing.join(' ')})\n`);
    return 1;
  }
  for (const name of UNPACKED) await unpackPackage(name);
  await using backend = await GuestBackend.start({ port: echoPort(), queuePairs: QUEUE_PAIRS, iommu: isTranslated });
  const start = performance.now();
  await using guest = await bootGuest({
    iommu: hasIommu,
    hostRoot: true,
    memoryMb: 768,
    modules: DRIVER_MODULES,
    cards: [{ path: backend.path, queues: QUEUE_PAIRS, properties: propertiesOf(isTranslated) }],
  });
  const bootSeconds = (performance.now() - start) / 1000;
  const kernel = (await guest.run('uname -r')).trim();
  await makeHugepages(guest, HUGEPAGES);
  const binding = hasIommu ? ['--bind', 'vfio-pci', DEVICE] : ['--unbind', DEVICE];
  const bound = await runCli(guest, 'devbind', ...binding);
  if (bound.status !== 0) throw new Error(bound.output);
  const packets = rest.some((word) => word.startsWith('--packets') || word.startsWith('--duration'))
    ? []
    : ['--packets', '10000'];
  const access = hasIommu ? [] : ['--pci-access', 'sysfs'];
  const json = isJson ? ['--json'] : [];
  const words = ['loopback', '--device', DEVICE, ...access, ...packets, ...json, ...rest];
  const { status, output } = await runCli(guest, ...words);
  if (!isJson) {
    const way = hasIommu ? `VFIO${isTranslated ? ', behind the IOMMU' : ''}` : 'sysfs';
    process.stdout.write(`Linux ${kernel}, up in ${bootSeconds.toFixed(1)} s; ${DEVICE} through ${way}\n${output}`);
    return status;
  }
  const line = output.split('\n').find((text) => text.startsWith('{'));
  if (line === undefined) throw new Error(output);
  const about = {
    boot_s: Number(bootSeconds.toFixed(3)),
    kernel,
    device: { bdf: DEVICE, id: '1af4:1041' },
    iova_mode: isTranslated ? 'va' : 'pa',
  };
  process.stdout.write(`${JSON.stringify({ ...JSON.parse(line), ...about, transport: 'pci-modern' })}\n`);
  return status;
}

process.exitCode = await main();
