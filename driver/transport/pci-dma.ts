/** Whether a PCI function may read and write memory: the bus master bit of its command register (PCI 3.0 §6.2.2). */

import { PciCommand, pciHeader } from '../spec/pci.js';
import type { PciFunction } from '../spec/pci-function.js';

const { offset: COMMAND } = pciHeader.fields.command;

const { offset: VENDOR_ID } = pciHeader.fields.vendor_id;
/** What the bus answers for a function that is not there (PCI 3.0 §6.1). */
const NO_VENDOR = 0xffff;

/** Whether the function is gone: its configuration space reads all ones. */
export const hasLeftBus = (fn: PciFunction): boolean => fn.readConfig16(VENDOR_ID) === NO_VENDOR;

export function allowDma(fn: PciFunction): void {
  fn.writeConfig16(COMMAND, fn.readConfig16(COMMAND) | PciCommand.MASTER);
}

export function forbidDma(fn: PciFunction): void {
  fn.writeConfig16(COMMAND, fn.readConfig16(COMMAND) & ~PciCommand.MASTER);
}
