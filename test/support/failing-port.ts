/** A port of the back-end that fails where its options say so. */

import type { BackendPort, BackendPortContext } from '../../driver/backend/ports/backend-port.js';

export interface FailingPortOptions {
  readonly at: 'create' | 'room' | 'fromGuest' | 'toGuest' | 'close' | 'never';
}

export function createPort(_context: BackendPortContext, { at }: FailingPortOptions): BackendPort {
  const failAt = (place: FailingPortOptions['at']): void => {
    if (at === place) throw new Error(`it fails at ${place}`);
  };
  failAt('create');
  return {
    room: () => {
      failAt('room');
      return 64;
    },
    fromGuest: (burst) => {
      failAt('fromGuest');
      burst.free();
    },
    toGuest: () => failAt('toGuest'),
    close: () => failAt('close'),
  };
}
