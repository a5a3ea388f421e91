/** The built-in echo, with marks in the trace of garbage collections. */

import type { BackendPort, BackendPortContext } from '../../driver/backend/ports/backend-port.js';
import { createPort as createEcho, type EchoOptions } from '../../driver/backend/ports/echo.js';
import { GcMarks } from './gc-marks.js';

export interface MarkingEchoOptions extends EchoOptions {
  readonly word: SharedArrayBuffer;
}

export function createPort(context: BackendPortContext, options: MarkingEchoOptions): BackendPort {
  const echo = createEcho(context, options);
  const marks = new GcMarks(options.word);
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
