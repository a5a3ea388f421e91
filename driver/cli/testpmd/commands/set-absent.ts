/** Commands for what no port here has, answered as testpmd does for a port that lacks it. */

import { type Command, command } from '../console/grammar.js';
import { Errno, errnoText, type Result } from '../errno.js';
import { withPort } from '../ports/ethdev.js';
import { isQueue } from '../ports/reconfiguration.js';
import type { Testpmd } from '../testpmd.js';

/** The most counters that queues can be mapped to (`RTE_ETHDEV_QUEUE_STAT_CNTRS`). */
const QUEUE_COUNTERS = 16;

/** ENOTSUP of a port that there is, ENODEV of one that there is not. */
const unsupported = (testpmd: Testpmd, port: number): Promise<Result> =>
  withPort(testpmd, port, async () => Errno.ENOTSUP);

/** Complains with the answer of a port, as a number or as text. */
const lacking =
  (complaint: (result: Result) => string) =>
  async (testpmd: Testpmd, { port }: { readonly port: number }): Promise<void> =>
    testpmd.output.warn(complaint(await unsupported(testpmd, port)));

const textOf = (result: Result): string => (result === 0 ? '' : errnoText(result));
const noFlowControl = lacking((result) => `cannot get current flow ctrl parameters, return code = -${result}`);
const notImplemented = (testpmd: Testpmd, { port }: { readonly port: number }): void => {
  if (testpmd.portOf(port) !== undefined) testpmd.output.warn('function not implemented');
};

function mapQueue(testpmd: Testpmd, direction: 'rx' | 'tx', port: number, queue: number, counter: number): void {
  const { output } = testpmd;
  if (testpmd.portOf(port) === undefined || !isQueue(testpmd, direction, queue)) return;
  if (counter >= QUEUE_COUNTERS) output.warn(`map_value not in required range 0..${QUEUE_COUNTERS - 1}`);
  else output.warn(`failed to set ${direction} queue stats mapping.`);
}

function limitRate(testpmd: Testpmd, port: number): void {
  if (testpmd.portOf(port) === undefined) return;
  testpmd.output.warn(`rte_eth_set_queue_rate_limit for port_id=${port} failed diag=-${Errno.ENOTSUP}`);
  testpmd.output.warn(`queue_rate_limit_cmd error: (${errnoText(Errno.ENOTSUP)})`);
}

export const setAbsentCommands: readonly Command[] = [
  command(
    'set stat_qmap {direction:rx|tx} {port:u16} {queue:u16} {counter:u8}',
    'which counter a queue has',
    (testpmd, { direction, port, queue, counter }) => mapQueue(testpmd, direction, port, queue, counter),
  ),
  command(
    'set port {port:u16} uta all {state:on|off}',
    'a hash table of addresses',
    lacking((result) => `bad unicast hash table parameter, return code = -${result}`),
  ),
  command(
    'set flow_ctrl {what:rx|tx|autoneg|mac_ctrl_frame_fwd} {state:on|off} {port:u16}',
    'pause frames',
    noFlowControl,
  ),
  command(
    'set flow_ctrl {what:high_water|low_water|pause_time|send_xon} {value:u16} {port:u16}',
    'when pause frames are sent',
    noFlowControl,
  ),
  command(
    'set flow_ctrl rx {rx:on|off} tx {tx:on|off} {high:u32} {low:u32} {pause:u16} {xon:u16} mac_ctrl_frame_fwd {frames:on|off} autoneg {autoneg:on|off} {port:u16}',
    'all of that at once',
    lacking((result) => `bad flow control parameter, return code = -${result}`),
  ),
  command(
    'rx_vxlan_port {action:add|rm} {udp:u16} {port:u16}',
    'UDP ports of tunnels',
    lacking((result) => `udp tunneling add error: (${textOf(result)})`),
  ),
  command(
    'port config {port:u16} udp_tunnel_port {action:add|rm} {kind:vxlan|geneve|vxlan-gpe|ecpri} {udp:u16}',
    'UDP ports of tunnels by their kind',
    lacking((result) => `udp tunneling port add error: (${textOf(result)})`),
  ),
  command('set port {port:u16} ptype_mask {mask:u32}', 'types of packets that are told', ({ output }, { port }) =>
    output.warn(`Port ${port} doesn't support any ptypes.`),
  ),
  command('set port {port:u16} queue {queue:u16} rate {rate:u16}', 'a rate limit', (testpmd, { port }) =>
    limitRate(testpmd, port),
  ),
  command(
    'set port {port:u16} rxq {queue:u16} avail_thresh {percent:u8}',
    'a warning before a queue runs empty',
    lacking((result) => `rxq_avail_thresh_cmd error: (${textOf(result)})`),
  ),
  command('set tx loopback {port:u16} {state:on|off}', 'packets between virtual functions', notImplemented),
  command('set all queues drop {port:u16} {state:on|off}', 'whether full queues drop', notImplemented),
  command('set vf mac addr {port:u16} {vf:u16} {address:mac}', 'the address of a virtual function', notImplemented),
];
