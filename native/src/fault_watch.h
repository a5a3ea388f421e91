// Notices pages behind a region that went while their bytes were copied.
#pragma once

#include <atomic>
#include <cstdint>

#include "copy_engine.h"

namespace virtio_pmd {

// Tells whether a page behind a region went while this is there: the SIGBUS handler runs on this thread.
class FaultWatch {
 public:
  explicit FaultWatch(const Region& region)
      : faults_(region.faults), before_(faults_->load(std::memory_order_relaxed)) {
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  uint32_t status() const {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return faults_->load(std::memory_order_relaxed) == before_ ? kCopyOk : kFault;
  }

 private:
  const std::atomic<uint64_t>* faults_;
  uint64_t before_;
};

}  // namespace virtio_pmd
