/**
 * A recorder of a driver's register accesses, as `RegisterLog` has them: it names the rule that each breaks (virtio 1.2
 * §3.1.1, §4.1.4.3.2). What is about a queue is in `QueueRegisterRules`.
 */

import { dropUnmetRequirements, Feature, FeatureSet, featureName } from '../../../driver/spec/features.js';
import { netConfigFeatures, virtioNetConfig } from '../../../driver/spec/net-config.js';
import { virtioPciCommonCfg } from '../../../driver/spec/pci.js';
import { describeStatus, Status } from '../../../driver/spec/status.js';
import type { RegisterAccess, RegisterLog } from '../register-log.js';
import { QueueRegisterRules } from './queue-register-rules.js';
import { Violations } from './violations.js';

/** The order in which the bits of the status rise. */
const STEPS = [Status.ACKNOWLEDGE, Status.DRIVER, Status.FEATURES_OK, Status.DRIVER_OK];
const READ_ONLY = ['device_feature', 'num_queues', 'config_generation', 'queue_notify_off', 'queue_notif_config_data'];
/** What a device may set by itself, and a driver leaves as it is. */
const DEVICES_BITS = Status.DEVICE_NEEDS_RESET;

export class RegisterRules {
  readonly violations: Violations;
  readonly #queues: QueueRegisterRules;
  /** As the driver has written it last. */
  #status = 0;
  #awaitsZero = false;
  #awaitsFeaturesOk = false;
  #wasRefused = false;
  #offeredSelect = 0;
  #acceptedSelect = 0;
  readonly #offered = new Uint32Array(4);
  readonly #accepted = new Uint32Array(4);
  /** Of configuration: what the generation was before, and how many accesses followed. */
  #generation: number | undefined;
  #configReads = 0;
  #isTorn = false;

  constructor(violations = new Violations()) {
    this.violations = violations;
    this.#queues = new QueueRegisterRules(violations);
  }

  /** Judges all that a driver has done. */
  static judge({ accesses, doorbells }: Pick<RegisterLog, 'accesses' | 'doorbells'>): RegisterRules {
    const rules = new RegisterRules();
    for (let number = 0; number <= accesses.length; number++) {
      // A doorbell notifies by itself from here on, in the same width and with the same value.
      for (const { width, value, after } of doorbells) {
        if (after === number) rules.#queues.notified(value, width, rules.#features);
      }
      if (number < accesses.length) rules.see(accesses[number]!);
    }
    rules.finish();
    return rules;
  }

  see(access: RegisterAccess): void {
    if (access.kind === 'write' && this.#awaitsZero && !isReset(access)) {
      this.violations.add('D6', `${access.register} was written before the status had read 0`);
    }
    if (access.region === 'common') this.#common(access);
    else if (access.region === 'device') this.#device(access);
    else if (access.region === 'notify' && access.kind === 'write') this.#notified(access);
  }

