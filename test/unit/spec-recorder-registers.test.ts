/** The recorder of registers names the rule that a trace breaks, and no other. */

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Feature, FeatureSet } from '../../driver/spec/features.js';
import { virtioNetConfig } from '../../driver/spec/net-config.js';
import { NO_VECTOR, virtioPciCommonCfg } from '../../driver/spec/pci.js';
import { Status } from '../../driver/spec/status.js';
import type { DoorbellRequest, RegisterAccess } from '../support/register-log.js';
import { RegisterRules } from '../support/spec/register-rules.js';
import type { Rule } from '../support/spec/violations.js';

const test = suite('recorder of registers');
const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, FAILED } = Status;
const FEATURES = FeatureSet.of(Feature.VERSION_1, Feature.MAC, Feature.CSUM);
type Common = keyof typeof virtioPciCommonCfg.fields;

/** Writes down what a driver would do, right or wrong. */
class Trace {
  readonly accesses: RegisterAccess[] = [];
  readonly doorbells: DoorbellRequest[] = [];

  write(name: Common, value: number, half = 0, width?: number): this {
    return this.#common('write', name, value, half, width);
  }
  read(name: Common, value: number, width?: number): this {
    return this.#common('read', name, value, 0, width);
  }
  status(...bits: readonly number[]): this {
    return this.write(
      'device_status',
      bits.reduce((sum, bit) => sum | bit, 0),
    );
  }
  config(kind: 'read' | 'write', offset: number, bytes: number): this {
    this.accesses.push({ kind, region: 'device', register: String(offset), offset, value: 0, bytes });
    return this;
  }
  notify(value: number, bytes = 2): this {
    this.accesses.push({ kind: 'write', region: 'notify', register: '0', offset: 4 * value, value, bytes });
    return this;
  }
  doorbell(value: number, width = 16): this {
    this.doorbells.push({ bar: 4, offset: 0, width, value, after: this.accesses.length });
    return this;
  }

  begin(): this {
    return this.status(0).read('device_status', 0).status(ACKNOWLEDGE).status(ACKNOWLEDGE, DRIVER);
  }
  features(accepted = FEATURES, offered = FEATURES): this {
    for (const word of [0, 1]) {
      this.write('device_feature_select', word).read('device_feature', offered.word(word));
    }
    for (const word of [0, 1]) {
      this.write('driver_feature_select', word).write('driver_feature', accepted.word(word));
    }
    return this;
  }
  agree(answer = ACKNOWLEDGE | DRIVER | FEATURES_OK): this {
    return this.status(ACKNOWLEDGE, DRIVER, FEATURES_OK).read('device_status', answer);
  }
  mac(generation: readonly [before: number, after: number] = [3, 3]): this {
    this.read('config_generation', generation[0]);
    for (let at = 0; at < 6; at++) this.config('read', at, 1);
    return this.read('config_generation', generation[1]);
  }
  addresses(desc = 0x1000): this {
    for (const [name, low] of [
      ['queue_desc', desc],
      ['queue_driver', 0x2000],
      ['queue_device', 0x3000],
    ] as const) {
      this.write(name, low).write(name, 1, 4);
    }
    return this;
  }
  queue(index = 0): this {
    this.write('queue_select', index).read('queue_size', 256).write('queue_size', 64);
    return this.addresses().write('queue_enable', 1);
  }
  live(): this {
    return this.status(ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK);
  }

  #common(kind: 'read' | 'write', name: Common, value: number, half: number, width?: number): this {
    const field = virtioPciCommonCfg.fields[name];
    const register = half === 0 ? name : `${name}+${half}`;
    const offset = field.offset + half;
    this.accesses.push({ kind, region: 'common', register, offset, value, bytes: width ?? Math.min(4, field.bytes) });
    return this;
  }
}

const negotiated = (accepted?: FeatureSet, offered?: FeatureSet): Trace =>
  new Trace().begin().features(accepted, offered).agree();
const ringReset = FEATURES.with(Feature.RING_RESET);

