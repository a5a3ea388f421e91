/** Reports about what none of the ports here has, answered as testpmd does for a port that lacks it. */

import { type Command, command } from '../console/grammar.js';
import { Errno, errnoText } from '../errno.js';
import { validPorts } from '../reports/port-info.js';
import type { Testpmd } from '../testpmd.js';

const FUNCTION_MISSING = 'Function not implemented';

/** Complains with `text` of a port that there is. */
const lacking =
  (text: string) =>
  (testpmd: Testpmd, { port }: { readonly port: number }): void => {
    if (testpmd.portOf(port) !== undefined) testpmd.output.warn(text);
  };

/** The same where testpmd names a port that there is not in other words. */
const lackingOf =
  (invalid: (port: number) => string, text: (port: number) => string) =>
  ({ output, ports }: Testpmd, { port }: { readonly port: number }): void =>
    output.warn(ports.has(port) ? text(port) : invalid(port));

const lackingErrorControl = lackingOf(
  (port) => `Invalid port id ${port}`,
  () => FUNCTION_MISSING,
);
/** What traffic management and metering say to anything. */
const unmanaged = lacking(`cause unspecified: ${FUNCTION_MISSING} (error 1)`);

function showEeprom({ allPorts, output, ports }: Testpmd, { port }: { readonly port: number }): void {
  if (ports.has(port)) {
    output.warn('operation not supported by device');
  } else {
    output.warn(`Invalid port ${port}`);
    output.say(validPorts(allPorts));
  }
}

function showFlowControl({ output, ports }: Testpmd, { port }: { readonly port: number }): void {
  if (!ports.has(port)) output.warn(`Invalid port_id=${port}`);
  const errno = ports.has(port) ? Errno.ENOTSUP : Errno.ENODEV;
  output.warn(`Failed to get current flow ctrl information: err = -${errno}`);
}

/** A function of a card that it does not have has counted nothing. */
function showVirtualFunction(testpmd: Testpmd, { port, vf }: { readonly port: number; readonly vf: number }): void {
  const { output } = testpmd;
  if (testpmd.portOf(port) === undefined) return;
  output.warn('function not implemented');
  const border = '#'.repeat(24);
  output.say(`\n  ${border} NIC statistics for port ${String(port).padEnd(2)} vf ${String(vf).padEnd(2)} ${border}`);
  output.say('  RX-packets: 0          RX-missed: 0          RX-bytes:  0');
  output.say('  RX-errors: 0');
  output.say('  RX-nombuf:  0         ');
  output.say('  TX-packets: 0          TX-errors: 0          TX-bytes:  0');
  output.say(`  ${border}############################${border}`);
}

function showTransferProxy({ output, ports }: Testpmd, { port }: { readonly port: number }): void {
  output.say('');
  output.warn(`Failed to pick transfer proxy: ${ports.has(port) ? FUNCTION_MISSING : errnoText(Errno.ENODEV)}`);
}

const showBonding =
  (text: (port: number) => string) =>
  ({ output, ports }: Testpmd, { port }: { readonly port: number }): void => {
    if (!ports.has(port)) output.warn(`Invalid port_id=${port}`);
    output.warn(text(port));
  };

function showTransmitMetadata({ output, ports }: Testpmd, { port }: { readonly port: number }): void {
  if (ports.has(port)) output.say(`Port ${port} tx_metadata: 0`);
  else output.warn(`invalid port id ${port}`);
}

const layers = ['L2', 'L3', 'L4', 'Tunnel', 'Inner L2', 'Inner L3', 'Inner L4'] as const;

/** Kinds of packets that a driver tells apart for each packet that it receives: none of those here does. */
function showPacketTypes({ output, ports }: Testpmd, { port }: { readonly port: number }): void {
  if (ports.has(port)) for (const layer of layers) output.say(`${layer} ptypes unsupported`);
  else output.warn(`Invalid port_id=${port}`);
}

function showReceiveOffload({ output, ports }: Testpmd, { port }: { readonly port: number }): void {
  if (ports.has(port)) output.say(`Port ${port} doesn't enable GRO.`);
  else output.warn(`Invalid port id ${port}.`);
}

function showSegmentationOffload({ output, ports }: Testpmd, { port }: { readonly port: number }): void {
  if (ports.has(port)) output.say(`GSO is not enabled on Port ${port}`);
  else output.warn(`invalid port id ${port}`);
}

export const showAbsentCommands: readonly Command[] = [
  command('show port {port:u16} {what:eeprom|module_eeprom}', 'the memory of a card or of its module', showEeprom),
  command('show port {port:u16} ptypes', 'kinds of packets that a port tells apart', showPacketTypes),
  command('show port {port:u16} gro', 'packets that are joined as they are received', showReceiveOffload),
  command('show port {port:u16} gso', 'packets that are cut as they are sent', showSegmentationOffload),
  command('show port {port:u16} flow_ctrl', 'pause frames', showFlowControl),
  command('show port {port:u16} fec_mode', 'forward error correction', lackingErrorControl),
  command('show port {port:u16} fec capabilities', 'forward error correction that there could be', lackingErrorControl),
  command(
    'show port info {port:u16} representor',
    'ports that stand for others',
    lackingOf(
      (port) => `Invalid port id ${port}`,
      (port) => `Failed to get the number of representor info ranges for port ${port}: ${errnoText(Errno.ENOTSUP)}`,
    ),
  ),
  command('show port {port:u16} tx_metadata', 'metadata of packets that are sent', showTransmitMetadata),
  command('show port {port:u16} flow transfer proxy', 'who manages flow rules of a port', showTransferProxy),
  command('show port tm cap {port:u16}', 'traffic management', unmanaged),
  command('show port tm level cap {port:u16} {level:u32}', 'traffic management of a level', unmanaged),
  command('show port tm node cap {port:u16} {node:u32}', 'traffic management of a node', unmanaged),
  command('show port tm node type {port:u16} {node:u32}', 'what a node of traffic management is', unmanaged),
  command(
    'show port tm node stats {port:u16} {node:u32} {clear:u32}',
    'what a node of traffic management counted',
    unmanaged,
  ),
  command('show port meter cap {port:u16}', 'metering', unmanaged),
  command('show port meter stats {port:u16} {meter:u32} {clear:yes|no}', 'what a meter counted', unmanaged),
  command('show vf stats {port:u16} {vf:u16}', 'statistics of a virtual function', showVirtualFunction),
  command('clear vf stats {port:u16} {vf:u16}', 'the same begin at 0', lacking('function not implemented')),
  command(
    'show bonding config {port:u16}',
    'how a bonded port is set up',
    showBonding((port) => `\tFailed to get bonding mode for port = ${port}`),
  ),
  command(
    'show bonding lacp info {port:u16}',
    'link aggregation of a bonded port',
    showBonding(() => '\tBonding mode is not mode 4'),
  ),
];
