/** Listens on the socket that LISTEN names, and ends as a process does that is killed: the file stays. */

import { createServer } from 'node:net';

createServer().listen(process.env['LISTEN'], () => process.kill(process.pid, 'SIGKILL'));
