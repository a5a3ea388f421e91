/** Commands of a port to its device, each sent only where what it needs was accepted. */

import { ErrorCode, VirtioError } from '../errors.js';
import { ControlAck, controlCommandFeatures, controlCommandName } from '../spec/control.js';
import { type FeatureSet, featureName } from '../spec/features.js';
import type { ControlAnswer } from './control-queue.js';
import type { Negotiation } from './negotiation.js';

/** The device, as far as commands need it. */
export interface CommandedDevice {
  readonly address: string;
  readonly queuePairs: number;
  /** Pairs that the device has, as it said at the last start. */
  readonly maxPairs: number;
  /** Of the last start; undefined while the port is not started. */
  readonly live: Negotiation | undefined;
  /** The device's address is another one from here on. */
  setMacAddress(address: Uint8Array): void;
  readConfig(offset: number, bytes: number): Promise<Uint8Array>;
  /** Resolves to the ack byte, and the result where `resultBytes` were asked for. */
  command(commandClass: number, command: number, data: Uint8Array, resultBytes?: number): Promise<ControlAnswer>;
  /** Does it after whatever the port is doing. */
  inTurn<T>(work: () => Promise<T>): Promise<T>;
}

export class ControlSender {
  readonly device: CommandedDevice;

  constructor(device: CommandedDevice) {
    this.device = device;
  }

  /** Sends a command that must be done; resolves to its result. */
  async send(commandClass: number, command: number, data: Uint8Array, resultBytes = 0): Promise<Uint8Array> {
    this.accepted(commandClass, command);
    const { ack, result } = await this.device.command(commandClass, command, data, resultBytes);
    if (ack === ControlAck.OK) return result;
    throw new VirtioError(
      ErrorCode.REQUEST_REFUSED,
      `the device at ${this.device.address} refuses ${controlCommandName(commandClass, command)}`,
      { value: ack, requirement: 'virtio 1.2 §5.1.6.5', advice: 'do without it on this device' },
    );
  }

  /** Sends a command; resolves to whether it was done. */
  async attempt(commandClass: number, command: number, data: Uint8Array): Promise<boolean> {
    this.accepted(commandClass, command);
    return (await this.device.command(commandClass, command, data)).ack === ControlAck.OK;
  }

  /** The accepted features, among which is what a command needs. @throws VirtioError WRONG_STATE, UNSUPPORTED */
  accepted(commandClass: number, command: number): FeatureSet {
    const { live, address } = this.device;
    const what = controlCommandName(commandClass, command);
    if (live === undefined) {
      throw new VirtioError(ErrorCode.WRONG_STATE, `${what} needs a device: the port ${address} is not started`, {
        value: what,
        requirement: 'virtio 1.2 §5.1.6.5',
        advice: 'start the port first',
      });
    }
    const needed = controlCommandFeatures(commandClass, command);
    if (!needed.some((feature) => live.features.has(feature))) throw this.unsupported(needed, what);
    return live.features;
  }

  /** Why something that needs one of these features cannot be done. */
  unsupported(needed: readonly number[], what: string): VirtioError {
    const names = needed.map(featureName).join(' or ');
    const outcome = this.device.live?.outcomes.find(({ feature }) => needed.includes(feature));
    const why = outcome?.explanation ?? 'nobody offers it, and this port did not ask for it';
    return new VirtioError(ErrorCode.UNSUPPORTED, `${what} needs ${names}: ${why}`, {
      value: names,
      requirement: 'virtio 1.2 §5.1.6.5',
      advice: 'turn the feature on at the other side, or do without it',
    });
  }

  /** @throws VirtioError INVALID_ARGUMENT for a pair that the port has not; undefined stands for all */
  checkPair(pair: number | undefined): void {
    const { queuePairs } = this.device;
    const isThere = pair === undefined || (Number.isInteger(pair) && pair >= 0 && pair < queuePairs);
    checkSetting(isThere, `the port has queues 0 to ${queuePairs - 1}`, pair);
  }
}

/** Settings of one kind, which the device loses with each reset. */
export interface KeptSettings {
  /** Makes them again on a device that was reset. */
  restore(): Promise<void>;
  /** Makes them no more. */
  forget(): void;
}

/** @throws VirtioError INVALID_ARGUMENT unless a setting is sound */
export function checkSetting(isSound: boolean, rule: string, value: unknown): void {
  if (isSound) return;
  throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${rule}, not ${String(value)}`, {
    value: value ?? 'nothing',
    requirement: 'virtio 1.2 §5.1.6.5',
    advice: 'look at what the device can do before it is asked for it',
  });
}
