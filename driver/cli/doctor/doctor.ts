/** `virtio-pmd doctor`: what the driver and the back-end need of this machine, and what of it is missing. */

import type { NetworkFunction } from '../../index.js';
import { parsePciAddress } from '../../pci/pci-address.js';
import { ExitStatus, wrongUsage } from '../failure.js';
import { plural, print } from '../output.js';
import { type Examination, examine } from './examination.js';
import type { Finding } from './finding.js';
import { describeMachine } from './machine.js';
import type { DoctorOptions } from './options.js';
import type { Targets } from './situation.js';
import { System } from './system.js';

const COMMAND = 'virtio-pmd doctor';
const VHOST_USER = 'vhost-user:';

/** Examines this machine and what was named, and prints what it finds. Returns the exit status. */
export async function doctor(names: readonly string[], options: DoctorOptions, system = new System()): Promise<number> {
  const examination = await examine(system, targetsOf(names), options);
  const machine = describeMachine(system);
  if (options.json === true) await print(`${JSON.stringify(entries(examination, machine))}\n`);
  else await print(await report(examination, machine));
  return examination.findings.some(isTrouble) ? ExitStatus.FAILURE : ExitStatus.SUCCESS;
}

const isTrouble = ({ verdict }: Finding): boolean => verdict === 'trouble';

/** PCI addresses, and paths of sockets. @throws VirtioError INVALID_ARGUMENT for what is neither */
export function targetsOf(names: readonly string[]): Targets {
  const addresses: string[] = [];
  const sockets: string[] = [];
  for (const name of names) {
    const address = parsePciAddress(name);
    const path = name.startsWith(VHOST_USER) ? name.slice(VHOST_USER.length) : name;
    if (address !== undefined) addresses.push(address);
    else if (path.includes('/') || path.endsWith('.sock')) sockets.push(path);
    else {
      throw wrongUsage(`${name} is neither a PCI address such as 0000:00:04.0 nor the path of a socket`, COMMAND);
    }
  }
  return { addresses: [...new Set(addresses)], sockets: [...new Set(sockets)] };
}

/** What `--json` prints: the machine, its virtio devices, and a finding for each check. */
function entries({ situation, findings }: Examination, machine: string): unknown[] {
  const facts = { verdict: 'ok', looksAt: 'what is there' };
  return [
    { check: 'machine', subject: 'machine', value: machine, ...facts },
    ...virtioFunctions(situation.functions).map((fn) => ({
      check: 'function',
      subject: fn.address,
      value: describeFunction(fn).join(', '),
      ...facts,
      function: fn,
    })),
    ...findings,
  ];
}

const virtioFunctions = (functions: readonly NetworkFunction[]) => functions.filter(({ isVirtio }) => isVirtio);

function describeFunction(fn: NetworkFunction): string[] {
  const { id, driver = 'no driver', interfaces, iommuGroup, isViable, isWithoutIommu, carriesDefaultRoute } = fn;
  const remark = isWithoutIommu ? ' (made up, without an IOMMU)' : isViable ? '' : ' (not viable)';
  const group = iommuGroup === undefined ? 'no IOMMU group' : `IOMMU group ${iommuGroup}${remark}`;
  const route = carriesDefaultRoute ? ['carries the default route'] : [];
  return [id, driver, ...(interfaces.length === 0 ? [] : [interfaces.join(' ')]), group, ...route];
}

async function report({ situation, findings }: Examination, machine: string): Promise<string> {
  const functions = virtioFunctions(situation.functions);
  const { devices, sockets } = situation;
  const lines = [`This machine: ${machine}`];
  lines.push(
    functions.length === 0 ? 'It has no virtio network device on the PCI bus.' : 'Its virtio network devices:',
  );
  for (const fn of functions) lines.push(`  ${fn.address}  ${describeFunction(fn).join(', ')}`);
  if (devices.length === 0 && sockets.length === 0 && functions.length > 0) {
    lines.push(`The kernel has them all; to ask about one: ${COMMAND} ${functions.at(-1)?.address}`);
  }
  for (const subject of new Set(findings.map((finding) => finding.subject))) {
    lines.push('', `${subject}:`, ...findings.filter((finding) => finding.subject === subject).map(line));
  }
  const troubles = findings.filter(isTrouble).length;
  const idle = findings.filter(({ verdict }) => verdict === 'not applicable').length;
  const checks = `${plural(findings.length, 'check')}, ${idle} of them not applicable here`;
  lines.push('', troubles === 0 ? `All is well: ${checks}.` : `${plural(troubles, 'trouble')} in ${checks}.`);
  return `${lines.join('\n')}\n`;
}

const MARKS = { ok: 'ok', trouble: 'TROUBLE', 'not applicable': '-' } as const;

/** One check in one line. */
function line(finding: Finding): string {
  const start = `  ${MARKS[finding.verdict].padEnd(8)} ${finding.check}: ${finding.value}`;
  return finding.verdict === 'trouble' ? `${start}; needed: ${finding.requirement}; do: ${finding.fix}` : start;
}
