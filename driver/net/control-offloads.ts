/** Which of the accepted offloads are on (virtio 1.2 §5.1.6.5.8). */

import { ControlClass, GuestOffloadBit, GuestOffloadsCommand, guestOffloadsOf } from '../spec/control.js';
import { type Feature, featureName } from '../spec/features.js';
import { offloadsData } from './control-requests.js';
import { type ControlSender, checkSetting, type KeptSettings } from './control-sender.js';

export class GuestOffloads implements KeptSettings {
  readonly #sender: ControlSender;
  #offloads: readonly Feature[] | undefined;

  constructor(sender: ControlSender) {
    this.#sender = sender;
  }

  async set(offloads: readonly Feature[]): Promise<void> {
    await this.#send(offloads);
    this.#offloads = [...offloads];
  }

  async restore(): Promise<void> {
    if (this.#offloads !== undefined) await this.#send(this.#offloads);
  }
  forget(): void {
    this.#offloads = undefined;
  }

  /** "A driver MUST NOT enable an offload for which the appropriate feature has not been negotiated" (virtio 1.2 §5.1.6.5.8.1). */
  async #send(offloads: readonly Feature[]): Promise<void> {
    const features = this.#sender.accepted(ControlClass.GUEST_OFFLOADS, GuestOffloadsCommand.SET);
    const accepted = guestOffloadsOf(features);
    let bits = 0n;
    for (const feature of offloads) {
      const bit = GuestOffloadBit[featureName(feature) as keyof typeof GuestOffloadBit] as number | undefined;
      checkSetting(bit !== undefined, `${featureName(feature)} is no offload of packets for the guest`, feature);
      if ((accepted & (1n << BigInt(bit!))) === 0n) throw this.#sender.unsupported([feature], featureName(feature));
      bits |= 1n << BigInt(bit!);
    }
    await this.#sender.send(ControlClass.GUEST_OFFLOADS, GuestOffloadsCommand.SET, offloadsData(bits));
  }
}
