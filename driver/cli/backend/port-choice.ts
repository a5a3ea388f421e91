/** Which port a connection's device gets: `--mode` and what belongs to it. */

import { statSync } from 'node:fs';
import { extname } from 'node:path';
import { echoPort, icmpEchoPort, pcapPort, sinkPort, sourcePort, switchPort } from '../../backend/ports/built-in.js';
import { ErrorCode, VirtioError } from '../../errors.js';
import type { BackendPortSpec, SwitchFabric } from '../../index.js';
import { PcapReader } from '../../pcap/pcap-reader.js';
import { PcapWriter } from '../../pcap/pcap-writer.js';
import { type BackendOptions, modeOf } from './options.js';

/**
 * The port of connection `connection`, which counts from 1 over all sockets.
 *
 * @param fabric joins the switch over several threads
 */
export function choosePort(options: BackendOptions, connection: number, fabric?: SwitchFabric): BackendPortSpec {
  switch (modeOf(options)) {
    case 'echo':
      return echoPort();
    case 'icmpecho':
      return icmpEchoPort();
    case 'switch':
      return switchPort({ fabric });
    case 'sink':
      return sinkPort();
    case 'source':
      return sourcePort({ bytes: options.size, rate: options.rate });
    case 'pcap':
      return pcapPort({ input: options.pcapIn, output: options.pcapOut && outputOf(options.pcapOut, connection) });
  }
}

/** `vm.pcap` for the first connection, `vm.2.pcap` for the second: none may overwrite what another stored. */
export function outputOf(path: string, connection: number): string {
  if (connection === 1) return path;
  const ending = extname(path);
  return `${path.slice(0, path.length - ending.length)}.${connection}${ending}`;
}

/** Finds files that cannot be read or written, or are the same, before any guest is there. @throws VirtioError */
export function checkFiles({ pcapIn, pcapOut }: BackendOptions): void {
  if (pcapIn !== undefined) PcapReader.open(pcapIn).close();
  if (pcapOut === undefined) return;
  const input = pcapIn === undefined ? undefined : statSync(pcapIn);
  const output = statSync(pcapOut, { throwIfNoEntry: false });
  if (input !== undefined && output !== undefined && input.dev === output.dev && input.ino === output.ino) {
    throw new VirtioError(
      ErrorCode.INVALID_ARGUMENT,
      `--pcap-out would overwrite the capture of --pcap-in, ${pcapIn}`,
      {
        value: pcapOut,
        advice: 'name another file',
      },
    );
  }
  // An empty capture until a guest is there; it says better than a look at permissions whether it can be written.
  PcapWriter.create(pcapOut).close();
}
