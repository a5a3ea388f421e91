/** What a vhost-user front-end is opened with. */

import { randomBytes } from 'node:crypto';
import { ErrorCode, VirtioError } from '../errors.js';
import { caps } from '../spec/caps.js';
import { MAC_BYTES } from '../spec/net-config.js';
import { checkSocketPath } from '../wire/unix-endpoint.js';

export interface VhostUserTransportOptions {
  /** Listen at the path and wait for the back-end to connect, rather than connect to it. */
  readonly server?: boolean;
  /** The port's address; a random one, locally administered, without it. */
  readonly macAddress?: Uint8Array;
  /** Queue pairs that will be used, 1 to 128. */
  readonly queuePairs: number;
  /** Connect (or accept) again when the back-end goes away. */
  readonly reconnect?: boolean;
  /**
   * The back-end stops and starts single rings while the others run: RING_RESET is offered. Default false: the protocol
   * has it so, and nothing tells whether a back-end can. DPDK's `net_vhost` (22.11) stops them all, and does not go on with
   * those that were not stopped.
   */
  readonly ringReset?: boolean;
  /** Longest wait for an answer (10 s without it), and for a back-end to connect (no limit without it). */
  readonly timeoutMs?: number;
  /** Aborts `open`. */
  readonly signal?: AbortSignal;
}

/** @throws VirtioError INVALID_ARGUMENT */
export function checkOptions(path: string, options: VhostUserTransportOptions): void {
  checkSocketPath(path);
  const { queuePairs, macAddress } = options;
  if (!Number.isInteger(queuePairs) || queuePairs < 1 || queuePairs > caps.queuePairs) {
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `${queuePairs} queue pairs are not 1 to ${caps.queuePairs}`, {
      value: queuePairs,
    });
  }
  if (macAddress !== undefined && !isUnicastMac(macAddress)) {
    throw new VirtioError(
      ErrorCode.INVALID_ARGUMENT,
      'a port needs a MAC address of 6 bytes that is no group and not 0',
      {
        value: macAddress,
      },
    );
  }
}

/** Whether these are the bytes of one port's MAC address. */
export const isUnicastMac = (mac: Uint8Array): boolean =>
  mac.length === MAC_BYTES && (mac[0]! & 1) === 0 && mac.some((byte) => byte !== 0);

/** A MAC address that is locally administered, and no group. */
export function randomMac(): Uint8Array {
  const mac = randomBytes(MAC_BYTES);
  mac[0] = (mac[0]! & 0xfc) | 0x02;
  return mac;
}
