// What is known of a guest's IOMMU: ranges of I/O addresses and the guest addresses they stand for.
//
// A cache and no more: whatever is not here can be asked for, so anything may be forgotten at any time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "outcome.h"

namespace virtio_pmd {

// What a window allows: bits by direction of a copy.
constexpr uint32_t kWindowReadable = 1u << 0;
constexpr uint32_t kWindowWritable = 1u << 1;

struct Window {
  uint64_t iova = 0;
  // Bytes less one, for a window may be all 2^64 of them.
  uint64_t lastOffset = 0;
  uint64_t guestAddress = 0;
  uint32_t access = 0;

  uint64_t lastIova() const { return iova + lastOffset; }
};

class TranslationWindows {
 public:
  // As many as DPDK's vhost keeps. Bounds what a guest can make us hold by asking for ever more.
  static constexpr size_t kMost = 2048;

  // Adds a window in place of what it overlaps. Where there are too many, others go at random, so that no order of
  // accesses is worst for us. Fails with a range when either side leaves the 64-bit addresses.
  Outcome add(const Window& window);
  // Forgets every window that has an address from `iova` to `iova + lastOffset`, or to the last address there is.
  void remove(uint64_t iova, uint64_t lastOffset);
  void clear();
  // The window that holds `iova`, or null. The pointer is good until the next change.
  const Window* find(uint64_t iova) const noexcept;
  // Whether windows that allow all of `access` cover [iova, iova + bytes), or `iova` alone when `bytes` is 0. Otherwise
  // `*bad` is the first address that none covers, and `*isKnown` tells whether a window with too little access does.
  // Addresses past the last one there is count as covered.
  bool allow(uint64_t iova, uint64_t bytes, uint32_t access, uint64_t* bad, bool* isKnown) const noexcept;
  size_t size() const { return windows_.size(); }

 private:
  uint32_t nextRandom();

  // Sorted, without overlaps.
  std::vector<Window> windows_;
  // Where the last search ended; whatever is there by now is looked at before it is used.
  mutable size_t lastHit_ = 0;
  uint32_t random_ = 1;
};

}  // namespace virtio_pmd
