// Keeps a process alive when the file behind one of its mappings is truncated: the page that is gone is replaced by
// a page of zeroes, the fault is counted, and the access goes on.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace virtio_pmd {

// One guarded range. Written under a lock by the thread that maps, read without one by the signal handler.
struct GuardedRange {
  // Even when the fields below belong together, odd while they change.
  std::atomic<uint32_t> version{0};
  std::atomic<bool> writable{false};
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<uintptr_t> pageBytes{0};
  // Pages replaced so far.
  std::atomic<uint64_t> faults{0};
};

// Registers [begin, begin + bytes) and returns its entry, or nullptr when there is no memory for one. Installs the
// handler at the first call in the process; addresses outside every range go to the handler that was there before.
GuardedRange* guardRange(void* begin, size_t bytes, size_t pageBytes, bool writable);

// Takes the range out. To be called before the range is unmapped. Null is ignored.
void unguardRange(GuardedRange* range);

}  // namespace virtio_pmd
