/** Opens a port by its address: the one place that knows every transport. */

import { DeviceThread } from './backend/device-thread.js';
import { EmulatedPciFunction } from './backend/emulated-pci-function.js';
import { NetDevice } from './backend/net-device.js';
import type { BackendPortSpec } from './backend/ports/backend-port.js';
import { echoPort } from './backend/ports/built-in.js';
import { ErrorCode, VirtioError } from './errors.js';
import type { IdlePolicy } from './lcore/idle.js';
import { Port, type PortOptions } from './net/port.js';
import { parsePciAddress } from './pci/pci-address.js';
import { SysfsFunction } from './pci/sysfs-function.js';
import { VfioFunction } from './pci/vfio-function.js';
import { Feature } from './spec/features.js';
import type { PciFunction } from './spec/pci-function.js';
import type { Transport } from './spec/transport.js';
import { PciLegacyTransport } from './transport/pci-legacy.js';
import { PciModernTransport } from './transport/pci-modern.js';
import { VhostUserTransport } from './transport/vhost-user.js';

export interface OpenPortOptions extends PortOptions {
  /** vhost-user: listen at the path instead of connecting to it. */
  readonly server?: boolean | undefined;
  /** vhost-user: the port's MAC address, six bytes; random and local when not given. */
  readonly macAddress?: Uint8Array | undefined;
  /** How long opening may take. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /**
   * A PCI address: how it is reached. `vfio`, the default, has an IOMMU between the device and memory; `sysfs` has nothing,
   * needs root and hugepages, and is for machines without one.
   */
  readonly pciAccess?: 'vfio' | 'sysfs' | undefined;
  /** A PCI address: drive a transitional device by its legacy registers. Default: only where it has no others. */
  readonly legacy?: boolean | undefined;
  /** `loopback:`: what the embedded device does with packets. Default: echo. */
  readonly device?: LoopbackDeviceOptions | undefined;
}

export interface LoopbackDeviceOptions {
  /** A built-in one (`echoPort()`), or the URL of a module of one's own with its options. */
  readonly port?: BackendPortSpec | undefined;
  /** Processor of its poll thread. */
  readonly cpu?: number | undefined;
  readonly idle?: IdlePolicy | undefined;
  readonly mtu?: number | undefined;
}

/** Opens a port; `start` it next. Addresses: `loopback:` (an embedded device), `vhost-user:PATH`, `0000:00:04.0` (VFIO). */
export async function openPort(address: string, options: OpenPortOptions = {}): Promise<Port> {
  if (address === 'loopback:') return await openLoopback(options);
  if (address.startsWith('vhost-user:')) return await openVhostUser(address.slice('vhost-user:'.length), options);
  const pciAddress = parsePciAddress(address);
  if (pciAddress !== undefined) return await openPci(pciAddress, options);
  throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${address} is no address of a port`, {
    value: address,
    advice: 'use loopback:, vhost-user:PATH, or a PCI address such as 0000:00:04.0',
  });
}

async function openLoopback(options: OpenPortOptions): Promise<Port> {
  const { device: deviceOptions = {} } = options;
  const { cpu, idle, port = echoPort() } = deviceOptions;
  // The module may be one of the user's own.
  const thread = await DeviceThread.start({ cpu, idle, ports: [new URL(port.module)] });
  const device = new NetDevice(thread, {
    port,
    queuePairs: options.queues,
    mtu: deviceOptions.mtu,
  });
  try {
    await device.ready();
    const fn = new EmulatedPciFunction(device, { address: 'loopback:' });
    // The function lets go of the device some turns after it was closed.
    const released: AsyncDisposable = { [Symbol.asyncDispose]: () => fn.closed };
    return new Port(PciModernTransport.open(fn), { ...options, resources: [released, device, thread] });
  } catch (error) {
    await device.close();
    await thread.stop();
    throw error;
  }
}

function openPciTransport(fn: PciFunction, isLegacy: boolean): Transport {
  if (isLegacy) return PciLegacyTransport.open(fn);
  try {
    return PciModernTransport.open(fn);
  } catch (error) {
    // No virtio capability at all: it is from before there were any.
    if (error instanceof VirtioError && error.code === ErrorCode.UNSUPPORTED) return PciLegacyTransport.open(fn);
    throw error;
  }
}

/** A device of this machine. */
async function openPci(address: string, options: OpenPortOptions): Promise<Port> {
  const isVfio = options.pciAccess !== 'sysfs';
  const fn = isVfio ? VfioFunction.open(address) : SysfsFunction.open(address);
  let transport: Transport;
  try {
    transport = openPciTransport(fn, options.legacy ?? false);
  } catch (error) {
    fn.close();
    throw error;
  }
  try {
    // Without the feature the device goes past the IOMMU: addresses are physical then, and VFIO maps them one to one.
    const isBehindIommu = isVfio && (await transport.offered()).device.has(Feature.ACCESS_PLATFORM);
    const physical = options.physical ?? !isBehindIommu;
    return new Port(transport, { ...options, physical });
  } catch (error) {
    await transport.close();
    throw error;
  }
}

async function openVhostUser(path: string, options: OpenPortOptions): Promise<Port> {
  const { server, macAddress, reconnect, timeoutMs, signal, queues = 1 } = options;
  const transport = await VhostUserTransport.open(path, {
    queuePairs: queues,
    ...(server === undefined ? {} : { server }),
    ...(macAddress === undefined ? {} : { macAddress }),
    ...(reconnect === undefined ? {} : { reconnect }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(signal === undefined ? {} : { signal }),
  });
  try {
    return new Port(transport, options);
  } catch (error) {
    await transport.close();
    throw error;
  }
}
