/** What this machine is, in one line. */

import { plural } from '../output.js';
import type { System } from './system.js';

const words = (text: string): string => text.replaceAll('"', '');

/** The name of the hypervisor's own machine, or that there is one; undefined on bare metal, as far as can be seen. */
function hypervisor(system: System): string | undefined {
  const dmi = (name: string) => system.text(`/sys/class/dmi/id/${name}`) ?? '';
  const isGuest = /^flags\s*:.*\bhypervisor\b/m.test(system.text('/proc/cpuinfo') ?? '');
  const product = `${dmi('sys_vendor')} ${dmi('product_name')}`.trim();
  const isEmulated = /QEMU|KVM|VMware|VirtualBox|Xen|Bochs|Virtual Machine|Google Compute|Amazon EC2/.test(product);
  return isGuest || isEmulated ? `a virtual machine${product === '' ? '' : ` (${product})`}` : undefined;
}

/** `Debian GNU/Linux 12 (bookworm), kernel 6.1.0-56-amd64, x64, 2 processors, 0.5 GiB of memory, a virtual machine, Node v20.19.2`. */
export function describeMachine(system: System): string {
  const release = system.text('/etc/os-release') ?? '';
  const processors = (system.text('/proc/cpuinfo') ?? '').match(/^processor\s*:/gm)?.length ?? 0;
  const kilobytes = /^MemTotal:\s*(\d+) kB/m.exec(system.text('/proc/meminfo') ?? '')?.[1];
  const parts = [
    words(/^PRETTY_NAME=(.*)$/m.exec(release)?.[1] ?? 'Linux'),
    `kernel ${system.text('/proc/sys/kernel/osrelease') ?? 'unknown'}`,
    process.arch,
    ...(processors > 0 ? [plural(processors, 'processor')] : []),
    ...(kilobytes === undefined ? [] : [`${(Number(kilobytes) / 2 ** 20).toFixed(1)} GiB of memory`]),
    ...(system.has('/dev/kvm') ? ['KVM'] : []),
    hypervisor(system) ?? 'no hypervisor in sight',
    `Node ${process.version}`,
  ];
  return parts.join(', ');
}
