// A shared mapping of a file: mapped once, guarded against truncation, unmapped once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "outcome.h"
#include "sigbus_guard.h"
#include "unique_fd.h"

namespace virtio_pmd {

struct MappingRequest {
  int fd = -1;
  // Any offset: the mapping begins at the page that holds it.
  uint64_t fileOffset = 0;
  uint64_t bytes = 0;
  bool readOnly = false;
  // Lock the pages into memory.
  bool lock = false;
  // Touch every page now.
  bool populate = false;
  // Memory of somebody else: no reservation for it, and none of it in core dumps.
  bool foreign = false;
};

class Mapping {
 public:
  // Maps what is asked for into `*mapping`. Fails with a range when a regular file is too short.
  static Outcome open(const MappingRequest& request, std::shared_ptr<Mapping>* mapping);

  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { unmap(); }

  // The first byte asked for; null after unmap().
  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  bool readOnly() const { return readOnly_; }
  // Whether the first byte asked for is the first of a page.
  bool startsAtPage() const { return data_ == base_; }
  // Memory of somebody else: a region of a copy engine.
  bool isForeign() const { return isForeign_; }
  // Pages that were replaced by zeroes because the file behind them is gone.
  uint64_t faults() const { return range_ == nullptr ? faultsAtEnd_ : range_->faults.load(std::memory_order_relaxed); }
  const std::atomic<uint64_t>* faultCounter() const { return &range_->faults; }

  // Unmaps. Nothing may point into the mapping any more. Idempotent.
  void unmap();
  // Drops the file but keeps the addresses, over zeroes, until the last owner is gone: for when somebody may still
  // hold a pointer that cannot be taken away.
  void blank();

 private:
  Mapping(void* base, size_t mappedBytes, uint8_t* data, const MappingRequest& request, GuardedRange* range)
      : base_(base),
        mappedBytes_(mappedBytes),
        data_(data),
        bytes_(request.bytes),
        readOnly_(request.readOnly),
        isForeign_(request.foreign),
        range_(range) {}
  void unguard();

  void* base_;
  size_t mappedBytes_;
  uint8_t* data_;
  size_t bytes_;
  bool readOnly_;
  bool isForeign_;
  GuardedRange* range_;
  uint64_t faultsAtEnd_ = 0;
};

// A memfd of `bytes` bytes, sealed against any change of size and against further seals. With `hugePageBytes`, all its
// pages are allocated now, so that a shortage is ENOSPC or ENOMEM here.
Outcome createMemory(const char* name, uint64_t bytes, uint64_t hugePageBytes, UniqueFd* memory);

}  // namespace virtio_pmd
