/** What a driver may ask for in the control queue, and how a device answers (virtio 1.2 §5.1.6.5). */

import {
  ControlAck,
  ControlClass,
  controlCommandFeatures,
  controlCommandName,
  controlCommands,
  guestOffloadsOf,
  MacCommand,
  MqCommand,
  virtioNetCtrlGuestOffloads,
  virtioNetCtrlHdr,
  virtioNetCtrlMq,
  virtioNetRssConfigHead,
} from '../../../driver/spec/control.js';
import type { FeatureSet } from '../../../driver/spec/features.js';
import { NetStatus, virtioNetConfig } from '../../../driver/spec/net-config.js';
import { isPowerOfTwo } from '../../../driver/units.js';
import type { Violations } from './violations.js';

/** What commands are judged by, and what they change. */
export interface CommandedState {
  readonly features: FeatureSet;
  readonly queuePairs: number;
  readonly config: Uint8Array;
  /** Pairs that the driver has turned on. */
  activePairs: number;
}

const at = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const configOf = ({ config }: CommandedState) => virtioNetConfig.read(at(config));

/** Judges a command of the driver. */
export function checkCommand(command: Uint8Array, state: CommandedState, violations: Violations): void {
  const { class: commandClass, command: number } = virtioNetCtrlHdr.read(at(command));
  const data = command.subarray(virtioNetCtrlHdr.bytes);
  const name = controlCommandName(commandClass, number);
  const needed = controlCommandFeatures(commandClass, number);
  const isAccepted = needed.some((feature) => state.features.has(feature));
  if (!violations.insist('D41', isAccepted, `${name} without the feature it needs`)) return;
  if (commandClass === ControlClass.MQ) checkQueueCommand(number, data, state, violations);
  if (commandClass === ControlClass.GUEST_OFFLOADS) {
    const { offloads } = virtioNetCtrlGuestOffloads.read(at(data));
    const foreign = offloads & ~guestOffloadsOf(state.features);
    violations.insist('D42', foreign === 0n, `offloads 0x${foreign.toString(16)} that were not accepted`);
  }
}

function checkQueueCommand(number: number, data: Uint8Array, state: CommandedState, violations: Violations): void {
  if (number === MqCommand.VQ_PAIRS_SET) {
    const { virtqueue_pairs: pairs } = virtioNetCtrlMq.read(at(data));
    violations.insist('D39', pairs >= 1 && pairs <= state.queuePairs, `${pairs} pairs of ${state.queuePairs}`);
  } else if (number === MqCommand.RSS_CONFIG) {
    const head = virtioNetRssConfigHead.read(at(data));
    const limits = configOf(state);
    const entries = head.indirection_table_mask + 1;
    const isTable = isPowerOfTwo(entries) && entries <= limits.rss_max_indirection_table_length;
    violations.insist('D40', isTable, `a table of ${entries} entries`);
    violations.insist('D40', (head.hash_types & ~limits.supported_hash_types) === 0, 'hash types that there are not');
    const queues = [head.unclassified_queue];
    for (let entry = 0; isTable && entry < entries; entry++) {
      queues.push(at(data).getUint16(virtioNetRssConfigHead.bytes + 2 * entry, true));
    }
    const isThere = queues.every((queue) => queue < state.queuePairs);
    violations.insist('D40', isThere, `a table with queue ${Math.max(...queues)} of ${state.queuePairs}`);
  }
}

/** Judges the answer of the device, and keeps what has changed by it. */
export function checkAnswer(
  command: Uint8Array,
  answer: Uint8Array,
  written: number,
  state: CommandedState,
  violations: Violations,
): void {
  const { class: commandClass, command: number } = virtioNetCtrlHdr.read(at(command));
  const name = controlCommandName(commandClass, number);
  const [ack] = answer;
  if (!violations.insist('E20', written >= 1, `${name} was used and not answered`)) return;
  violations.insist('E20', ack === ControlAck.OK || ack === ControlAck.ERR, `${name} was answered with ${ack}`);
  const isKnown = Object.entries(ControlClass).some(
    ([key, value]) =>
      value === commandClass && Object.values(controlCommands[key as keyof typeof ControlClass]).includes(number),
  );
  violations.insist('E20', isKnown || ack === ControlAck.ERR, `${name}, which there is not, was answered with OK`);
  if (ack !== ControlAck.OK) return;
  const data = command.subarray(virtioNetCtrlHdr.bytes);
  if (commandClass === ControlClass.MQ && number === MqCommand.VQ_PAIRS_SET) {
    state.activePairs = virtioNetCtrlMq.read(at(data)).virtqueue_pairs;
  } else if (commandClass === ControlClass.MQ && number === MqCommand.RSS_CONFIG) {
    state.activePairs = state.queuePairs;
  } else if (commandClass === ControlClass.MAC && number === MacCommand.ADDR_SET) {
    const isSet = data.every((byte, index) => byte === state.config[virtioNetConfig.fields.mac.offset + index]);
    violations.insist('E17', isSet, 'ADDR_SET was used before the address was in the configuration');
  } else if (commandClass === ControlClass.ANNOUNCE) {
    violations.insist('E17', (configOf(state).status & NetStatus.ANNOUNCE) === 0, 'ANNOUNCE stands after its ACK');
  }
}
