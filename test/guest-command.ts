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

const USAGE = `Usage: npm run guest [-- [--json] [--no-iommu] [LOOPBACK OPTIONS]]

  --json      one JSON object: that of loopback, and boot_s, kernel, device, iova_mode, transport
  --no-iommu  a machine without an IOMMU: the device is driven through sysfs

Other options are those of virtio-pmd loopback: --packets (default 10,000), --size, --queues, --ring-size, …
`;

const DEVICE = '0000:00:09.0';
const HUGEPAGES = 48;
/** What the guest needs of Debian, unpacked into the cache. */
const UNPACKED = ['linux-image-amd64', 'busybox-static'] as const;

function parse() {
  const { values, tokens } = parseArgs({
    strict: false,
    tokens: true,
    options: { json: { type: 'boolean' }, iommu: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
    allowNegative: true,
  });
  const own = new Set(['json', 'iommu', 'help']);
  const rest = process.argv
    .slice(2)
    .filter((_word, index) => !tokens.some((token) => token.index === index && 'name' in token && own.has(token.name)));
  return {
    isJson: values['json'] === true,
    hasIommu: values['iommu'] !== false,
    isHelp: values['help'] === true,
    rest,
  };
}

async function main(): Promise<number> {
  const { isJson, hasIommu, isHelp, rest } = parse();
  if (isHelp) {
    process.stdout.write(USAGE);
    return 0;
  }
  const missing = packagesOf(missingPeers(['qemu']));
  if (missing.length > 0) {
    process.stderr.write(`virtio-pmd: NOT_FOUND: no QEMU here (apt-get install ${missing.join(' ')})\n`);
    return 1;
  }
  for (const name of UNPACKED) await unpackPackage(name);
  await using backend = await GuestBackend.start({ port: echoPort() });
  const start = performance.now();
  await using guest = await bootGuest({
    iommu: hasIommu,
    hostRoot: true,
    memoryMb: 768,
    modules: DRIVER_MODULES,
    cards: [{ path: backend.path, properties: ['addr=0x9', 'disable-legacy=on'] }],
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
    process.stdout.write(
      `Linux ${kernel}, up in ${bootSeconds.toFixed(1)} s; ${DEVICE} through ${hasIommu ? 'VFIO' : 'sysfs'}\n${output}`,
    );
    return status;
  }
  const line = output.split('\n').find((text) => text.startsWith('{'));
  if (line === undefined) throw new Error(output);
  const about = {
    boot_s: Number(bootSeconds.toFixed(3)),
    kernel,
    device: { bdf: DEVICE, id: '1af4:1041' },
    iova_mode: 'pa',
  };
  process.stdout.write(`${JSON.stringify({ ...JSON.parse(line), ...about, transport: 'pci-modern' })}\n`);
  return status;
}

process.exitCode = await main();
