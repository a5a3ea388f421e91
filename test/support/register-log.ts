/** A log of every access of a driver to an emulated function, with register names. */

import type { EmulatedFaults, EmulatedRegion } from '../../driver/backend/emulated-faults.js';
import type { Layout } from '../../driver/spec/layout.js';
import { virtioNetConfig } from '../../driver/spec/net-config.js';
import { virtioPciCommonCfg } from '../../driver/spec/pci.js';
import type { Bar } from '../../driver/spec/pci-function.js';

export interface RegisterAccess {
  readonly kind: 'read' | 'write';
  readonly region: EmulatedRegion;
  /** The field at the place, `queue_desc+4` for an upper half; the offset where there is none. */
  readonly register: string;
  readonly offset: number;
  readonly value: number;
  readonly bytes: number;
}

/** What a doorbell was asked for. */
export interface DoorbellRequest {
  readonly bar: number;
  readonly offset: number;
  readonly width: number;
  readonly value: number;
  /** Accesses that came before. */
  readonly after: number;
}

const layouts: Partial<Record<EmulatedRegion, Pick<Layout, 'order'>>> = {
  common: virtioPciCommonCfg,
  device: virtioNetConfig,
};

function registerName(region: EmulatedRegion, offset: number): string {
  const field = layouts[region]?.order.find((each) => offset >= each.offset && offset < each.offset + each.bytes);
  if (field === undefined) return String(offset);
  return offset === field.offset ? field.name : `${field.name}+${offset - field.offset}`;
}

export class RegisterLog {
  readonly accesses: RegisterAccess[] = [];
  readonly doorbells: DoorbellRequest[] = [];

  /** Hooks that record; accesses of configuration space are left out. */
  get faults(): EmulatedFaults {
    const bars = new Map<number, Bar>();
    return {
      onRead: (region, offset, value, bytes) => {
        this.#add('read', region, offset, value, bytes);
        return value;
      },
      onWrite: (region, offset, value, bytes) => {
        this.#add('write', region, offset, value, bytes);
        return value;
      },
      onBar: (index, bar) => {
        if (bar === undefined) return undefined;
        const recording = bars.get(index) ?? this.#recordingDoorbells(bar);
        bars.set(index, recording);
        return recording;
      },
    };
  }

  /** Writes to BARs in order, as `register=0x…`. */
  get writes(): string[] {
    return this.accesses
      .filter(({ kind }) => kind === 'write')
      .map(({ register, value }) => `${register}=0x${value.toString(16)}`);
  }

  clear(): void {
    this.accesses.length = 0;
    this.doorbells.length = 0;
  }

  #add(kind: RegisterAccess['kind'], region: EmulatedRegion, offset: number, value: number, bytes: number): void {
    if (region === 'config') return;
    this.accesses.push({ kind, region, register: registerName(region, offset), offset, value, bytes });
  }

  #recordingDoorbells(bar: Bar): Bar {
    return {
      index: bar.index,
      bytes: bar.bytes,
      kind: bar.kind,
      read8: (offset) => bar.read8(offset),
      read16: (offset) => bar.read16(offset),
      read32: (offset) => bar.read32(offset),
      write8: (offset, value) => bar.write8(offset, value),
      write16: (offset, value) => bar.write16(offset, value),
      write32: (offset, value) => bar.write32(offset, value),
      doorbell: (offset, width, value) => {
        this.doorbells.push({ bar: bar.index, offset, width, value, after: this.accesses.length });
        return bar.doorbell(offset, width, value);
      },
    };
  }
}
