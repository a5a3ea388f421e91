/** Commands for VLAN tags: stripped, filtered, put in. */

import { type Command, command } from '../console/grammar.js';
import { Errno, type Result } from '../errno.js';
import { attempt, withPort } from '../ports/ethdev.js';
import { reconfigure, stoppedPort } from '../ports/reconfiguration.js';
import { hasBit, RxOffload, TxOffload } from '../reports/bits-of-ethdev.js';
import type { TestPort } from '../test-port.js';
import { MAX_PORTS, type Testpmd } from '../testpmd.js';

const TAGS = 4096;
const INSERTS = (1n << BigInt(TxOffload.VLAN_INSERT)) | (1n << BigInt(TxOffload.QINQ_INSERT));

/** What testpmd calls the function that failed, and the offload that it turns. */
const offloads = {
  strip: ['rx_vlan_strip_set', RxOffload.VLAN_STRIP],
  filter: ['rx_vlan_filter_set', RxOffload.VLAN_FILTER],
  qinq_strip: ['rx_vlan_qinq_strip_set', RxOffload.QINQ_STRIP],
  extend: ['rx_vlan_extend_set', RxOffload.VLAN_EXTEND],
} as const;

/** Turns an offload of a port that may be running, with ethdev's checks. */
const turnOffload = (testpmd: Testpmd, port: TestPort, bit: number, on: boolean): Promise<Result> =>
  withPort(testpmd, port.id, async ({ device, configured, id }) => {
    const before = configured?.rxOffloads ?? 0n;
    const after = on ? before | (1n << BigInt(bit)) : before & ~(1n << BigInt(bit));
    if (after === before) return 0;
    const able = device.info().rxOffloads;
    if ((after & ~able) !== 0n) {
      const [asked, can] = [after & ~before, able].map((mask) => `0x${mask.toString(16)}`);
      testpmd.output.warn(
        `Ethdev port_id=${id} requested new added VLAN offloads ${asked} must be within Rx offloads capabilities ${can} in rte_eth_dev_set_vlan_offload()`,
      );
      return Errno.EINVAL;
    }
    const result = await attempt(testpmd, device.setVlanOffload?.(after));
    if (result === 0 && configured !== undefined) port.configured = { ...configured, rxOffloads: after };
    return result;
  });

async function setOffload(testpmd: Testpmd, what: keyof typeof offloads, on: boolean, place: string): Promise<void> {
  const id = numberAtFront(place);
  if (id >= MAX_PORTS) return;
  const port = testpmd.portOf(id);
  if (port === undefined) return;
  const [call, bit] = offloads[what];
  const result = await turnOffload(testpmd, port, bit, on);
  if (result !== 0) return testpmd.output.warn(`${call}(port_pi=${id}, on=${on ? 1 : 0}) failed diag=-${result}`);
  const mask = 1n << BigInt(bit);
  port.rxOffloads = on ? port.rxOffloads | mask : port.rxOffloads & ~mask;
}

/** `vlan set stripq on 0,1`: no port here strips tags of single queues. */
function stripQueue(testpmd: Testpmd, on: boolean, place: string): void {
  const { output, settings } = testpmd;
  const id = numberAtFront(place);
  if (id >= MAX_PORTS) return;
  const [, queue] = /,(.+)$/.exec(place) ?? [];
  if (queue === undefined) {
    output.warn('must specify (port,queue_id)');
    return;
  }
  if (testpmd.portOf(id) === undefined) return;
  const known = numberAtFront(queue) < settings.rxQueues;
  if (!known) output.warn(`Invalid rx_queue_id=${numberAtFront(queue)}`);
  const diag = known ? Errno.ENOTSUP : Errno.EINVAL;
  const call = `rx_vlan_strip_set_on_queue(port_pi=${id}, queue_id=${numberAtFront(queue)}, on=${on ? 1 : 0})`;
  output.warn(`${call} failed diag=-${diag}`);
}

const numberAtFront = (text: string): number => Number.parseInt(text, 10) || 0;

function isTag({ output }: Testpmd, tag: number): boolean {
  if (tag < TAGS) return true;
  output.warn(`Invalid vlan_id ${tag} (must be < ${TAGS})`);
  return false;
}

