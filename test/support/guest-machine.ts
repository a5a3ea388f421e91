/**
 * A virtual machine with a real kernel in it, for tests: QEMU, Debian's kernel, busybox.
 *
 * Use:
 * ```
 * await using guest = await bootGuest({ cards: [{ path: socket, queues: 2 }] });
 * await guest.run('ip link set eth0 up');
 * ```
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { GuestAgent, type GuestEnd, type GuestRunOptions } from './guest-agent.js';
import { buildInitramfs, type InitramfsOptions } from './guest-initramfs.js';
import { kernelImage } from './guest-kernel.js';
import { Qmp } from './guest-qmp.js';

/** A network card whose back-end is behind a vhost-user socket. */
export interface GuestCard {
  /** Where the back-end listens or, with `role` server, connects to. */
  readonly path: string;
  /** QEMU's role. Default client. */
  readonly role?: 'client' | 'server' | undefined;
  /** Queue pairs. Default 1. */
  readonly queues?: number | undefined;
  readonly macAddress?: string | undefined;
  /** More properties of virtio-net-pci: `rx_queue_size=1024`. */
  readonly properties?: readonly string[] | undefined;
}

export interface GuestOptions extends Partial<Omit<InitramfsOptions, 'kernel'>> {
  /** Default 256. */
  readonly memoryMb?: number | undefined;
  /** Room for memory that is plugged in later, and places for it. Default none. */
  readonly memorySlots?: { readonly count: number; readonly mostMb: number } | undefined;
  /** Processors. Default 1. */
  readonly smp?: number | undefined;
  readonly cards?: readonly GuestCard[] | undefined;
  /** An IOMMU; cards that are to honour it have the properties `disable-legacy=on` and `iommu_platform=on`. */
  readonly iommu?: boolean | undefined;
  /** Bits of the addresses that the IOMMU translates: 39, as QEMU has it, or 48. */
  readonly iommuBits?: 39 | 48 | undefined;
  /** The host's files, read-only, at /host in the guest: `chroot /host node …` runs what the host has. */
  readonly hostRoot?: boolean | undefined;
  /** More arguments for QEMU. */
  readonly arguments?: readonly string[] | undefined;
  /** More words for the kernel. */
  readonly kernelWords?: readonly string[] | undefined;
  /**
   * Where a running guest comes in from: it is not booted. Memory, processors and cards are those it left. QEMU listens
   * there when the machine is returned; the guest stands still when it has come, until QEMU is told `cont`.
   */
  readonly incoming?: string | undefined;
  readonly bootTimeoutMs?: number | undefined;
}

/** Generous: other jobs may have the processors. */
const BOOT_MS = 90_000;
const STOP_MS = 5000;
const KEPT_CHARACTERS = 6000;
const HOST_TAG = 'host';
/**
 * The agent's line, at a place of the bus that no test wants. It is not a UART: with remapped interrupts and a busy
 * processor the edge of its interrupt got lost, and the line with it.
 */
const AGENT_DEVICE = 'virtio-serial-pci,addr=0x1e,disable-legacy=on,max_ports=2';
const AGENT_PORT = 'agent';

function cardArguments(card: GuestCard, index: number): string[] {
  const role = card.role === 'server' ? ',server=on,wait=off' : '';
  const properties = [
    `virtio-net-pci,netdev=n${index},id=card${index}`,
    `mac=${card.macAddress ?? `02:00:00:00:01:${index.toString(16).padStart(2, '0')}`}`,
    // QEMU 7.2 without KVM crashes when a vhost-user device signals by MSI-X.
    'vectors=0',
    ...((card.queues ?? 1) > 1 ? ['mq=on'] : []),
    // The boot ROM would only cost time.
    'romfile=',
    ...(card.properties ?? []),
  ];
  return [
    ...['-chardev', `socket,id=c${index},path=${card.path}${role}`],
    ...['-netdev', `vhost-user,id=n${index},chardev=c${index},queues=${card.queues ?? 1}`],
    ...['-device', properties.join(',')],
  ];
}

