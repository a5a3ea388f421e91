// What can be asked of a descriptor, and eventfds.
#pragma once

#include <cstdint>

#include "outcome.h"
#include "unique_fd.h"

namespace virtio_pmd {

struct DescriptorKind {
  // One of the words of native/index.ts.
  const char* kind;
  int64_t bytes;
  // F_GET_SEALS, -1 where the descriptor has no seals.
  int seals;
};

Outcome closeDescriptor(int fd);
Outcome duplicateDescriptor(int fd, UniqueFd* copy);
Outcome inspectDescriptor(int fd, DescriptorKind* kind);

Outcome createEventFd(uint32_t initial, UniqueFd* event);
// Adds one. False when that cannot be done without waiting, or at all.
bool signalEventFd(int fd);
// Takes the count; 0 when there is none.
Outcome drainEventFd(int fd, uint64_t* count);

}  // namespace virtio_pmd
