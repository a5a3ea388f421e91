/** A port and the back-end's device on one thread, with recorders between them, over each way there is. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { EmulatedPciFunction } from '../../../driver/backend/emulated-pci-function.js';
import { VhostUserServer } from '../../../driver/backend/vhost-user-server.js';
import { PacketField } from '../../../driver/memory/packet-fields.js';
import { Port } from '../../../driver/net/port.js';
import type { PortOptions } from '../../../driver/net/port-options.js';
import { PciLegacyTransport } from '../../../driver/transport/pci-legacy.js';
import { PciModernTransport } from '../../../driver/transport/pci-modern.js';
import { VhostUserTransport } from '../../../driver/transport/vhost-user.js';
import { RegisterLog } from '../register-log.js';
import { RecordedDevice, type RecordedDeviceOptions } from './recorded-device.js';
import { RegisterRules } from './register-rules.js';

/** How the driver reaches the device. */
export type Via = 'modern' | 'legacy' | 'vhost-user';

/** What stands under the port, and how to take it down. */
type Closing = () => Promise<unknown>;

export class RecordedPort implements AsyncDisposable {
  readonly port: Port;
  readonly device: RecordedDevice;
  /** Register accesses of the driver; none over a socket. */
  readonly log: RegisterLog;
  #fn: EmulatedPciFunction | undefined;
  readonly #closings: Closing[] = [];

  private constructor(port: Port, device: RecordedDevice, log = new RegisterLog()) {
    this.port = port;
    this.device = device;
    this.log = log;
  }

  /** Opens a port that is not started. */
  static async open(via: Via, device: RecordedDeviceOptions, options: PortOptions = {}): Promise<RecordedPort> {
    const made = new RecordedDevice(device);
    const all: PortOptions = { ringSize: 64, pages: '4K', ...options };
    if (via === 'vhost-user') return await RecordedPort.#overSocket(made, all);
    const log = new RegisterLog();
    const fn = new EmulatedPciFunction(made, { kind: via, faults: log.faults });
    const transport = via === 'legacy' ? PciLegacyTransport.open(fn) : PciModernTransport.open(fn);
    const recorded = new RecordedPort(new Port(transport, all), made, log);
    recorded.#fn = fn;
    recorded.#closings.push(
      () => fn.closed,
      () => made.close(),
    );
    return recorded;
  }

  static async #overSocket(device: RecordedDevice, options: PortOptions): Promise<RecordedPort> {
    const folder = await mkdtemp(join(tmpdir(), 'recorded-'));
    const path = join(folder, 'socket');
    const server = await VhostUserServer.listen(path, { createDevice: () => device });
    const transport = await VhostUserTransport.open(path, { queuePairs: options.queues ?? 1, timeoutMs: 20_000 });
    const recorded = new RecordedPort(new Port(transport, options), device);
    recorded.#closings.push(
      () => server.close(),
      () => rm(folder, { recursive: true }),
    );
    return recorded;
  }

  /** Starts the port; the device moves meanwhile, for there may be commands. */
  async start(): Promise<void> {
    await this.while(this.port.start());
  }

  /** Lets the device move until a promise is settled. */
  async while<T>(promise: Promise<T>): Promise<T> {
    const timer = setInterval(() => this.device.poll(), 1);
    try {
      return await promise;
    } finally {
      clearInterval(timer);
    }
  }

  /** Sends a packet of these segments on a pair; false where it does not fit. */
  send(pair: number, segments: readonly Uint8Array[]): boolean {
    const { port } = this;
    const { fields } = port.pool;
    const burst = port.burst(Math.max(1, segments.length));
    if (burst.allocate(segments.length) < segments.length) {
      burst.free();
      return false;
    }
    let bytes = 0;
    for (const [index, segment] of segments.entries()) {
      burst.bytes(index).fill(segment);
      bytes += segment.length;
      const next = burst.handles[index + 1];
      const isLast = index + 1 === segments.length;
      fields[burst.handles[index]! * PacketField.WORDS + PacketField.NEXT] = isLast ? 0 : next! + 1;
    }
    fields[burst.handles[0]! * PacketField.WORDS + PacketField.PACKET_LENGTH] = bytes;
    burst.count = 1;
    const isSent = port.txQueue(pair).send(burst) === 1;
    burst.free();
    return isSent;
  }

  /** Takes what has come on a pair. */
  receive(pair: number): Uint8Array[] {
    const burst = this.port.burst(32);
    this.port.rxQueue(pair).receive(burst);
    const packets = Array.from({ length: burst.count }, (_, index) => burst.bytes(index).copyPacket());
    burst.free();
    return packets;
  }

  /** Nobody has broken a rule so far. */
  check(): void {
    this.device.poll();
    assert.equal(this.device.violations.lines, [], 'rules of rings and packets');
    assert.equal(this.#fn?.violations ?? [], [], 'what the emulated function objects to');
    assert.equal(this.device.events, []);
    if (this.port.transportKind === 'pci-modern') {
      assert.equal(RegisterRules.judge(this.log).violations.lines, [], 'rules of registers');
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.port.close();
    for (const close of this.#closings) await close();
  }
}