const cases: readonly (readonly [rule: Rule, what: string, trace: () => Trace])[] = [
  ['D1', 'DRIVER before ACKNOWLEDGE', () => new Trace().status(0).read('device_status', 0).status(DRIVER)],
  ['D1', 'two bits at once', () => new Trace().status(0).read('device_status', 0).status(ACKNOWLEDGE, DRIVER)],
  [
    'D1',
    'FEATURES_OK not read again',
    () => new Trace().begin().features().status(ACKNOWLEDGE, DRIVER, FEATURES_OK).live(),
  ],
  ['D1', 'a queue before FEATURES_OK', () => new Trace().begin().write('queue_select', 0).write('queue_size', 64)],
  ['D1', 'a feature before DRIVER', () => new Trace().status(0).read('device_status', 0).write('driver_feature', 1)],
  ['D2', 'a feature after FEATURES_OK', () => negotiated().write('driver_feature', 1)],
  ['D2', 'configuration while features are negotiated', () => new Trace().begin().config('write', 0, 1)],
  [
    'D3',
    'a queue though the features were refused',
    () =>
      new Trace()
        .begin()
        .features()
        .agree(ACKNOWLEDGE | DRIVER)
        .queue(),
  ],
  [
    'D3',
    'no FAILED though the features were refused',
    () =>
      new Trace()
        .begin()
        .features()
        .agree(ACKNOWLEDGE | DRIVER)
        .status(0),
  ],
  ['D4', 'a notification before DRIVER_OK', () => negotiated().queue().notify(0)],
  ['D5', 'a bit that is cleared', () => new Trace().begin().status(DRIVER)],
  ['D5', 'going on after FAILED', () => new Trace().begin().status(ACKNOWLEDGE, DRIVER, FAILED).agree()],
  [
    'D6',
    'a write before the reset has ended',
    () => new Trace().status(0).read('device_status', 1).status(ACKNOWLEDGE).read('device_status', 0),
  ],
  ['D7', 'what is not offered', () => negotiated(FEATURES.with(Feature.MQ, Feature.CTRL_VQ))],
  [
    'D7',
    'what lacks its requirement',
    () => negotiated(FEATURES.with(Feature.MQ), FEATURES.with(Feature.MQ, Feature.CTRL_VQ)),
  ],
  ['D9', 'VERSION_1 is left', () => negotiated(FEATURES.without(Feature.VERSION_1))],
  ['D11', 'a torn reading that is not done again', () => negotiated().mac([3, 4])],
  ['D11', 'no generation behind', () => negotiated().config('read', 0, 1).config('read', 1, 1)],
  ['D12', 'a field that is not there', () => negotiated().config('read', virtioNetConfig.fields.mtu.offset, 2)],
  ['D13', 'a width of another field', () => negotiated().read('queue_size', 256, 4)],
  [
    'D13',
    'a configuration field by bytes',
    () => negotiated(FEATURES, FEATURES.with(Feature.MTU)).config('read', virtioNetConfig.fields.mtu.offset, 1),
  ],
  ['D16', 'a register that is read-only', () => negotiated().write('num_queues', 3)],
  ['D17', 'no power of two', () => negotiated().write('queue_select', 0).write('queue_size', 48)],
  [
    'D17',
    'more than there is',
    () => negotiated().write('queue_select', 0).read('queue_size', 64).write('queue_size', 128),
  ],
  ['D17', '0 to queue_enable', () => negotiated().queue().write('queue_select', 1).write('queue_enable', 0)],
  [
    'D17',
    'enabled before all addresses',
    () => negotiated().write('queue_select', 0).write('queue_desc', 0x1000).write('queue_enable', 1),
  ],
  ['D17', 'a queue that is enabled', () => negotiated().queue().write('queue_size', 32)],
  ['D18', 'a reset of a queue without RING_RESET', () => negotiated().queue().live().write('queue_reset', 1)],
  ['D18', '0 to queue_reset', () => negotiated(ringReset, ringReset).queue().live().write('queue_reset', 0)],
  [
    'D18',
    'set up before the reset has ended',
    () => negotiated(ringReset, ringReset).queue().live().write('queue_reset', 1).write('queue_size', 64),
  ],
  ['D19', 'a notification of 32 bits', () => negotiated().queue().live().notify(0, 4)],
  ['D19', 'a doorbell of a queue that is not there', () => negotiated().queue().live().doorbell(9)],
  [
    'D19',
    '16 bits with NOTIFICATION_DATA',
    () => {
      const features = FEATURES.with(Feature.NOTIFICATION_DATA);
      return negotiated(features, features).queue().live().doorbell(0);
    },
  ],
  [
    'D20',
    'a vector that is not read back',
    () => negotiated().write('queue_select', 0).write('queue_msix_vector', 1).queue(),
  ],
  [
    'D21',
    'descriptors that are not aligned',
    () => negotiated().write('queue_select', 0).addresses(0x1008).write('queue_enable', 1),
  ],
  ['D37', 'configuration is written', () => negotiated().queue().live().config('write', 0, 1)],
];

for (const [rule, what, trace] of cases) {
  test(`${rule} is named: ${what}`, () => {
    const { violations } = RegisterRules.judge(trace());
    assert.equal(violations.rules, [rule], violations.lines.join('\n'));
  });
}

test('a driver that keeps to the rules is not objected to', () => {
  const trace = new Trace()
    .begin()
    .features()
    .agree()
    .mac([3, 4])
    .mac([4, 4])
    .write('queue_select', 0)
    .write('queue_msix_vector', 1)
    .read('queue_msix_vector', 1)
    .queue()
    .doorbell(0)
    .live()
    .notify(0)
    .status(0)
    .read('device_status', 15)
    .read('device_status', 0)
    .begin()
    .features(ringReset, ringReset)
    .agree()
    .write('queue_select', 0)
    .write('queue_msix_vector', NO_VECTOR)
    .queue()
    .live()
    .write('queue_reset', 1)
    .read('queue_reset', 1)
    .read('queue_reset', 0)
    .queue()
    .begin()
    .features()
    .agree(ACKNOWLEDGE | DRIVER)
    .status(ACKNOWLEDGE, DRIVER, FEATURES_OK, FAILED)
    .status(0);
  assert.equal(RegisterRules.judge(trace).violations.lines, []);
});

test.run();
