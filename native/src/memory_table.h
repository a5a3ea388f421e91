// The memory of another address space, as regions sorted by their owner's addresses.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "mapping.h"
#include "outcome.h"

namespace virtio_pmd {

struct Region {
  // First address as the owner counts; the region ends at guestAddress + bytes, which may be 2^64 but not beyond.
  uint64_t guestAddress = 0;
  uint64_t bytes = 0;
  uint8_t* host = nullptr;
  // Counts the pages replaced by zeroes; read around a copy.
  const std::atomic<uint64_t>* faults = nullptr;
  bool readOnly = false;
  uint32_t number = 0;
  std::shared_ptr<Mapping> mapping;
};

class MemoryTable {
 public:
  // Maps `request` at `guestAddress`. Fails with a range on overflow and on overlap with a region that is there.
  Outcome add(const MappingRequest& request, uint64_t guestAddress, uint32_t* number);
  // Takes the region out and returns its mapping, still mapped; null when there is none of that number.
  std::shared_ptr<Mapping> remove(uint32_t number);
  // Takes all regions out.
  std::vector<std::shared_ptr<Mapping>> clear();

  // The region that holds `guestAddress`, or null. The pointer is good until the next add, remove or clear.
  const Region* find(uint64_t guestAddress) const;
  // Whether every byte of the range is in some region; `*writable` tells whether all of them may be written.
  bool covers(uint64_t guestAddress, uint64_t bytes, bool* writable) const;
  size_t size() const { return regions_.size(); }
  // Pages replaced in all regions, those that are gone included.
  uint64_t faults() const;

 private:
  std::vector<Region> regions_;
  uint32_t nextNumber_ = 0;
  uint64_t faultsOfRemoved_ = 0;
};

}  // namespace virtio_pmd
