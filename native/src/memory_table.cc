#include "memory_table.h"

#include <algorithm>

namespace virtio_pmd {
namespace {

bool isBefore(uint64_t guestAddress, const Region& region) {
  return guestAddress < region.guestAddress;
}

}  // namespace

Outcome MemoryTable::add(const MappingRequest& request, uint64_t guestAddress, uint32_t* number) {
  if (request.bytes == 0) return Outcome::range("a region must not be empty");
  uint64_t last;
  if (__builtin_add_overflow(guestAddress, request.bytes - 1, &last)) {
    return Outcome::range("the region leaves the 64-bit address space");
  }
  const auto after = std::upper_bound(regions_.begin(), regions_.end(), guestAddress, isBefore);
  if (after != regions_.end() && last >= after->guestAddress) return Outcome::range("the region overlaps another one");
  if (after != regions_.begin()) {
    const Region& before = *(after - 1);
    if (guestAddress - before.guestAddress < before.bytes) return Outcome::range("the region overlaps another one");
  }

  Region region;
  const Outcome outcome = Mapping::open(request, &region.mapping);
  if (!outcome.ok()) return outcome;
  region.guestAddress = guestAddress;
  region.bytes = request.bytes;
  region.host = region.mapping->data();
  region.faults = region.mapping->faultCounter();
  region.readOnly = request.readOnly;
  region.number = nextNumber_++;
  *number = region.number;
  regions_.insert(after, std::move(region));
  return Outcome::success();
}

std::shared_ptr<Mapping> MemoryTable::remove(uint32_t number) {
  const auto found = std::find_if(regions_.begin(), regions_.end(),
                                  [number](const Region& region) { return region.number == number; });
  if (found == regions_.end()) return nullptr;
  std::shared_ptr<Mapping> mapping = std::move(found->mapping);
  faultsOfRemoved_ += mapping->faults();
  regions_.erase(found);
  return mapping;
}

std::vector<std::shared_ptr<Mapping>> MemoryTable::clear() {
  std::vector<std::shared_ptr<Mapping>> mappings;
  mappings.reserve(regions_.size());
  for (Region& region : regions_) {
    faultsOfRemoved_ += region.mapping->faults();
    mappings.push_back(std::move(region.mapping));
  }
  regions_.clear();
  return mappings;
}

const Region* MemoryTable::find(uint64_t guestAddress) const {
  const auto after = std::upper_bound(regions_.begin(), regions_.end(), guestAddress, isBefore);
  if (after == regions_.begin()) return nullptr;
  const Region& region = *(after - 1);
  return guestAddress - region.guestAddress < region.bytes ? &region : nullptr;
}

bool MemoryTable::covers(uint64_t guestAddress, uint64_t bytes, bool* writable) const {
  *writable = true;
  for (;;) {
    const Region* const region = find(guestAddress);
    if (region == nullptr) return false;
    if (region->readOnly) *writable = false;
    const uint64_t available = region->bytes - (guestAddress - region->guestAddress);
    if (bytes <= available) return true;
    bytes -= available;
    // The last region may end at 2^64: what follows is outside, not at 0.
    if (__builtin_add_overflow(guestAddress, available, &guestAddress)) return false;
  }
}

uint64_t MemoryTable::faults() const {
  uint64_t sum = faultsOfRemoved_;
  for (const Region& region : regions_) sum += region.mapping->faults();
  return sum;
}

}  // namespace virtio_pmd
