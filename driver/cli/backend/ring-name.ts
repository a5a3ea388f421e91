/** What rings are called. */

const CONTROL_QUEUE = 'controlq';

/** Whether a ring of a device is its control queue (virtio 1.2 §5.1.2). */
export const isControl = (ring: number, queuePairs: number): boolean => ring === 2 * queuePairs;

/** `receiveq 0`, `transmitq 0`, `receiveq 1`, …, `controlq`: the guest's names, with the number of the pair. */
export const ringName = (ring: number, queuePairs: number): string =>
  isControl(ring, queuePairs) ? CONTROL_QUEUE : `${ring % 2 === 0 ? 'receiveq' : 'transmitq'} ${ring >> 1}`;
