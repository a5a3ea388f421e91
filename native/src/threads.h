// The calling thread's processors, and limits of the process.
#pragma once

#include <cstdint>
#include <vector>

#include "outcome.h"

namespace virtio_pmd {

// Processor numbers are below this.
constexpr uint32_t kMaxProcessors = 8192;

// Pins the calling thread to exactly these processors; EINVAL, and no change, when it may not run on one of them.
Outcome setAffinity(const std::vector<uint32_t>& processors);
Outcome affinity(std::vector<uint32_t>* processors);
void yieldThread();
// Returns after so many nanoseconds, on the processor all the while, which a sibling of it may have meanwhile.
void pauseThread(uint64_t nanoseconds);
// Soft RLIMIT_MEMLOCK in bytes; UINT64_MAX when unlimited.
Outcome memlockLimit(uint64_t* bytes);

}  // namespace virtio_pmd
