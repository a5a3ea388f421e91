/** Commands for what a port receives and is: modes, link, addresses. */

import { type Command, command } from '../console/grammar.js';
import { macOf } from '../console/token.js';
import { errnoText, type Result } from '../errno.js';
import { updateForwarding } from '../forward-control.js';
import {
  addMacAddress,
  addMulticastAddress,
  removeMacAddress,
  removeMulticastAddress,
  setLink,
  setMacAddress,
  setMode,
} from '../ports/ethdev.js';
import { macText } from '../reports/words.js';
import type { Testpmd } from '../testpmd.js';

const MODES = {
  promiscuous: 'promiscuous',
  allMulticast: 'all-multicast',
} as const;

async function setModeOf(
  testpmd: Testpmd,
  mode: keyof typeof MODES,
  ports: readonly number[],
  on: boolean,
): Promise<void> {
  for (const port of ports) {
    const result = await setMode(testpmd, port, mode, on);
    if (result === 0) continue;
    const doing = `${on ? 'enabling' : 'disabling'} ${MODES[mode]} mode for port ${port}`;
    testpmd.output.warn(`Error during ${doing}: ${errnoText(result)}`);
  }
}

const numbersOf = ({ allPorts }: Testpmd): readonly number[] => allPorts.map(({ id }) => id);

const ADDRESS_ACTIONS = {
  add: addMacAddress,
  remove: removeMacAddress,
  set: setMacAddress,
} as const satisfies Record<string, (testpmd: Testpmd, port: number, address: Uint8Array) => Promise<Result>>;

async function setPeer(testpmd: Testpmd, port: number, peer: string): Promise<void> {
  const { output, settings, ports, forwarding } = testpmd;
  if (forwarding.isRunning) return output.warn('Please stop forwarding first');
  const address = macOf(peer);
  if (!ports.has(port)) output.warn(`Error: Invalid port number ${port}`);
  else if (address === undefined) output.warn(`Error: Invalid ethernet address: ${peer}`);
  else settings.peers.set(port, address);
  testpmd.layOut();
  await updateForwarding(testpmd);
}

export const setModeCommands: readonly Command[] = [
  command('set promisc all {state:on|off}', 'all ports take every packet, or only their own', (testpmd, { state }) =>
    setModeOf(testpmd, 'promiscuous', numbersOf(testpmd), state === 'on'),
  ),
  command('set promisc {port:u16} {state:on|off}', 'the same for one port', (testpmd, { port, state }) =>
    setModeOf(testpmd, 'promiscuous', [port], state === 'on'),
  ),
  command('set allmulti all {state:on|off}', 'all ports take every multicast packet', (testpmd, { state }) =>
    setModeOf(testpmd, 'allMulticast', numbersOf(testpmd), state === 'on'),
  ),
  command('set allmulti {port:u16} {state:on|off}', 'the same for one port', (testpmd, { port, state }) =>
    setModeOf(testpmd, 'allMulticast', [port], state === 'on'),
  ),
  command('set link-up port {port:u16}', 'turns a link on', async (testpmd, { port }) => {
    if ((await setLink(testpmd, port, true)) !== 0) testpmd.output.warn('\nSet link up fail.');
  }),
  command('set link-down port {port:u16}', 'turns a link off', async (testpmd, { port }) => {
    if ((await setLink(testpmd, port, false)) !== 0) testpmd.output.warn('\nSet link down fail.');
  }),
  command('set eth-peer {port:u16} {peer:word}', 'where mac sends the packets of a port', (testpmd, { port, peer }) =>
    setPeer(testpmd, port, peer),
  ),
  command(
    'mac_addr {action:add|remove|set} {port:u16} {address:mac}',
    'addresses of a port beside its own, or its own',
    async (testpmd, { action, port, address }) => {
      const result = await ADDRESS_ACTIONS[action](testpmd, port, address);
      if (result !== 0) testpmd.output.warn(`mac_addr_cmd error: (${errnoText(result)})`);
    },
  ),
  command(
    'mcast_addr {action:add|remove} {port:u16} {address:mac}',
    'multicast addresses that a port takes',
    async (testpmd, { action, port, address }) => {
      if (((address[0] ?? 0) & 1) === 0) return testpmd.output.warn(`Invalid multicast addr ${macText(address)}`);
      await (action === 'add' ? addMulticastAddress : removeMulticastAddress)(testpmd, port, address);
    },
  ),
];
