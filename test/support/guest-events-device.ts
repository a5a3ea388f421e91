/** An embedded device whose link, announcements, breaks and removal a test has in its hand. */

import { DeviceThread } from '../../driver/backend/device-thread.js';
import type { EmulatedFaults } from '../../driver/backend/emulated-faults.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { NetDevice } from '../../driver/backend/net-device.js';
import { echoPort } from '../../driver/backend/ports/built-in.js';
import { Port } from '../../driver/net/port.js';
import type { PortOptions } from '../../driver/net/port-options.js';
import { NetStatus, virtioNetConfig } from '../../driver/spec/net-config.js';
import type { PciFunction } from '../../driver/spec/pci-function.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { native } from '../../native/index.js';
import { PATIENCE_MS } from './until.js';

export interface EventBenchOptions extends PortOptions {
  readonly vectors?: number;
  readonly faults?: EmulatedFaults;
}

/** What a port told, in order. */
export class PortLog {
  readonly events: string[] = [];
  readonly #wakers = new Set<() => void>();

  constructor(port: Port) {
    const note = (event: string): void => {
      this.events.push(event);
      for (const wake of this.#wakers) wake();
    };
    port.on('link', (up) => note(`link ${up ? 'up' : 'down'}`));
    port.on('announce', () => note('announce'));
    port.on('needs-reset', () => note('needs-reset'));
    port.on('recovered', () => note('recovered'));
    port.on('fault', (error) => note(`fault ${error.code}`));
  }

  count(event: string): number {
    return this.events.filter((each) => each === event).length;
  }

  /** Waits until an event has come `times` times. */
  until(event: string, times = 1): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (error?: Error): void => {
        clearTimeout(timer);
        this.#wakers.delete(look);
        if (error === undefined) resolve();
        else reject(error);
      };
      const what = `${event} ${times} times`;
      const timer = setTimeout(() => done(new Error(`no ${what} in: ${this.events.join(', ')}`)), PATIENCE_MS);
      const look = (): void => {
        if (this.count(event) >= times) done();
      };
      this.#wakers.add(look);
      look();
    });
  }
}

export class EventBench {
  readonly port: Port;
  readonly log: PortLog;
  readonly device: NetDevice;
  readonly fn: EmulatedPciFunction;
  readonly transport: PciModernTransport;
  /** Signalled when the machine takes the device away. */
  readonly removalFd: number;

  private constructor(
    thread: DeviceThread,
    device: NetDevice,
    fn: EmulatedPciFunction,
    removalFd: number,
    options: PortOptions,
  ) {
    this.device = device;
    this.fn = fn;
    this.removalFd = removalFd;
    this.transport = PciModernTransport.open(withRemoval(fn, removalFd));
    const released: AsyncDisposable = { [Symbol.asyncDispose]: () => fn.closed };
    const resources = [released, device, thread];
    this.port = new Port(this.transport, { ringSize: 64, pages: '4K', resources, ...options });
    this.log = new PortLog(this.port);
  }

  static async open({ vectors, faults, ...options }: EventBenchOptions = {}): Promise<EventBench> {
    const thread = await DeviceThread.start({ pages: '4K' });
    const device = new NetDevice(thread, { port: echoPort(), queuePairs: options.queues });
    await device.ready();
    const fn = new EmulatedPciFunction(device, {
      ...(vectors === undefined ? {} : { vectors }),
      ...(faults === undefined ? {} : { faults }),
    });
    return new EventBench(thread, device, fn, native.createEventFd(0), options);
  }

  setLink(up: boolean): void {
    this.setLinkQuietly(up);
    this.device.onEvent?.({ type: 'config-changed' });
  }

  /** Without an interrupt. */
  setLinkQuietly(up: boolean): void {
    const { offset } = virtioNetConfig.fields.status;
    if (up) Atomics.or(this.device.config, offset, NetStatus.LINK_UP);
    else Atomics.and(this.device.config, offset, ~NetStatus.LINK_UP & 0xff);
  }

  get wantsAnnouncement(): boolean {
    return (this.device.config[virtioNetConfig.fields.status.offset]! & NetStatus.ANNOUNCE) !== 0;
  }

  /** The device breaks, and asks for a reset. */
  break(): void {
    this.device.onEvent?.({ type: 'memory-fault' });
  }

  /** The machine asks for the device back. */
  unplug(): void {
    native.signalEventFd(this.removalFd);
  }

  /** Sends packets; returns how many were taken. */
  send(count: number): number {
    const burst = this.port.burst(64);
    burst.allocate(count);
    for (let index = 0; index < burst.count; index++) burst.bytes(index).setLength(60);
    const sent = this.port.txQueue(0).send(burst);
    burst.free();
    return sent;
  }

  /** Receives what is there, and frees it. */
  receive(): number {
    const burst = this.port.burst(64);
    const received = this.port.rxQueue(0).receive(burst);
    burst.free();
    return received;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.port.close().catch(() => undefined);
    native.closeFd(this.removalFd);
  }
}

/** The function, of a machine that can take it away. */
function withRemoval(fn: EmulatedPciFunction, removalFd: number): PciFunction {
  return new Proxy<PciFunction>(fn, {
    get: (target, name) => {
      if (name === 'removalFd') return removalFd;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** Runs a test on a started bench; everything is closed after it. */
export const onEventBench =
  (options: EventBenchOptions, body: (bench: EventBench) => Promise<void>): (() => Promise<void>) =>
  async () => {
    await using bench = await EventBench.open(options);
    await bench.port.start();
    // What the port has asked for holds.
    await bench.fn.idle;
    await body(bench);
  };
