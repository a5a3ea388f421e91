/** Where a part of a net device runs: a poll thread of the back-end, one of an application, or the control plane itself. */

import type { DeviceEvent } from './device-model.js';
import type { DeviceRequests } from './guest-devices.js';

export interface DeviceHost {
  /** Whether it is still there. */
  readonly running: boolean;
  /** Has it load a port's module; undefined when there is nothing to wait for. */
  load(module: string): Promise<void> | undefined;
  /** A number for a new device. @param lost called once when the host ends while the device is on it */
  register(event: (event: DeviceEvent) => void, lost: () => void): number;
  unregister(device: number): void;
  request<T extends keyof DeviceRequests, R = void>(type: T, payload: DeviceRequests[T]): Promise<R>;
}
