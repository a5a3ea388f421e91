/** The port of a device whose packets an application takes and gives by itself (`GuestDevice.receive` and `send`). */

import type { BackendPort, BackendPortContext, BackendPortModule, BackendPortSpec } from './backend-port.js';

export interface ApplicationPortOptions {
  /** Work that the guest's packets may leave to the application, as `PacketFlag`s. Default 0: the host does it before. */
  readonly takesWork?: number | undefined;
}

const MODULE = import.meta.url;

/** Where only an application polls: no thread of the back-end has this module. */
export const applicationPort = (options: ApplicationPortOptions = {}): BackendPortSpec => ({ module: MODULE, options });

export const isApplicationPort = ({ module }: BackendPortSpec): boolean => module === MODULE;

/** Moves nothing by itself. */
export const applicationPortModule: BackendPortModule = {
  createPort: (_context: BackendPortContext, { takesWork }: ApplicationPortOptions): BackendPort => ({
    takesWork,
    room: () => 0,
    fromGuest: () => undefined,
    toGuest: () => undefined,
    close: () => undefined,
  }),
};
