/** Bringing a device up, by the steps of the specification (virtio 1.2 §3.1.1). */

import { ErrorCode, VirtioError } from '../errors.js';
import { describeStatus, STATUS_GONE, Status } from '../spec/status.js';
import type { Transport } from '../spec/transport.js';
import { type Negotiation, negotiate, type Wish } from './negotiation.js';

/**
 * Steps 1 to 8: resets the device, negotiates, has `setUp` configure the queues, and lets the device go live.
 *
 * On any failure the device is told (FAILED) and left reset. Returns the negotiation.
 */
export async function bringUp(
  transport: Transport,
  wanted: readonly Wish[],
  setUp: (negotiation: Negotiation) => Promise<void>,
): Promise<Negotiation> {
  try {
    // 1. Reset the device.
    await transport.reset();
    // 2. The guest OS has noticed the device.
    await addStatus(transport, Status.ACKNOWLEDGE);
    // 3. The guest OS knows how to drive the device.
    await addStatus(transport, Status.DRIVER);
    // 4. Read the feature bits, write the subset that driver and device understand.
    const negotiation = negotiate(await transport.offered(), wanted);
    await transport.accept(negotiation.features);
    // A legacy device has no steps 5 and 6 (virtio 1.2 §3.1.2).
    if (transport.kind !== 'pci-legacy') await agree(transport, negotiation);
    // 7. Device-specific setup: queues, configuration.
    await setUp(negotiation);
    // 8. The device is live.
    await addStatus(transport, Status.DRIVER_OK);
    return negotiation;
  } catch (error) {
    await giveUp(transport);
    throw error;
  }
}

/** Steps 5 and 6: no new features from here on, and the device must have agreed to these. */
async function agree(transport: Transport, negotiation: Negotiation): Promise<void> {
  await addStatus(transport, Status.FEATURES_OK);
  // "Re-read device status to ensure the FEATURES_OK bit is still set."
  const status = await transport.status();
  if (status === STATUS_GONE) throw gone(transport);
  if ((status & Status.FEATURES_OK) !== 0) return;
  throw new VirtioError(
    ErrorCode.NEGOTIATION_FAILED,
    `the device at ${transport.address} refuses the features ${negotiation.features}`,
    {
      value: describeStatus(status),
      requirement: 'virtio 1.2 §3.1.1 step 6',
      advice: 'offer it fewer features, or look at its log',
    },
  );
}

/** Adds one bit; a bit is never taken back but by a reset (virtio 1.2 §2.1.1). */
async function addStatus(transport: Transport, bit: number): Promise<void> {
  const status = await transport.status();
  if (status === STATUS_GONE) throw gone(transport);
  await transport.setStatus(status | bit);
}

/** Says that we gave up, then resets, so that the device does not hold on to our memory. Never fails. */
async function giveUp(transport: Transport): Promise<void> {
  try {
    await addStatus(transport, Status.FAILED);
    await transport.reset();
  } catch {
    // The failure that brought us here says more than this one.
  }
}

const gone = (transport: Transport): VirtioError =>
  new VirtioError(ErrorCode.PEER_GONE, `the device at ${transport.address} is gone: its status reads all ones`, {
    value: STATUS_GONE,
    requirement: 'virtio 1.2 §2.1',
    advice: 'check that the device is still plugged in, then open it again',
  });
