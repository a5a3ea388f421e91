/** The application's state: its ports, what forwards, and what was set. */

import { VirtioError } from '../../errors.js';
import type { PacketPool } from '../../index.js';
import type { DeviceMaker, EthernetDevice } from './devices/ethernet-device.js';
import { type ForwardPlan, planForwarding } from './forward-plan.js';
import type { Forwarding } from './forwarding.js';
import type { Output } from './output.js';
import type { Settings } from './settings.js';
import { TestPort } from './test-port.js';

/** The greatest number of ports (`RTE_MAX_ETHPORTS`). */
export const MAX_PORTS = 32;

/** The lcores of the process. */
export interface Lcores {
  readonly main: number;
  /** The others, ascending: they forward. */
  readonly workers: readonly number[];
}

export interface TestpmdParts {
  readonly settings: Settings;
  readonly output: Output;
  readonly lcores: Lcores;
  readonly pool: PacketPool;
  readonly makers: readonly DeviceMaker[];
  readonly forwarding: Forwarding;
}

export class Testpmd {
  readonly settings: Settings;
  readonly output: Output;
  readonly lcores: Lcores;
  readonly pool: PacketPool;
  readonly makers: readonly DeviceMaker[];
  readonly forwarding: Forwarding;
  readonly ports = new Map<number, TestPort>();
  /** Names of the devices that were made and not detached; a device outlives its closed port. */
  readonly devices = new Set<string>();
  /** The ports that may forward, in the order of the topology (`set portlist`), of which the first do (`set nbport`). */
  configuredPorts: number[] = [];
  forwardPortCount = 0;
  /** The lcores that may forward, in order (`set corelist`), of which the first do (`set nbcore`). */
  configuredLcores: number[];
  forwardLcoreCount = 1;
  /** Who forwards from where to where, as it was laid out last. */
  plan: ForwardPlan;
  #hasWarnedOfOddPorts = false;
  #hasWarnedOfNuma = false;
  /** Commands that a command has come upon in a file: run before the next. Set by the console. */
  runFile: (path: string) => Promise<void> = () => Promise.resolve();
  /** No more commands are wanted. */
  isQuitting = false;

  constructor(parts: TestpmdParts) {
    this.settings = parts.settings;
    this.output = parts.output;
    this.lcores = parts.lcores;
    this.pool = parts.pool;
    this.makers = parts.makers;
    this.forwarding = parts.forwarding;
    this.configuredLcores = [...parts.lcores.workers];
    this.plan = planForwarding(this.settings, [], []);
  }

  /** The lowest number that is free. */
  get nextPortId(): number {
    let id = 0;
    while (this.ports.has(id)) id++;
    return id;
  }

  /** Gives a device the lowest number that is free. */
  addPort(device: EthernetDevice): TestPort {
    const id = this.nextPortId;
    const port = new TestPort(id, device);
    this.ports.set(id, port);
    device.onLinkChange = () => {
      if (this.settings.lscInterrupt) this.output.write(`\nPort ${id}: link state change event\n`);
    };
    device.onQueueChange = () => this.output.write(`\nPort ${id}: queue state event\n`);
    return port;
  }

  /** All ports in their order, the first of the lcores, peers by the ports' numbers. */
  resetForwarding(): void {
    this.configuredLcores = [...this.lcores.workers];
    this.forwardLcoreCount = 1;
    this.configuredPorts = this.allPorts.map(({ id }) => id);
    this.forwardPortCount = this.ports.size;
    this.settings.peers.clear();
  }

  /** Lays out the streams anew, for ports, lcores, queues and topology as they are now set. */
  layOut(): void {
    this.plan = planForwarding(this.settings, this.forwardPorts, this.forwardLcores);
    if (!this.plan.pairsWithItself || this.#hasWarnedOfOddPorts) return;
    this.#hasWarnedOfOddPorts = true;
    this.output.warn(
      '\nWarning! port-topology=paired and odd forward ports number, the last port will pair with itself.\n',
    );
  }

  /** Warns once where nobody knows to which NUMA node a port belongs. */
  checkNumaNode({ device }: TestPort): void {
    if (device.hasNumaNode !== false || this.#hasWarnedOfNuma) return;
    this.#hasWarnedOfNuma = true;
    if (!this.settings.numa) return;
    this.output.warn(
      'Warning: NUMA should be configured manually by using --port-numa-config and --ring-numa-config parameters along with --numa.',
    );
  }

  /** Forgets a port, wherever it is listed. */
  removePort({ id }: TestPort): void {
    this.ports.delete(id);
    this.configuredPorts = this.forwardPorts.filter((port) => port !== id);
    this.forwardPortCount = this.configuredPorts.length;
  }

  /** Says what a device answered, as DPDK's drivers do in their log. */
  log(error: unknown): void {
    this.output.warn(error instanceof VirtioError ? error.toLine() : String(error));
  }

  /** The ports that forward. */
  get forwardPorts(): readonly number[] {
    return this.configuredPorts.slice(0, this.forwardPortCount);
  }

  /** The lcores that forward. */
  get forwardLcores(): readonly number[] {
    return this.configuredLcores.slice(0, this.forwardLcoreCount);
  }

  /** In ascending order of their numbers. */
  get allPorts(): readonly TestPort[] {
    return [...this.ports.values()].sort((a, b) => a.id - b.id);
  }

  /** The port of this number; undefined, with testpmd's complaint, when there is none. */
  portOf(id: number): TestPort | undefined {
    const port = this.ports.get(id);
    if (port === undefined) this.output.warn(`Invalid port ${id}`);
    return port;
  }

  /** Whether packets are forwarded at this moment, by this port: what is set meanwhile (`set nbport`) is of the next start. */
  isForwarding(port: TestPort): boolean {
    return this.forwarding.isRunning && this.forwarding.plan?.ports.includes(port.id) === true;
  }
}
