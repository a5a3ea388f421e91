/** One virtqueue of the emulated device, as the registers show it. */

import { NO_VECTOR } from '../spec/pci.js';
import { MAX_QUEUE_SIZE, ringParts } from '../spec/ring.js';
import { isPowerOfTwo } from '../units.js';

export type AddressRegister = 'queue_desc' | 'queue_driver' | 'queue_device';

/** Something a driver did that the specification forbids. */
export interface Breach {
  readonly clause: string;
  readonly what: string;
}

const parts = { queue_desc: 'desc', queue_driver: 'driver', queue_device: 'device' } as const;
const addressRegisters = Object.keys(parts) as AddressRegister[];

export class EmulatedQueue {
  readonly index: number;
  readonly sizeMax: number;
  size: number;
  vector = NO_VECTOR;
  isEnabled = false;
  isResetting = false;
  readonly #addresses: Record<AddressRegister, bigint> = { queue_desc: 0n, queue_driver: 0n, queue_device: 0n };
  readonly #written = new Set<AddressRegister>();

  constructor(index: number, sizeMax: number) {
    this.index = index;
    this.sizeMax = sizeMax;
    this.size = sizeMax;
  }

  /** Back to the state after a reset (virtio 1.2 §4.1.4.3.1, §2.6.1.1.1). */
  clear(): void {
    this.size = this.sizeMax;
    this.vector = NO_VECTOR;
    this.isEnabled = false;
    this.isResetting = false;
    for (const register of addressRegisters) this.#addresses[register] = 0n;
    this.#written.clear();
  }

  address(register: AddressRegister): bigint {
    return this.#addresses[register];
  }

  setAddress(register: AddressRegister, value: bigint): void {
    this.#addresses[register] = value;
    this.#written.add(register);
  }

  /** What is wrong with a size that a driver writes. */
  sizeBreaches(size: number, packed: boolean): Breach[] {
    const clause = 'virtio 1.2 §4.1.4.3.2';
    const breaches: Breach[] = [];
    if (size === 0) breaches.push({ clause, what: `queue ${this.index} was given size 0` });
    else if (!packed && !isPowerOfTwo(size)) {
      breaches.push({ clause, what: `split queue ${this.index} was given size ${size}, not a power of two` });
    }
    if (size > this.sizeMax || size > MAX_QUEUE_SIZE) {
      breaches.push({ clause, what: `queue ${this.index} was given size ${size}, the largest is ${this.sizeMax}` });
    }
    return breaches;
  }

  /** What is wrong with enabling the queue as it is. */
  enableBreaches(packed: boolean): Breach[] {
    const breaches: Breach[] = [];
    for (const register of addressRegisters) {
      const part = ringParts(this.size, packed)[parts[register]];
      if (!this.#written.has(register)) {
        breaches.push({
          clause: 'virtio 1.2 §4.1.4.3.2',
          what: `queue ${this.index} was enabled before ${register} was written`,
        });
      } else if (this.#addresses[register] % BigInt(part.alignment) !== 0n) {
        breaches.push({
          clause: packed ? 'virtio 1.2 §2.8' : 'virtio 1.2 §2.7',
          what: `${register} of queue ${this.index} is not aligned to ${part.alignment}`,
        });
      }
    }
    return breaches;
  }

  /** Whether some byte of the ring is in this range. */
  overlaps(address: bigint, bytes: number, packed: boolean): boolean {
    return addressRegisters.some((register) => {
      const start = this.#addresses[register];
      const end = start + BigInt(ringParts(this.size, packed)[parts[register]].bytes);
      return start < address + BigInt(bytes) && address < end;
    });
  }
}
