/** A device model behind an emulated function whose rings the test works by hand: honest, or as it likes. */

import type { GuestRegion, RingSetup } from '../../driver/backend/device-model.js';
import { SplitRingViews } from '../../driver/ring/split-views.js';
import { native } from '../../native/index.js';
import { FakeDeviceModel } from './fake-device-model.js';
import { HandRing } from './hand-device.js';

interface MappedRegion {
  readonly start: bigint;
  readonly buffer: ArrayBuffer;
}

/** The bytes that the driver has let the device reach. */
export class ReachableMemory {
  readonly #regions: MappedRegion[] = [];

  map(regions: readonly GuestRegion[]): void {
    this.close();
    for (const { guestAddress, fd, fileOffset, bytes } of regions) {
      this.#regions.push({ start: guestAddress, buffer: native.mapShared(fd, fileOffset, bytes, 0) });
    }
  }

  /** @throws Error where an IOMMU would stop the device */
  find(address: bigint, bytes: number): { readonly buffer: ArrayBuffer; readonly offset: number } {
    for (const { start, buffer } of this.#regions) {
      const offset = address - start;
      if (offset >= 0n && offset + BigInt(bytes) <= BigInt(buffer.byteLength))
        return { buffer, offset: Number(offset) };
    }
    throw new Error(`IOMMU fault: ${bytes} bytes at 0x${address.toString(16)}`);
  }

  /** Every byte the device can reach. */
  get all(): readonly Uint8Array[] {
    return this.#regions.map(({ buffer }) => new Uint8Array(buffer));
  }

  close(): void {
    for (const { buffer } of this.#regions.splice(0)) native.unmapShared(buffer);
  }
}

/** A ring of the driver, as the device sees it through the addresses it was given. */
export class ReachedRing extends HandRing {
  readonly #memory: ReachableMemory;

  constructor(memory: ReachableMemory, { size, desc, avail, used }: RingSetup) {
    const descriptors = memory.find(desc, 16 * size);
    const views = new SplitRingViews(
      size,
      descriptors,
      memory.find(avail, 6 + 2 * size),
      memory.find(used, 6 + 8 * size),
    );
    super({ buffer: descriptors.buffer, iovas: { at: () => desc - BigInt(descriptors.offset) } }, views);
    this.#memory = memory;
  }

  override buffer(id: number): Uint8Array {
    const { desc } = this.views;
    const address = BigInt(desc[4 * id]!) | (BigInt(desc[4 * id + 1]!) << 32n);
    const bytes = desc[4 * id + 2]!;
    const { buffer, offset } = this.#memory.find(address, bytes);
    return new Uint8Array(buffer, offset, bytes);
  }
}

export class LyingDevice extends FakeDeviceModel {
  readonly memory = new ReachableMemory();
  /** It keeps what it has, whatever it is told: a device that goes on with DMA. */
  isStuck = false;
  readonly #rings = new Map<number, ReachedRing>();

  /** A ring that the driver has started: receiveq 0, transmitq 1, and so on. */
  ring(index: number): ReachedRing {
    let ring = this.#rings.get(index);
    if (ring === undefined) {
      const setup = this.setups.get(index);
      if (setup === undefined) throw new Error(`ring ${index} was not started`);
      ring = new ReachedRing(this.memory, setup);
      this.#rings.set(index, ring);
    }
    return ring;
  }

  /** What lies between the parts of the rings that run and belongs to none of them: nobody writes there. */
  get gaps(): readonly Uint8Array[] {
    return [...this.setups].map(([, { size, avail, used }]) => {
      const end = avail + BigInt(6 + 2 * size);
      const bytes = Number(used - end);
      const { buffer, offset } = this.memory.find(end, bytes);
      return new Uint8Array(buffer, offset, bytes);
    });
  }

  override async setMemory(regions: readonly GuestRegion[]): Promise<void> {
    await super.setMemory(regions);
    if (this.isStuck) return;
    this.#rings.clear();
    this.memory.map(regions);
  }

  override async reset(): Promise<void> {
    await super.reset();
    if (this.isStuck) return;
    this.#rings.clear();
    this.memory.close();
  }

  override async close(): Promise<void> {
    await super.close();
    this.memory.close();
  }
}