/** Has a port take packets of a VLAN, or not; tells whether it does. */
async function filter(testpmd: Testpmd, id: number, tag: number, on: boolean): Promise<boolean> {
  const { output } = testpmd;
  if (testpmd.portOf(id) === undefined || !isTag(testpmd, tag)) return false;
  const result = await withPort(testpmd, id, async ({ device, configured }) => {
    if (!hasBit(configured?.rxOffloads ?? 0n, RxOffload.VLAN_FILTER)) {
      output.warn(`Port ${id}: VLAN-filtering disabled`);
      return Errno.ENOSYS;
    }
    return attempt(testpmd, device.filterVlan?.(tag, on));
  });
  if (result === 0) return true;
  output.warn(`rte_eth_dev_vlan_filter(port_pi=${id}, vlan_id=${tag}, on=${on ? 1 : 0}) failed diag=-${result}`);
  return false;
}

async function filterAll(testpmd: Testpmd, id: number, on: boolean): Promise<void> {
  if (testpmd.portOf(id) === undefined) return;
  for (let tag = 0; tag < TAGS; tag++) if (!(await filter(testpmd, id, tag, on))) return;
}

function insert(testpmd: Testpmd, id: number, tag: number): void {
  const { output } = testpmd;
  const port = stoppedPort(testpmd, id);
  if (port === undefined) return;
  reconfigure(port);
  if (!isTag(testpmd, tag)) return;
  if (hasBit(port.txOffloads, TxOffload.QINQ_INSERT)) {
    output.warn('Error, as QinQ has been enabled.');
    return;
  }
  if (!hasBit(port.device.info().txOffloads, TxOffload.VLAN_INSERT)) {
    output.warn(`Error: vlan insert is not supported by port ${id}`);
    return;
  }
  insertNothing(port);
  port.txOffloads |= 1n << BigInt(TxOffload.VLAN_INSERT);
  port.txVlan = tag;
}

function insertBoth(testpmd: Testpmd, id: number, tag: number, outer: number): void {
  const port = stoppedPort(testpmd, id);
  if (port === undefined) return;
  reconfigure(port);
  if (!isTag(testpmd, tag) || !isTag(testpmd, outer)) return;
  if (!hasBit(port.device.info().txOffloads, TxOffload.QINQ_INSERT)) {
    testpmd.output.warn(`Error: qinq insert not supported by port ${id}`);
    return;
  }
  port.txOffloads |= INSERTS;
  port.txVlan = tag;
  port.txOuterVlan = outer;
}

function insertNothing(port: TestPort): void {
  port.txOffloads &= ~INSERTS;
  port.txVlan = 0;
  port.txOuterVlan = 0;
}

export const setVlanCommands: readonly Command[] = [
  command(
    'vlan set {what:strip|filter|qinq_strip|extend} {state:on|off} {port:word}',
    'what is done with tags that come',
    (testpmd, { what, state, port }) => setOffload(testpmd, what, state === 'on', port),
  ),
  command('vlan set stripq {state:on|off} {place:word}', 'the same for one queue: 0,1', (testpmd, { state, place }) =>
    stripQueue(testpmd, state === 'on', place),
  ),
  command(
    'vlan set {kind:inner|outer} tpid {type:u16} {port:u16}',
    'the type of tags, which no port here can set',
    (testpmd, { kind, type, port }) => {
      if (testpmd.portOf(port) === undefined) return;
      const number = kind === 'inner' ? 1 : 2;
      testpmd.output.warn(
        `tx_vlan_tpid_set(port_pi=${port}, vlan_type=${number}, tpid=${type}) failed diag=-${Errno.ENOTSUP}`,
      );
    },
  ),
  command(
    'rx_vlan {action:add|rm} all {port:u16}',
    'takes packets of all VLANs, or of none',
    (testpmd, { action, port }) => filterAll(testpmd, port, action === 'add'),
  ),
  command(
    'rx_vlan {action:add|rm} {tag:u16} {port:u16}',
    'takes packets of a VLAN',
    async (testpmd, { action, tag, port }) => {
      await filter(testpmd, port, tag, action === 'add');
    },
  ),
  command('tx_vlan set {port:u16} {tag:u16}', 'puts a tag into packets that are sent', (testpmd, { port, tag }) =>
    insert(testpmd, port, tag),
  ),
  command('tx_vlan set {port:u16} {tag:u16} {outer:u16}', 'puts in two', (testpmd, { port, tag, outer }) =>
    insertBoth(testpmd, port, tag, outer),
  ),
  command(
    'tx_vlan set pvid {port:u16} {tag:u16} {state:on|off}',
    "a port's own VLAN, which no port here has",
    (testpmd, { port }) => {
      testpmd.portOf(port);
    },
  ),
  command('tx_vlan reset {port:u16}', 'puts in none', (testpmd, { port }) => {
    const stopped = stoppedPort(testpmd, port);
    if (stopped === undefined) return;
    insertNothing(stopped);
    reconfigure(stopped);
  }),
];