function hostRootArguments(options: GuestOptions): string[] {
  if (options.hostRoot !== true) return [];
  const share = `local,id=${HOST_TAG},path=/,security_model=none,readonly=on,multidevs=remap`;
  return ['-fsdev', share, '-device', `virtio-9p-pci,fsdev=${HOST_TAG},mount_tag=${HOST_TAG}`];
}

function memoryArguments(options: GuestOptions): string[] {
  const megabytes = options.memoryMb ?? 256;
  const slots = options.memorySlots;
  const more = slots === undefined ? '' : `,slots=${slots.count},maxmem=${slots.mostMb}M`;
  return [
    ...['-m', `${megabytes}M${more}`, '-numa', 'node,memdev=memory'],
    ...['-object', `memory-backend-memfd,id=memory,size=${megabytes}M,share=on`],
  ];
}

function qemuArguments(options: GuestOptions, kernel: string, folder: string): string[] {
  const words = [
    ...['console=ttyS0', 'quiet', 'panic=-1', `guest.agent=${AGENT_PORT}`, 'net.ifnames=0'],
    // On a busy host the kernel takes the processor's own clock for several times slower than it is: seconds would fly.
    'clocksource=hpet',
    // What would only take time on an emulated processor.
    ...['no_timer_check', 'cryptomgr.notests', 'random.trust_cpu=on', 'mitigations=off', 'nokaslr'],
    ...(options.iommu === true ? ['intel_iommu=on'] : []),
    ...(options.hostRoot === true ? [`guest.hostroot=${HOST_TAG}`] : []),
    ...(options.kernelWords ?? []),
  ];
  const socket = (name: string) => `socket,id=${name},path=${join(folder, name)}`;
  return [
    ...['-machine', 'q35', '-accel', process.env['VIRTIO_PMD_GUEST_ACCEL'] ?? 'tcg', '-cpu', 'max'],
    ...['-smp', String(options.smp ?? 1), ...memoryArguments(options)],
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-serial', 'stdio', '-chardev', socket('agent'), '-device', AGENT_DEVICE],
    ...['-device', `virtserialport,chardev=agent,name=${AGENT_PORT}`],
    ...['-chardev', socket('qmp'), '-mon', 'chardev=qmp,mode=control'],
    ...['-kernel', kernel, '-initrd', join(folder, 'initramfs'), '-append', words.join(' ')],
    // It has to be there before the devices that are behind it.
    ...(options.iommu === true
      ? ['-device', `intel-iommu,intremap=on,device-iotlb=on,aw-bits=${options.iommuBits ?? 39}`]
      : []),
    ...(options.cards ?? []).flatMap(cardArguments),
    ...hostRootArguments(options),
    ...(options.incoming === undefined ? [] : ['-S', '-incoming', 'defer']),
    ...(options.arguments ?? []),
  ];
}

/** Waits for one connection on a socket that is there at once. */
function expectConnection(path: string): { readonly server: Server; readonly connection: Promise<Socket> } {
  const server = createServer();
  const connection = new Promise<Socket>((resolve) => {
    server.once('connection', (socket) => {
      // A QEMU that ends before anybody listens resets it: what it printed says more.
      socket.on('error', () => {});
      resolve(socket);
    });
  });
  server.listen(path);
  return { server, connection };
}

export class Guest {
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #ended: Promise<void>;
  readonly #agent: GuestAgent;
  readonly #sockets: readonly Socket[];
  readonly #console: () => string;
  readonly qmp: Qmp;

