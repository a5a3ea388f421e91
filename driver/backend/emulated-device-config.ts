/** Device configuration of the emulated function, over the live one of the device model (virtio 1.2 §2.5, §4.1.4.3.1). */

import type { FeatureSet } from '../spec/features.js';
import { netConfigFeatures, virtioNetConfig } from '../spec/net-config.js';

/** The configuration that is read: it may change at any time. */
interface ConfigSource {
  readonly config: Uint8Array;
  readonly offered: FeatureSet;
}

export class EmulatedDeviceConfig {
  readonly #source: ConfigSource;
  readonly #breach: (clause: string, what: string) => void;
  #seen: Uint8Array;
  #generation = 0;

  constructor(source: ConfigSource, breach: (clause: string, what: string) => void) {
    this.#source = source;
    this.#breach = breach;
    this.#seen = source.config.slice();
  }

  /** Another number whenever the configuration is not what it was when this, or the configuration, was last read. */
  get generation(): number {
    const { config } = this.#source;
    if (config.length !== this.#seen.length || config.some((byte, index) => byte !== this.#seen[index])) {
      this.#seen = config.slice();
      this.#generation = (this.#generation + 1) & 0xff;
    }
    return this.#generation;
  }

  /** Reads a field: by its own width, or byte by byte where that is the rule, and only where its feature is offered. */
  read(at: number, bytes: number, byBytes = false): number {
    void this.generation;
    const field = virtioNetConfig.order.find((each) => at >= each.offset && at < each.offset + each.bytes);
    if (field !== undefined) {
      const isArray = byBytes || field.type.name === 'bytes';
      if (bytes !== (isArray ? 1 : field.bytes) || (!isArray && at !== field.offset)) {
        this.#breach('virtio 1.2 §4.1.3.1', `${field.name} was read by ${8 * bytes} bits at offset ${at}`);
      }
      const features = netConfigFeatures[field.name as keyof typeof netConfigFeatures];
      if (!features.some((feature) => this.#source.offered.has(feature))) {
        this.#breach('virtio 1.2 §2.5.1', `${field.name} was read and its feature is not offered`);
      }
    }
    const read = Array.from({ length: bytes }, (_, index) => this.#source.config[at + index] ?? 0);
    return read.reduceRight((value, byte) => value * 256 + byte, 0);
  }
}
