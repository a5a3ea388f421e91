/** The built-in echo, that marks what its isolate's heap does. */

import type { BackendPort, BackendPortContext } from '../../driver/backend/ports/backend-port.js';
import { createPort as createEcho, type EchoOptions } from '../../driver/backend/ports/echo.js';
import { GcMarks, Isolate } from './gc-marks.js';

export interface MarkingEchoOptions extends EchoOptions {
  readonly buffer: SharedArrayBuffer;
}

export function createPort(context: BackendPortContext, options: MarkingEchoOptions): BackendPort {
  const echo = createEcho(context, options);
  const marks = new GcMarks(options.buffer, Isolate.DEVICE);
  return {
    room: (pair) => echo.room(pair),
    fromGuest: (burst, pair) => echo.fromGuest(burst, pair),
    bounce: (burst, start, pair) => echo.bounce!(burst, start, pair),
    toGuest: (burst, pair) => {
      marks.turn();
      echo.toGuest(burst, pair);
    },
    close: () => echo.close(),
  };
}