  private constructor(
    child: ChildProcess,
    folder: string,
    ended: Promise<void>,
    sockets: readonly [Socket, Socket],
    said: () => string,
  ) {
    this.#child = child;
    this.#folder = folder;
    this.#ended = ended;
    this.#sockets = sockets;
    this.#console = said;
    this.#agent = new GuestAgent(sockets[0], said);
    this.qmp = new Qmp(sockets[1], said);
    void ended.then(() => this.#agent.end(`QEMU ended with ${child.signalCode ?? `status ${child.exitCode}`}`));
  }

  static async boot(options: GuestOptions): Promise<Guest> {
    const folder = mkdtempSync(join(tmpdir(), 'g-'));
    let child: ChildProcess | undefined;
    let guest: Guest | undefined;
    const servers: Server[] = [];
    try {
      const modules = [
        // What the agent and the host's files come by.
        ...['virtio_pci', 'virtio_console', ...(options.hostRoot === true ? ['9pnet_virtio', '9p'] : [])],
        ...(options.modules ?? ['virtio_net']),
      ];
      const initramfs = await buildInitramfs({ ...options, modules, kernel: 'linux-image-amd64' });
      writeFileSync(join(folder, 'initramfs'), initramfs);
      const expected = ['agent', 'qmp'].map((name) => expectConnection(join(folder, name)));
      servers.push(...expected.map(({ server }) => server));
      const args = qemuArguments(options, await kernelImage(), folder);
      child = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'pipe'] });
      const said = lastOutput(child);
      const ended = ending(child);
      const failed = ended.then(() => {
        throw new Error(`QEMU ended before the guest was up: ${said()}`);
      });
      const sockets = await Promise.race([Promise.all(expected.map(({ connection }) => connection)), failed]);
      guest = new Guest(child, folder, ended, sockets as [Socket, Socket], said);
      // Answered when it listens: told on its command line, it may only have made the socket.
      if (options.incoming !== undefined) await guest.qmp.execute('migrate-incoming', { uri: options.incoming });
      else await guest.#agent.up(1, options.bootTimeoutMs ?? BOOT_MS);
      return guest;
    } catch (error) {
      if (guest !== undefined) await guest.close('SIGKILL');
      else await stop(child, 'SIGKILL', folder);
      throw error;
    } finally {
      for (const server of servers) server.close();
    }
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** What its console and QEMU said last. */
  get console(): string {
    return this.#console();
  }

  /** How often it has come up. */
  get boots(): number {
    return this.#agent.boots;
  }

  /** Runs a shell script in the guest and resolves to what it printed. @throws Error when its status is not 0 */
  run(script: string, options?: GuestRunOptions): Promise<string> {
    return this.#agent.run(script, options);
  }

  /** Runs a shell script in the guest and resolves to how it ended. */
  tryRun(script: string, options?: GuestRunOptions): Promise<GuestEnd> {
    return this.#agent.tryRun(script, options);
  }

  /** What a program of the guest wrote into a file: a capture. */
  async readFile(path: string): Promise<Buffer> {
    return Buffer.from(await this.run(`base64 ${path}`), 'base64');
  }

  /** Starts the guest anew, as a power button would that is pressed for long, and resolves when it is up. */
  async reset(timeoutMs = BOOT_MS): Promise<void> {
    const boots = this.#agent.boots + 1;
    await this.qmp.execute('system_reset');
    await this.#agent.up(boots, timeoutMs);
  }

  /** Ends QEMU (SIGTERM unless told otherwise; after 5 s SIGKILL) and removes its files. Idempotent. */
  async close(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await stop(this.#child, signal, this.#folder);
    await this.#ended;
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Boots a guest and resolves when it takes commands. @throws Error with what it said when it does not come up */
export const bootGuest = (options: GuestOptions = {}): Promise<Guest> => Guest.boot(options);

/** Returns how to see the end of what a program printed. */
export function lastOutput(child: ChildProcess): () => string {
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      output = (output + chunk.toString('latin1')).slice(-KEPT_CHARACTERS);
    });
  }
  return () => output.trim();
}

/** Resolves when a program has ended, or could not be started. */
export const ending = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    child.once('close', () => resolve());
    child.once('error', () => resolve());
  });

async function stop(child: ChildProcess | undefined, signal: NodeJS.Signals, folder: string): Promise<void> {
  if (child?.pid !== undefined && child.exitCode === null && child.signalCode === null) {
    const ended = ending(child);
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
    await ended;
    clearTimeout(timer);
  }
  rmSync(folder, { recursive: true, force: true });
}
