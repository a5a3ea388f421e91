/** Mapping events of a modern PCI device to MSI-X vectors (virtio 1.2 §4.1.5.1.2). */

import { ErrorCode, VirtioError } from '../errors.js';
import type { CommonRegisters } from './pci-modern-registers.js';

/**
 * Maps the event of a register to a vector, and verifies it.
 *
 * @param enabled number of vectors that are turned on
 * @throws VirtioError INVALID_ARGUMENT when the vector is not one of them, UNSUPPORTED when the device did not map it
 */
export function mapVector(
  registers: CommonRegisters,
  register: 'config_msix_vector' | 'queue_msix_vector',
  vector: number,
  enabled: number,
): void {
  const requirement = 'virtio 1.2 §4.1.5.1.2.2';
  if (!Number.isInteger(vector) || vector < 0 || vector >= enabled) {
    throw new VirtioError(ErrorCode.INVALID_ARGUMENT, `vector ${vector} is not one of the ${enabled} turned on`, {
      value: vector,
      requirement,
    });
  }
  registers.write(register, vector);
  // "After mapping an event to vector, the driver MUST verify success by reading the Vector field value."
  // NO_VECTOR is the failure that the document knows; any other value means as much.
  const mapped = registers.read(register);
  if (mapped !== vector) {
    throw new VirtioError(ErrorCode.UNSUPPORTED, `the device did not map ${register} to vector ${vector}`, {
      value: mapped,
      requirement,
      advice: 'poll, or use fewer vectors',
    });
  }
}
