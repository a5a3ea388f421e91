/** All commands, by the sections of the help. */

import { captureCommands } from './commands/capture.js';
import { controlCommands } from './commands/control.js';
import { dumpCommands } from './commands/dump.js';
import { type HelpSection, helpCommands } from './commands/help.js';
import { portConfigCommands } from './commands/port-config.js';
import { portQueueCommands } from './commands/port-queues.js';
import { portCommands } from './commands/ports.js';
import { setAbsentCommands } from './commands/set-absent.js';
import { setForwardingCommands } from './commands/set-forwarding.js';
import { setModeCommands } from './commands/set-modes.js';
import { setOffloadCommands } from './commands/set-offloads.js';
import { setRssCommands } from './commands/set-rss.js';
import { setVlanCommands } from './commands/set-vlan.js';
import { showAbsentCommands } from './commands/show-absent.js';
import { showConfigurationCommands } from './commands/show-configuration.js';
import { showDeviceCommands } from './commands/show-devices.js';
import { extraCommands } from './commands/show-extras.js';
import { showForwardingCommands } from './commands/show-forwarding.js';
import { showOffloadCommands } from './commands/show-offloads.js';
import { showPortCommands } from './commands/show-ports.js';
import { showQueueCommands } from './commands/show-queues.js';
import { showRssCommands } from './commands/show-rss.js';
import type { Command } from './console/grammar.js';

/** As the help lists them. */
const sections: Readonly<Record<string, HelpSection>> = {
  control: { summary: 'Start and stop forwarding.', commands: controlCommands },
  display: {
    summary: 'Displaying port, stats and config information.',
    commands: [
      ...showPortCommands,
      ...showForwardingCommands,
      ...showConfigurationCommands,
      ...showQueueCommands,
      ...showOffloadCommands,
      ...showRssCommands,
      ...showDeviceCommands,
      ...showAbsentCommands,
      ...dumpCommands,
    ],
  },
  config: {
    summary: 'Configuration information.',
    commands: [
      ...setForwardingCommands,
      ...setModeCommands,
      ...setVlanCommands,
      ...setOffloadCommands,
      ...setAbsentCommands,
    ],
  },
  ports: {
    summary: 'Configuring ports.',
    commands: [...portCommands, ...portConfigCommands, ...portQueueCommands, ...setRssCommands],
  },
  extras: { summary: 'What DPDK does not have.', commands: [...extraCommands, ...captureCommands] },
};

export const allCommands: readonly Command[] = [
  ...Object.values(sections).flatMap(({ commands }) => commands),
  ...helpCommands(sections),
];
