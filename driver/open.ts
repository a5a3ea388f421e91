/** Opens a port by its address: the one place that knows every transport. */

import { DeviceThread } from './backend/device-thread.js';
import { EmulatedPciFunction } from './backend/emulated-pci-function.js';
import { NetDevice } from './backend/net-device.js';
import type { BackendPortSpec } from './backend/ports/backend-port.js';
import { echoPort } from './backend/ports/built-in.js';
import { ErrorCode, VirtioError } from './errors.js';
import type { IdlePolicy } from './lcore/idle.js';
import { Port, type PortOptions } from './net/port.js';
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
  /** `loopback:`: what the embedded device does with packets. Default: echo. */
  readonly device?: LoopbackDeviceOptions | undefined;
}

export interface LoopbackDeviceOptions {
  readonly port?: BackendPortSpec | undefined;
  /** Processor of its poll thread. */
  readonly cpu?: number | undefined;
  readonly idle?: IdlePolicy | undefined;
  readonly mtu?: number | undefined;
}

/** Opens a port; `start` it next. Addresses: `loopback:` (an embedded device) and `vhost-user:PATH`. */
export async function openPort(address: string, options: OpenPortOptions = {}): Promise<Port> {
  if (address === 'loopback:') return await openLoopback(options);
  if (address.startsWith('vhost-user:')) return await openVhostUser(address.slice('vhost-user:'.length), options);
  if (/^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i.test(address)) {
    throw new VirtioError(
      ErrorCode.UNSUPPORTED,
      `${address}: PCI devices of a guest are not driven by this version yet`,
      {
        value: address,
        advice: 'use vhost-user:PATH or loopback:',
      },
    );
  }
  throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${address} is no address of a port`, {
    value: address,
    advice: 'use loopback: or vhost-user:PATH',
  });
}

async function openLoopback(options: OpenPortOptions): Promise<Port> {
  const { device: deviceOptions = {} } = options;
  const thread = await DeviceThread.start({ cpu: deviceOptions.cpu, idle: deviceOptions.idle });
  const device = new NetDevice(thread, {
    port: deviceOptions.port ?? echoPort(),
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
