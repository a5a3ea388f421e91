/**
 * A port over an emulated function that misbehaves, and what must hold after every such case: the port closes, every
 * buffer is back once, what was never given to the device is as it was, no descriptor and no mapping stays behind.
 */

import { readdirSync, readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import type { EmulatedInterface } from '../../driver/backend/emulated-config-space.js';
import type { EmulatedFaults } from '../../driver/backend/emulated-faults.js';
import { EmulatedPciFunction } from '../../driver/backend/emulated-pci-function.js';
import { VirtioError } from '../../driver/errors.js';
import { DmaMemory } from '../../driver/memory/dma-memory.js';
import type { PacketPool } from '../../driver/memory/packet-pool.js';
import { createPool } from '../../driver/net/create-pool.js';
import { Port } from '../../driver/net/port.js';
import type { PortOptions } from '../../driver/net/port-options.js';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { PciCommand, pciHeader, virtioPciCommonCfg, virtioPciLegacy } from '../../driver/spec/pci.js';
import { PciLegacyTransport } from '../../driver/transport/pci-legacy.js';
import { PciModernTransport } from '../../driver/transport/pci-modern.js';
import { fakeOffered } from './fake-device-model.js';
import { LyingDevice } from './lying-device.js';
import { RegisterLog } from './register-log.js';

/** By which registers the device is driven. */
export type Interface = Exclude<EmulatedInterface, 'transitional'>;
export const interfaces: readonly Interface[] = ['modern', 'legacy'];

/** What a legacy device offers in these tests. */
export const legacyOffered = FeatureSet.of(
  Feature.MAC,
  Feature.STATUS,
  Feature.MRG_RXBUF,
  Feature.ANY_LAYOUT,
  Feature.CTRL_VQ,
  Feature.MQ,
);

export interface AbuseOptions {
  readonly kind?: Interface;
  readonly faults?: EmulatedFaults;
  /** What the device offers, beside the usual. */
  readonly offers?: readonly Feature[];
  /** What it offers of the usual not. */
  readonly withholds?: readonly Feature[];
  readonly ringSize?: number;
  readonly poolSize?: number;
  readonly bufferBytes?: number;
  readonly headroom?: number;
  readonly port?: PortOptions;
  readonly vectors?: number;
  readonly resetTimeoutMs?: number;
  /** The driver may break rules: the device shows it something else than it looks for. */
  readonly breaches?: boolean;
  /** Buffers that stay in quarantine at the end, because the device never let go of them. */
  readonly quarantined?: number;
}

export interface Bench {
  readonly fn: EmulatedPciFunction;
  readonly device: LyingDevice;
  readonly port: Port;
  readonly pool: PacketPool;
  readonly log: RegisterLog;
  /** Errors of `fault`, and what `link` said, in order. */
  readonly faults: VirtioError[];
  readonly links: boolean[];
  /** Buffers in the pool that nobody holds, before the start. */
  readonly available: number;
  /** Starts the port, opens both queues of the first pair and waits until the device has its rings. */
  start(): Promise<void>;
}

const CANARY = 0xc5;

/** Open descriptors, and mappings of memory of ours. */
const resources = (): string =>
  `${readdirSync('/proc/self/fd').length} descriptors, ${readFileSync('/proc/self/maps', 'utf8').split('memfd:').length - 1} mappings`;

/** Every second buffer of a pool: never given to anybody, and full of one byte. */
class Canaries {
  readonly #pool: PacketPool;
  readonly #handles: Uint32Array;
  readonly #bystander: DmaMemory;

  constructor(pool: PacketPool) {
    this.#pool = pool;
    const all = new Uint32Array(pool.size);
    for (let index = 0; index < all.length; index++) pool.allocate(all, index, 1);
    pool.free(
      all.filter((handle) => handle % 2 === 0),
      0,
      Math.ceil(pool.size / 2),
    );
    pool.flush();
    this.#handles = all.filter((handle) => handle % 2 === 1);
    for (const handle of this.#handles) this.#bytes(handle).fill(CANARY);
    this.#bystander = DmaMemory.allocate({ bytes: 64 * 1024, pages: '4K' });
    new Uint8Array(this.#bystander.buffer).fill(CANARY);
  }

  check(): void {
    for (const handle of this.#handles) {
      assert.ok(
        this.#bytes(handle).every((byte) => byte === CANARY),
        `buffer ${handle}, which nobody was given, was written to`,
      );
    }
    assert.ok(
      new Uint8Array(this.#bystander.buffer).every((byte) => byte === CANARY),
      'memory beside was written to',
    );
  }

  /** Frees them all; the pool must be whole then, each buffer once, but for some that nobody may touch. */
  free(quarantined: number): void {
    const pool = this.#pool;
    pool.free(this.#handles, 0, this.#handles.length);
    pool.flush();
    assert.is(pool.available, pool.size - quarantined, 'every buffer is back');
    const all = new Uint32Array(pool.available);
    for (let index = 0; index < all.length; index++) assert.ok(pool.allocate(all, index, 1));
    assert.is(new Set(all).size, all.length, 'each once');
  }

  close(): void {
    this.#bystander.close();
  }

  #bytes(handle: number): Uint8Array {
    const { bytes, offset, bufferBytes } = this.#pool;
    return bytes.subarray(offset + handle * bufferBytes, offset + (handle + 1) * bufferBytes);
  }
}

function merged(log: RegisterLog, faults: EmulatedFaults): EmulatedFaults {
  const recorder = log.faults;
  return {
    ...faults,
    onRead: (region, offset, value, bytes) => {
      const answer = faults.onRead?.(region, offset, value, bytes) ?? value;
      return recorder.onRead!(region, offset, answer, bytes);
    },
    onWrite: (region, offset, value, bytes) => {
      recorder.onWrite!(region, offset, value, bytes);
      return faults.onWrite === undefined ? value : faults.onWrite(region, offset, value, bytes);
    },
    onBar: (index, bar) => {
      const shown = recorder.onBar!(index, bar);
      return faults.onBar === undefined ? shown : faults.onBar(index, shown);
    },
  };
}

function offeredBy(options: AbuseOptions): FeatureSet {
  const usual = options.kind === 'legacy' ? legacyOffered : fakeOffered;
  const withheld = FeatureSet.of(...(options.withholds ?? []));
  return usual.with(...(options.offers ?? [])).difference(withheld);
}

/** Where the port runs still, what stands between the parts of its rings is as it was. */
function checkGaps(device: LyingDevice): void {
  for (const gap of device.gaps) {
    assert.ok(
      gap.every((byte) => byte === CANARY),
      'a write between the parts of a ring',
    );
  }
}

/** Runs a body against a device that misbehaves; then checks what must hold whatever happened. */
export async function againstDevice(options: AbuseOptions, body: (bench: Bench) => Promise<void>): Promise<void> {
  const before = resources();
  const { kind = 'modern', ringSize = 64, resetTimeoutMs = 60 } = options;
  const device = new LyingDevice({ offered: offeredBy(options), maxRingSize: ringSize });
  const log = new RegisterLog();
  const fn = new EmulatedPciFunction(device, {
    kind,
    faults: merged(log, options.faults ?? {}),
    ...(options.vectors === undefined ? {} : { vectors: options.vectors }),
  });
  const pool = createPool({
    size: options.poolSize ?? 12 * ringSize,
    bufferBytes: options.bufferBytes,
    headroom: options.headroom,
    pages: '4K',
  });
  const canaries = new Canaries(pool);
  const transport =
    kind === 'legacy'
      ? PciLegacyTransport.open(fn, { resetTimeoutMs })
      : PciModernTransport.open(fn, { resetTimeoutMs });
  const port = new Port(transport, { ringSize, pages: '4K', pool, ...options.port });
  const faults: VirtioError[] = [];
  const links: boolean[] = [];
  port.on('fault', (error) => faults.push(error));
  port.on('link', (up) => links.push(up));
  let hasGaps = false;
  const bench: Bench = {
    fn,
    device,
    port,
    pool,
    log,
    faults,
    links,
    available: pool.available,
    start: async () => {
      await port.start();
      port.rxQueue(0);
      port.txQueue(0);
      await fn.idle;
      for (const gap of device.gaps) gap.fill(CANARY);
      hasGaps = true;
    },
  };
  try {
    await body(bench);
    if (hasGaps && port.state === 'started') checkGaps(device);
    if (options.faults === undefined && options.breaches !== true) assert.equal(fn.violations, []);
  } finally {
    await port.close();
    await port.close();
    await fn.closed;
    await device.close();
  }
  canaries.check();
  canaries.free(options.quarantined ?? 0);
  assert.is(
    new DataView(fn.configSpace.buffer).getUint16(pciHeader.fields.command.offset, true) & PciCommand.MASTER,
    0,
    'DMA is off',
  );
  canaries.close();
  pool.memory.close();
  assert.is(resources(), before, 'what was opened is closed');
}

/** Asserts that a call is refused as an error must be: with a code, what is wrong, the rule, and what to do. */
export async function refusal(promise: Promise<unknown>, code: string, message?: RegExp): Promise<VirtioError> {
  let error: unknown;
  try {
    await promise;
  } catch (thrown) {
    error = thrown;
  }
  if (error === undefined) return assert.unreachable(`was not refused with ${code}`) as never;
  assert.instance(error, VirtioError);
  const virtioError = error as VirtioError;
  assert.is(virtioError.code, code, virtioError.toLine());
  if (message !== undefined) assert.match(virtioError.message, message);
  isComplete(virtioError);
  return virtioError;
}

/** Asserts that an error says all that one says. */
export function isComplete(error: VirtioError): void {
  const line = error.toLine();
  assert.ok(error.value !== undefined, `${line}: without the value`);
  assert.ok(error.requirement !== undefined, `${line}: without the requirement`);
  assert.ok(error.advice !== undefined, `${line}: without advice`);
}

type CommonName = keyof typeof virtioPciCommonCfg.fields;
type LegacyName = keyof typeof virtioPciLegacy.fields;

/** A fault that answers for one register, by its modern and its legacy name. */
export function answering(
  modern: CommonName | undefined,
  legacy: LegacyName | undefined,
  answer: (value: number) => number,
): NonNullable<EmulatedFaults['onRead']> {
  return (region, offset, value) => {
    const isModern = region === 'common' && modern !== undefined && offset === virtioPciCommonCfg.fields[modern].offset;
    const isLegacy = region === 'legacy' && legacy !== undefined && offset === virtioPciLegacy.fields[legacy].offset;
    return isModern || isLegacy ? answer(value) : value;
  };
}

/** Puts `count` packets of 60 bytes on the wire; returns how many were taken. */
export function sendPackets(port: Port, count: number): number {
  const burst = port.burst(Math.max(count, 1));
  assert.is(burst.allocate(count), count);
  for (let index = 0; index < count; index++) burst.bytes(index).setLength(60);
  const sent = port.txQueue(0).send(burst);
  burst.free();
  return sent;
}
