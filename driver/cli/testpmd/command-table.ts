/** All commands, by the sections of the help. */

import { captureCommands } from './commands/capture.js';
import { controlCommands } from './commands/control.js';
import { dumpCommands } from './commands/dump.js';
import { portCommands } from './commands/ports.js';
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
export const sections = {
  control: controlCommands,
  display: [
    ...showPortCommands,
    ...showForwardingCommands,
    ...showConfigurationCommands,
    ...showQueueCommands,
    ...showOffloadCommands,
    ...showRssCommands,
    ...showDeviceCommands,
    ...showAbsentCommands,
    ...dumpCommands,
    ...extraCommands,
    ...captureCommands,
  ],
  ports: portCommands,
} as const satisfies Record<string, readonly Command[]>;

export const allCommands: readonly Command[] = Object.values(sections).flat();
