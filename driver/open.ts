/** Opens a port by its address: the one place that knows every transport. Each is loaded when it is opened. */

import type { BackendPortSpec } from './backend/ports/backend-port.js';
import { ErrorCode, VirtioError } from './errors.js';
import type { IdlePolicy } from './lcore/idle.js';
import { inOrder } from './net/in-order.js';
import { Port } from './net/port.js';
import type { PortOptions } from './net/port-options.js';
import type { DeviceFacts } from './pci/device-facts.js';
import { parsePciAddress } from './pci/pci-address.js';
import { Feature } from './spec/features.js';
import { virtioNetConfig } from './spec/net-config.js';
import type { PciFunction } from './spec/pci-function.js';
import type { Transport } from './spec/transport.js';

/** How a PCI device of this machine is reached. */
export type PciAccess = 'vfio' | 'noiommu' | 'sysfs';

export interface OpenPortOptions extends PortOptions {
  /** vhost-user: listen at the path instead of connecting to it. */
  readonly server?: boolean | undefined;
  /** vhost-user and vhost-kernel: the port's MAC address, six bytes; random and local when not given. */
  readonly macAddress?: Uint8Array | undefined;
  /** vhost-user: the back-end stops and starts single rings, as the one of this package does (`VhostUserTransportOptions`). */
  readonly ringReset?: boolean | undefined;
  /** How long opening may take. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /**
   * A PCI address: how it is reached. `vfio`, the default, has an IOMMU between the device and memory. The others are for
   * machines without one, need root and hugepages, and let the device reach all memory: `noiommu` is VFIO with
   * `enable_unsafe_noiommu_mode`, `sysfs` needs nothing of the kernel and has no interrupts.
   */
  readonly pciAccess?: PciAccess | undefined;
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

/**
 * Opens a port; `start` it next. Addresses: `loopback:` (an embedded device), `vhost-user:PATH`, `vhost-kernel:IFNAME` (a tap
 * of this kernel, made where it is not there), `0000:00:04.0` (VFIO).
 */
export async function openPort(address: string, options: OpenPortOptions = {}): Promise<Port> {
  if (address === 'loopback:') return await openLoopback(options);
  if (address.startsWith('vhost-user:')) return await openVhostUser(address.slice('vhost-user:'.length), options);
  if (address.startsWith('vhost-kernel:')) return await openVhostKernel(address.slice('vhost-kernel:'.length), options);
  const pciAddress = parsePciAddress(address);
  if (pciAddress !== undefined) return await openPci(pciAddress, options);
  throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${address} is no address of a port`, {
    value: address,
    advice: 'use loopback:, vhost-user:PATH, vhost-kernel:IFNAME, or a PCI address such as 0000:00:04.0',
  });
}

async function openLoopback(options: OpenPortOptions): Promise<Port> {
  const [{ DeviceThread }, { EmulatedPciFunction }, { NetDevice }, { echoPort }, { PciModernTransport }] =
    await Promise.all([
      import('./backend/device-thread.js'),
      import('./backend/emulated-pci-function.js'),
      import('./backend/net-device.js'),
      import('./backend/ports/built-in.js'),
      import('./transport/pci-modern.js'),
    ]);
  const { device: deviceOptions = {} } = options;
  const { cpu, idle, port = echoPort() } = deviceOptions;
  // The module may be one of the user's own.
  const thread = await DeviceThread.start({ cpu, idle, ports: [new URL(port.module)] });
  // What stands, the last first.
  const opened: AsyncDisposable[] = [thread];
  try {
    const device = new NetDevice(thread, { port, queuePairs: options.queues, mtu: deviceOptions.mtu });
    opened.unshift(device);
    await device.ready();
    const fn = new EmulatedPciFunction(device, { address: 'loopback:' });
    // The function lets go of the device some turns after it was closed.
    opened.unshift({ [Symbol.asyncDispose]: () => fn.closed });
    const transport = openOver(fn, () => PciModernTransport.open(fn));
    const resources = [...opened];
    opened.unshift({ [Symbol.asyncDispose]: () => transport.close() });
    return new Port(transport, { ...options, resources });
  } catch (error) {
    await inOrder(opened.map((resource) => () => resource[Symbol.asyncDispose]())).catch(() => undefined);
    throw error;
  }
}

/** Opens what stands on a function; where that fails the function is closed. */
function openOver<T>(fn: PciFunction, open: () => T): T {
  try {
    return open();
  } catch (error) {
    fn.close();
    throw error;
  }
}

async function openPciTransport(fn: PciFunction, isLegacy: boolean): Promise<Transport> {
  if (isLegacy) return await openPciLegacy(fn);
  const { PciModernTransport } = await import('./transport/pci-modern.js');
  try {
    return PciModernTransport.open(fn);
  } catch (error) {
    // No virtio capability at all: it is from before there were any.
    if (error instanceof VirtioError && error.code === ErrorCode.UNSUPPORTED) return await openPciLegacy(fn);
    throw error;
  }
}

async function openPciLegacy(fn: PciFunction): Promise<Transport> {
  const { PciLegacyTransport } = await import('./transport/pci-legacy.js');
  return PciLegacyTransport.open(fn);
}

async function openPciFunction(address: string, pciAccess: PciAccess): Promise<PciFunction> {
  if (pciAccess === 'sysfs') {
    const { SysfsFunction } = await import('./pci/sysfs-function.js');
    return SysfsFunction.open(address);
  }
  const { VfioFunction } = await import('./pci/vfio-function.js');
  return VfioFunction.open(address, { noIommu: pciAccess === 'noiommu' });
}

/**
 * Asks a device of this machine what it has: takes it through VFIO, resets it, and gives it back.
 *
 * @throws VirtioError as `openPort` does: where this works, the device can be driven
 */
export async function probePciDevice(address: string, pciAccess: 'vfio' | 'noiommu'): Promise<DeviceFacts> {
  const fn = await openPciFunction(address, pciAccess);
  let transport: Transport;
  try {
    transport = await openPciTransport(fn, false);
  } catch (error) {
    fn.close();
    throw error;
  }
  try {
    await transport.reset();
    const { device: features } = await transport.offered();
    const { max_virtqueue_pairs: pairs } = virtioNetConfig.fields;
    const config = features.has(Feature.MQ)
      ? await transport.readConfig(pairs.offset, pairs.bytes)
      : Uint8Array.of(1, 0);
    return {
      features,
      queuePairs: Buffer.from(config).readUInt16LE(),
      ringSizes: [await transport.queueSizeMax(0), await transport.queueSizeMax(1)],
      interruptVectors: fn.interruptVectors,
    };
  } finally {
    await transport.close();
  }
}

/** A device of this machine. */
async function openPci(address: string, options: OpenPortOptions): Promise<Port> {
  const { pciAccess = 'vfio' } = options;
  const fn = await openPciFunction(address, pciAccess);
  let transport: Transport;
  try {
    transport = await openPciTransport(fn, options.legacy ?? false);
  } catch (error) {
    fn.close();
    throw error;
  }
  try {
    // Without the feature the device goes past the IOMMU: addresses are physical then, and VFIO maps them one to one.
    const isBehindIommu = pciAccess === 'vfio' && (await transport.offered()).device.has(Feature.ACCESS_PLATFORM);
    const physical = options.physical ?? !isBehindIommu;
    return new Port(transport, { ...options, physical });
  } catch (error) {
    await transport.close();
    throw error;
  }
}

async function openVhostUser(path: string, options: OpenPortOptions): Promise<Port> {
  const { server, macAddress, reconnect, ringReset, timeoutMs, signal, queues = 1 } = options;
  const { VhostUserTransport } = await import('./transport/vhost-user.js');
  const transport = await VhostUserTransport.open(path, {
    queuePairs: queues,
    ...(server === undefined ? {} : { server }),
    ...(macAddress === undefined ? {} : { macAddress }),
    ...(reconnect === undefined ? {} : { reconnect }),
    ...(ringReset === undefined ? {} : { ringReset }),
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

/** A tap of this kernel. One that is deleted does not come back: there is nothing to connect to again. */
async function openVhostKernel(name: string, options: OpenPortOptions): Promise<Port> {
  const { macAddress, queues = 1 } = options;
  const { VhostKernelTransport } = await import('./transport/vhost-kernel.js');
  const transport = VhostKernelTransport.open(name, {
    queuePairs: queues,
    ...(macAddress === undefined ? {} : { macAddress }),
  });
  try {
    return new Port(transport, { ...options, reconnect: false });
  } catch (error) {
    await transport.close();
    throw error;
  }
}
