/** Whether a PCI function may read and write memory: the bus master bit of its command register (PCI 3.0 §6.2.2). */

import { PciCommand, pciHeader } from '../spec/pci.js';
import type { PciFunction } from '../spec/pci-function.js';

const { offset: COMMAND } = pciHeader.fields.command;

export function allowDma(fn: PciFunction): void {
  fn.writeConfig16(COMMAND, fn.readConfig16(COMMAND) | PciCommand.MASTER);
}

export function forbidDma(fn: PciFunction): void {
  fn.writeConfig16(COMMAND, fn.readConfig16(COMMAND) & ~PciCommand.MASTER);
}
