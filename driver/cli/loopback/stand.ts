/** What a loopback run stands on: a port, and the back-end at its other end unless that is somebody else's. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DeviceThread } from '../../backend/device-thread.js';
import { echoPort } from '../../backend/ports/built-in.js';
import { ErrorCode, VirtioError } from '../../errors.js';
import type { NetDevice, OpenPortOptions, Port, VhostUserServer } from '../../index.js';
import { parsePciAddress } from '../../pci/pci-address.js';
import { Feature } from '../../spec/features.js';
import type { Interrupt } from '../interrupt.js';
import { type LoopbackOptions, transportOf } from './options.js';

export interface Stand {
  /** Closing it closes all the rest. */
  readonly port: Port;
  /** The bundled back-end's device, once there is one. */
  device(): NetDevice | undefined;
}

/** Opens everything; on failure nothing stays. */
export async function openStand(options: LoopbackOptions, interrupt: Interrupt): Promise<Stand> {
  const { queues, ring, ringSize, memory, lock, reconnect, connect, device, pciAccess, legacy } = options;
  const portOptions: OpenPortOptions = {
    queues,
    ring,
    ringSize,
    pages: memory,
    lock,
    reconnect,
    pciAccess,
    legacy,
    demand: demandedFeatures(options.demand ?? []),
    signal: interrupt.signal,
  };
  if (connect !== undefined) return await openOther(`vhost-user:${connect}`, portOptions);
  if (device !== undefined) return await openOther(checkedAddress(device), portOptions);
  // The thread comes up while the rest is loaded.
  const starting = DeviceThread.start({
    cpu: options.lcores?.[1],
    idle: options.idle,
    ports: [new URL(echoPort().module)],
  });
  try {
    const open = transportOf(options) === 'pci' ? openPci : openVhostUser;
    return await open(starting, portOptions, options, interrupt);
  } catch (error) {
    await starting.then(
      (thread) => thread.stop(),
      () => undefined,
    );
    throw error;
  }
}

/** A port without a back-end of ours. */
async function openOther(address: string, portOptions: OpenPortOptions): Promise<Stand> {
  const { openPort } = await import('../../open.js');
  return { port: await openPort(address, portOptions), device: () => undefined };
}

async function openPci(starting: Promise<DeviceThread>, portOptions: OpenPortOptions): Promise<Stand> {
  const [thread, { NetDevice }, { EmulatedPciFunction }, { PciModernTransport }, { Port }] = await Promise.all([
    starting,
    import('../../backend/net-device.js'),
    import('../../backend/emulated-pci-function.js'),
    import('../../transport/pci-modern.js'),
    import('../../net/port.js'),
  ]);
  const device = new NetDevice(thread, { port: echoPort(), queuePairs: portOptions.queues });
  try {
    await device.ready();
    const transport = PciModernTransport.open(new EmulatedPciFunction(device, { address: 'loopback:' }));
    const port = new Port(transport, { ...portOptions, resources: [device, thread] });
    return { port, device: () => device };
  } catch (error) {
    await device.close();
    throw error;
  }
}

async function openVhostUser(
  starting: Promise<DeviceThread>,
  portOptions: OpenPortOptions,
  options: LoopbackOptions,
  interrupt: Interrupt,
): Promise<Stand> {
  const [thread, { NetDevice }, { VhostUserServer }, { openPort }] = await Promise.all([
    starting,
    import('../../backend/net-device.js'),
    import('../../backend/vhost-user-server.js'),
    import('../../open.js'),
  ]);
  const folder = options.socketPath === undefined ? TemporaryFolder.create(interrupt) : undefined;
  const path = options.socketPath ?? join(folder!.path, 'vhost.sock');
  let device: NetDevice | undefined;
  let server: VhostUserServer | undefined;
  try {
    server = await VhostUserServer.listen(path, {
      maxConnections: 1,
      createDevice: () => {
        device = new NetDevice(thread, { port: echoPort(), queuePairs: options.queues });
        return device;
      },
    });
    const forget = interrupt.onForce(() => rmSync(path, { force: true }));
    const resources = [
      server,
      thread,
      ...(folder === undefined ? [] : [folder]),
      { [Symbol.asyncDispose]: async () => void forget() },
    ];
    const port = await openPort(`vhost-user:${path}`, { ...portOptions, resources });
    return { port, device: () => device };
  } catch (error) {
    await server?.close();
    await folder?.[Symbol.asyncDispose]();
    throw error;
  }
}

/** A folder for the socket, which goes with the run, however that ends. */
class TemporaryFolder implements AsyncDisposable {
  readonly path: string;
  readonly #forget: () => void;

  private constructor(path: string, interrupt: Interrupt) {
    this.path = path;
    this.#forget = interrupt.onForce(() => rmSync(path, { recursive: true, force: true }));
  }

  static create(interrupt: Interrupt): TemporaryFolder {
    const base = tmpdir();
    try {
      return new TemporaryFolder(mkdtempSync(join(base, 'virtio-pmd-')), interrupt);
    } catch (error) {
      throw new VirtioError(
        ErrorCode.IO,
        `there is no folder to be made in ${base} for the socket: ${(error as Error).message}`,
        {
          cause: error,
          advice: 'set TMPDIR, or use --socket-path',
        },
      );
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    rmSync(this.path, { recursive: true, force: true });
    this.#forget();
  }
}

function checkedAddress(device: string): string {
  const address = parsePciAddress(device);
  if (address !== undefined) return address;
  throw new VirtioError(
    ErrorCode.INVALID_ARGUMENT,
    `--device takes a PCI address such as 0000:00:04.0, not ${device}`,
    {
      value: device,
      advice: 'virtio-pmd devbind --status shows those that there are',
    },
  );
}

/** Feature numbers by their names, as the specification has them (virtio 1.2 §5.1.3, §6), with or without VIRTIO_NET_F_. */
function demandedFeatures(names: readonly string[]): Feature[] {
  return names.map((name) => {
    const short = name.toUpperCase().replace(/^VIRTIO_(NET_|RING_)?F_/, '');
    const feature = Object.hasOwn(Feature, short) ? Feature[short as keyof typeof Feature] : undefined;
    if (feature === undefined) {
      throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `--demand: there is no feature ${name}`, {
        value: name,
        advice: 'spell it as the specification does, such as MRG_RXBUF or EVENT_IDX',
      });
    }
    return feature;
  });
}