  /** Nothing comes any more. */
  finish(): void {
    this.#endConfig();
    this.violations.insist('D11', !this.#isTorn, 'configuration that changed while it was read was not read again');
  }

  get #features(): FeatureSet {
    return FeatureSet.fromWords(this.#accepted);
  }

  #common(access: RegisterAccess): void {
    const { kind, register, value } = access;
    if (register !== 'config_generation') this.#endConfig();
    this.#checkWidth(access);
    if (kind === 'write') {
      this.violations.insist('D16', !READ_ONLY.includes(register), `${register} was written`);
      if (register === 'device_status') this.#writeStatus(value);
      else if (register === 'driver_feature') this.#writeFeature(value);
      else if (register === 'driver_feature_select') this.#acceptedSelect = value;
      else if (register === 'device_feature_select') this.#offeredSelect = value;
    } else if (register === 'device_status') this.#readStatus(value);
    else if (register === 'device_feature' && this.#offeredSelect < 4) this.#offered[this.#offeredSelect] = value;
    else if (register === 'config_generation') this.#readGeneration(value);
    if (kind === 'write' && /^queue_(?!select)/.test(register)) this.#checkQueueTime(register);
    this.#queues.see(access, this.#features);
  }

  #writeStatus(next: number): void {
    const previous = this.#status;
    if (next === 0) {
      this.violations.insist('D3', !this.#wasRefused, 'features were refused, and FAILED was not set');
      this.#status = 0;
      this.#awaitsZero = true;
      this.#awaitsFeaturesOk = this.#wasRefused = false;
      this.#accepted.fill(0);
      this.#queues.reset();
      return;
    }
    const cleared = previous & ~next & ~DEVICES_BITS;
    this.violations.insist('D5', cleared === 0, `${describeStatus(cleared)} was cleared without a reset`);
    const rising = next & ~previous & ~DEVICES_BITS;
    const isFailed = (previous & Status.FAILED) !== 0 && rising !== 0;
    this.violations.insist('D5', !isFailed, `${describeStatus(rising)} after FAILED, without a reset`);
    const steps = STEPS.filter((bit) => (rising & bit) !== 0);
    const first = steps.length > 0 ? STEPS.indexOf(steps[0]!) : 0;
    const isNext = steps.length <= 1 && (first === 0 || (previous & STEPS[first - 1]!) !== 0);
    this.violations.insist('D1', isNext, `${describeStatus(rising)} after ${describeStatus(previous)}`);
    if ((rising & Status.FEATURES_OK) !== 0) this.#agree();
    if ((rising & Status.DRIVER_OK) !== 0) {
      this.violations.insist('D1', !this.#awaitsFeaturesOk, 'DRIVER_OK, and FEATURES_OK was not read again');
      this.violations.insist('D3', !this.#wasRefused, 'DRIVER_OK, though the features were refused');
      this.#queues.goLive();
    }
    if ((rising & Status.FAILED) !== 0) this.#wasRefused = false;
    this.#status = next;
  }

  #readStatus(value: number): void {
    if (value === 0) this.#awaitsZero = false;
    if (!this.#awaitsFeaturesOk) return;
    this.#awaitsFeaturesOk = false;
    this.#wasRefused = (value & Status.FEATURES_OK) === 0;
  }

  /** The driver says that its features stand. */
  #agree(): void {
    this.#awaitsFeaturesOk = true;
    const [offered, accepted] = [FeatureSet.fromWords(this.#offered), this.#features];
    const foreign = accepted.difference(offered);
    this.violations.insist('D7', foreign.isEmpty, `${foreign} was accepted and is not offered`);
    const { dropped } = dropUnmetRequirements(accepted);
    const unmet = [...dropped.keys()].map(featureName).join(', ');
    this.violations.insist('D7', dropped.size === 0, `${unmet} was accepted without what it needs`);
    const isModern = !offered.has(Feature.VERSION_1) || accepted.has(Feature.VERSION_1);
    this.violations.insist('D9', isModern, 'VERSION_1 is offered and was not accepted');
  }

  #writeFeature(value: number): void {
    const isOpen = (this.#status & Status.FEATURES_OK) === 0;
    this.violations.insist('D2', isOpen, 'a feature was written after FEATURES_OK');
    const isBegun = (this.#status & Status.DRIVER) !== 0;
    this.violations.insist('D1', isBegun, 'a feature was written before DRIVER');
    if (this.#acceptedSelect < 4) this.#accepted[this.#acceptedSelect] = value;
  }

  #checkQueueTime(register: string): void {
    const isAgreed = (this.#status & Status.FEATURES_OK) !== 0 && !this.#awaitsFeaturesOk;
    this.violations.insist('D1', isAgreed || this.#wasRefused, `${register} was written before FEATURES_OK was read`);
    this.violations.insist('D3', !this.#wasRefused, `${register} was written, though the features were refused`);
  }

  #notified({ register, offset, value, bytes }: RegisterAccess): void {
    const isLive = (this.#status & Status.DRIVER_OK) !== 0;
    this.violations.insist('D4', isLive, `a notification at ${register} before DRIVER_OK`);
    this.#queues.notified(value, 8 * bytes, this.#features, offset);
  }

  #device({ kind, offset, bytes }: RegisterAccess): void {
    const field = virtioNetConfig.order.find((each) => offset >= each.offset && offset < each.offset + each.bytes);
    if (kind === 'write') {
      const isNegotiating = (this.#status & Status.FEATURES_OK) === 0;
      this.violations.add(isNegotiating ? 'D2' : 'D37', `configuration was written at ${offset}`);
      return;
    }
    this.#configReads += 1;
    // A configuration may be longer than what is known of it.
    if (field === undefined) return;
    const features = netConfigFeatures[field.name as keyof typeof netConfigFeatures];
    const offered = FeatureSet.fromWords(this.#offered);
    const isThere = features.some((feature) => offered.has(feature));
    this.violations.insist('D12', isThere, `${field.name} was read, and its feature is not offered`);
    const width = field.type.name === 'bytes' ? 1 : field.bytes;
    this.violations.insist('D13', bytes === width, `${field.name} was read by ${8 * bytes} bits`);
  }

  /** Between two equal generations a reading is one. */
  #readGeneration(value: number): void {
    if (this.#configReads === 0) {
      this.#generation = value;
      return;
    }
    if (this.#configReads > 1) {
      this.violations.insist('D11', this.#generation !== undefined, 'configuration was read without its generation');
    }
    this.#isTorn = this.#generation !== undefined && this.#generation !== value;
    this.#generation = value;
    this.#configReads = 0;
  }

  /** One field may be read by itself; of more, the generation is read next. */
  #endConfig(): void {
    this.violations.insist('D11', this.#configReads <= 1, 'the generation was not read behind the configuration');
    this.#configReads = 0;
  }

  #checkWidth({ register, offset, bytes }: RegisterAccess): void {
    const field = virtioPciCommonCfg.order.find((each) => offset >= each.offset && offset < each.offset + each.bytes);
    if (field === undefined) return;
    const width = Math.min(field.bytes, 4);
    const isFit = bytes === width && (offset - field.offset) % width === 0;
    this.violations.insist('D13', isFit, `${register} was accessed by ${8 * bytes} bits`);
  }
}

const isReset = ({ register, value, region }: RegisterAccess): boolean =>
  region === 'common' && register === 'device_status' && value === 0;
