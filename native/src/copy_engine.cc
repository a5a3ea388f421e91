#include "copy_engine.h"

#include <sys/mman.h>

#include <new>

#include "short_copy.h"

namespace virtio_pmd {
namespace {

// How many jobs ahead the guest's memory is asked for: its lines come from another core's cache. Costs nothing that
// could be measured; a core whose window spans several jobs (Zen 4) gains nothing from it, smaller ones do
// (native/test/copy_bench.cc).
constexpr uint32_t kPrefetchDistance = 6;
constexpr size_t kCacheLine = 64;

uint64_t guestAddressOf(const CopyJob& job) {
  return job.guestLow | static_cast<uint64_t>(job.guestHigh) << 32;
}

// Asks for the first lines of a job that lies in `region`; anything else waits for its turn.
inline void prefetch(const CopyJob& job, const Region& region) {
  const uint64_t offset = guestAddressOf(job) - region.guestAddress;
  if (offset >= region.bytes) return;
  // SAFETY: the address is inside the region; the next line may be outside, but a prefetch never faults.
  const uint8_t* const address = region.host + offset;
  const bool twoLines = (reinterpret_cast<uintptr_t>(address) & (kCacheLine - 1)) + job.length > kCacheLine;
  if (job.direction == kToGuest) {
    __builtin_prefetch(address, 1);
    if (twoLines) __builtin_prefetch(address + kCacheLine, 1);
  } else {
    __builtin_prefetch(address, 0);
    if (twoLines) __builtin_prefetch(address + kCacheLine, 0);
  }
}

}  // namespace

const Region CopyEngine::kNoRegion;

std::shared_ptr<JobList> JobList::create(uint32_t capacity) {
  // Fresh pages: zero, and none of them there before it is used, for few lists are ever used to their end.
  const size_t bytes = static_cast<size_t>(capacity) * sizeof(CopyJob);
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  std::shared_ptr<JobList> list(new (std::nothrow) JobList(static_cast<CopyJob*>(memory), capacity));
  if (list == nullptr) munmap(memory, bytes);
  return list;
}

JobList::~JobList() {
  munmap(jobs_, static_cast<size_t>(capacity_) * sizeof(CopyJob));
}

Outcome CopyEngine::addRegion(const MappingRequest& request, uint64_t guestAddress, uint32_t* number) {
  lastRegion_ = &kNoRegion;
  return memory_.add(request, guestAddress, number);
}

std::shared_ptr<Mapping> CopyEngine::removeRegion(uint32_t number) {
  lastRegion_ = &kNoRegion;
  return memory_.remove(number);
}

std::vector<std::shared_ptr<Mapping>> CopyEngine::removeAllRegions() {
  lastRegion_ = &kNoRegion;
  return memory_.clear();
}

uint32_t CopyEngine::run(uint32_t count) noexcept {
  CopyJob* const jobs = list_->jobs();
  uint32_t failed = 0;
  if (__builtin_expect(count > list_->capacity(), 0)) {
    failed = count - list_->capacity();
    count = list_->capacity();
  }
  const Region* region = lastRegion_;
  for (uint32_t i = 0; i < kPrefetchDistance && i < count; i++) prefetch(jobs[i], *region);

  for (uint32_t i = 0; i < count; i++) {
    // SAFETY: i < count <= capacity of the list.
    CopyJob& job = jobs[i];
    if (i + kPrefetchDistance < count) prefetch(jobs[i + kPrefetchDistance], *region);

    const uint64_t length = job.length;
    const uint64_t offset = guestAddressOf(job) - region->guestAddress;
    const uint64_t poolOffset = job.poolOffset;
    // Subtractions on the side that is known to be larger, so that nothing can wrap.
    const bool isPlain = offset < region->bytes && length <= region->bytes - offset && poolOffset <= poolBytes_ &&
                         length <= poolBytes_ - poolOffset &&
                         (job.direction == kFromGuest || (job.direction == kToGuest && !region->readOnly));
    if (__builtin_expect(!isPlain, 0)) {
      if (!runOutOfLine(job, region)) failed++;
      continue;
    }
    const uint64_t faultsBefore = region->faults->load(std::memory_order_relaxed);
    // SAFETY: [offset, offset + length) is inside the region and [poolOffset, poolOffset + length) inside the pool.
    uint8_t* const guest = region->host + offset;
    uint8_t* const pool = pool_ + poolOffset;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (job.direction == kFromGuest) {
      copyBytes(pool, guest, job.length);
    } else {
      copyBytes(guest, pool, job.length);
    }
    // The SIGBUS handler runs on this thread, between these two fences.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    const bool faulted = region->faults->load(std::memory_order_relaxed) != faultsBefore;
    job.status = faulted ? kFault : kCopyOk;
    failed += faulted ? 1 : 0;
  }
  lastRegion_ = region;
  return failed;
}

// Everything but a valid job in the region of the one before: other regions, several of them, and bad jobs.
__attribute__((noinline)) bool CopyEngine::runOutOfLine(CopyJob& job, const Region*& region) noexcept {
  const uint64_t length = job.length;
  uint64_t guestAddress = guestAddressOf(job);
  const uint64_t poolOffset = job.poolOffset;
  bool writable = false;
  if (!memory_.covers(guestAddress, length, &writable)) {
    job.status = kOutsideMemory;
    return false;
  }
  if (poolOffset > poolBytes_ || length > poolBytes_ - poolOffset || job.direction > kToGuest) {
    job.status = kOutsidePool;
    return false;
  }
  const bool toGuest = job.direction == kToGuest;
  if (toGuest && !writable) {
    job.status = kReadOnly;
    return false;
  }

  bool faulted = false;
  uint64_t done = 0;
  do {
    region = memory_.find(guestAddress);
    const uint64_t offset = guestAddress - region->guestAddress;
    const uint64_t available = region->bytes - offset;
    const uint64_t part = available < length - done ? available : length - done;
    // SAFETY: covers() found every byte of the range in a region, `part` ends at this one's end at the latest, and
    // [poolOffset, poolOffset + length) is inside the pool.
    uint8_t* const guest = region->host + offset;
    uint8_t* const pool = pool_ + poolOffset + done;
    const uint64_t faultsBefore = region->faults->load(std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (toGuest) {
      copyBytes(guest, pool, static_cast<uint32_t>(part));
    } else {
      copyBytes(pool, guest, static_cast<uint32_t>(part));
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (region->faults->load(std::memory_order_relaxed) != faultsBefore) faulted = true;
    done += part;
    guestAddress += part;
  } while (done < length);
  job.status = faulted ? kFault : kCopyOk;
  return !faulted;
}

}  // namespace virtio_pmd
