// The bitmap in which a front-end learns which pages of its guest were written (vhost-user, "Migration").
#pragma once

#include <cstdint>
#include <memory>

#include "mapping.h"
#include "outcome.h"

namespace virtio_pmd {

// One bit a page of guest addresses: bit page % 8 of byte page / 8.
constexpr uint64_t kLogPageShift = 12;

class DirtyLog {
 public:
  DirtyLog() = default;
  DirtyLog(const DirtyLog&) = delete;
  DirtyLog& operator=(const DirtyLog&) = delete;

  // Maps `bytes` bytes of the file at any offset. Fails with a range when it is too short; the log before stays then.
  Outcome open(int fd, uint64_t fileOffset, uint64_t bytes);
  // Idempotent.
  void close();
  bool isOpen() const { return mapping_ != nullptr; }
  // Marks every page of [guestAddress, guestAddress + bytes), as far as there are addresses. To be called after the
  // bytes are written: who takes a bit out of the log sees what was written before it was set. Nothing without a log.
  void mark(uint64_t guestAddress, uint64_t bytes) noexcept;
  // Pages that were to be marked and lie beyond the log.
  uint64_t skipped() const { return skipped_; }
  // Pages of this log and those before it that were replaced because the file behind them is gone.
  uint64_t faults() const { return faultsOfClosed_ + (mapping_ == nullptr ? 0 : mapping_->faults()); }

 private:
  std::shared_ptr<Mapping> mapping_;
  uint8_t* bitmap_ = nullptr;
  // Pages the bitmap has a bit for.
  uint64_t pages_ = 0;
  uint64_t skipped_ = 0;
  uint64_t faultsOfClosed_ = 0;
};

}  // namespace virtio_pmd
