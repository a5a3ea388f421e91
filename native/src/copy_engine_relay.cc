// From one guest's memory to another's, with the first bytes from the pool: one copy where two engines' jobs would make
// two.
#include <algorithm>

#include "copy_engine.h"
#include "short_copy.h"

namespace virtio_pmd {
namespace {

// How many jobs ahead the memory of both guests is asked for; as in copy_engine.cc.
constexpr uint32_t kPrefetchDistance = 4;
constexpr size_t kCacheLine = 64;

// Asks for the lines of a range's first bytes, where it begins in `region`.
template <int kForWriting>
inline void prefetch(uint64_t address, uint32_t length, const Region& region) {
  const uint64_t offset = address - region.guestAddress;
  if (offset >= region.bytes) return;
  // SAFETY: the address is inside the region; the next line may be outside, but a prefetch never faults.
  const uint8_t* const host = region.host + offset;
  __builtin_prefetch(host, kForWriting);
  if ((reinterpret_cast<uintptr_t>(host) & (kCacheLine - 1)) + length > kCacheLine) {
    __builtin_prefetch(host + kCacheLine, kForWriting);
  }
}

// How far a source is looked at: what is short enough to be all in the pool needs no bytes of it.
uint64_t bytesRead(uint64_t skip, uint64_t rest) {
  return rest == 0 ? 0 : skip + rest;
}

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

}  // namespace

uint32_t CopyEngine::relay(CopyEngine& to, uint32_t count, uint32_t skip, uint32_t head) noexcept {
  if (&to == this) return count;
  CopyJob* const sources = list_->jobs();
  CopyJob* const jobs = to.list_->jobs();
  uint32_t failed = 0;
  if (count > to.list_->capacity()) {
    failed = count - to.list_->capacity();
    count = to.list_->capacity();
  }
  const bool isExtended = isTranslated_ || to.isExtended_;
  const Region* from = lastRegion_;
  const Region* into = to.lastRegion_;
  for (uint32_t i = 0; i < count; i++) {
    if (i + kPrefetchDistance < count) {
      const CopyJob& next = jobs[i + kPrefetchDistance];
      prefetch<1>(guestAddressOf(next), next.length, *into);
      if (next.length > head && next.source < list_->capacity()) {
        prefetch<0>(guestAddressOf(sources[next.source]) + skip, next.length - head, *from);
      }
    }
    // SAFETY: i < count <= capacity of the list.
    CopyJob& job = jobs[i];
    if (job.source >= list_->capacity()) {
      job.status = kOutsidePool;
      failed++;
      continue;
    }
    CopyJob& source = sources[job.source];
    const uint64_t length = job.length;
    const uint64_t poolOffset = job.poolOffset;
    const uint64_t first = std::min(job.length, head);
    const uint64_t rest = length - first;
    const uint64_t read = bytesRead(skip, rest);
    const uint64_t fromOffset = guestAddressOf(source) - from->guestAddress;
    const uint64_t intoOffset = guestAddressOf(job) - into->guestAddress;
    // Subtractions on the side that is known to be larger, so that nothing can wrap.
    const bool isPlain = !isExtended && fromOffset < from->bytes && read <= from->bytes - fromOffset &&
                         intoOffset < into->bytes && length <= into->bytes - intoOffset && !into->readOnly &&
                         poolOffset <= to.poolBytes_ && first <= to.poolBytes_ - poolOffset &&
                         source.direction == kFromGuest && job.direction == kToGuest;
    if (__builtin_expect(!isPlain, 0)) {
      if (!relayOutOfLine(to, source, job, skip, head)) failed++;
      from = lastRegion_;
      into = to.lastRegion_;
      continue;
    }
    // SAFETY: [fromOffset, fromOffset + read) and [intoOffset, intoOffset + length) are inside their regions,
    // and [poolOffset, poolOffset + first) is inside the pool.
    const uint8_t* const guest = from->host + fromOffset + (read - rest);
    uint8_t* const target = into->host + intoOffset;
    const FaultWatch fromWatch(*from);
    const FaultWatch intoWatch(*into);
    copyBytes(target, to.pool_ + poolOffset, static_cast<uint32_t>(first));
    copyBytes(target + first, guest, static_cast<uint32_t>(rest));
    source.status = fromWatch.status();
    job.status = intoWatch.status();
    failed += source.status == kCopyOk && job.status == kCopyOk ? 0 : 1;
  }
  return failed;
}

// Everything but a valid job in one piece on both sides: other regions than the last ones, several of them, windows, a
// log, and bad jobs.
__attribute__((noinline)) bool CopyEngine::relayOutOfLine(CopyEngine& to, CopyJob& source, CopyJob& job, uint32_t skip,
                                                          uint32_t head) noexcept {
  const uint64_t first = std::min(job.length, head);
  bool writable = false;
  // The source's state comes first: what cannot be read is nobody else's business.
  source.status = checkGuest(guestAddressOf(source), bytesRead(skip, job.length - first), kFromGuest, &writable);
  if (source.direction != kFromGuest) source.status = kOutsidePool;
  job.status = to.checkGuest(guestAddressOf(job), job.length, kToGuest, &writable);
  if (job.status == kCopyOk) {
    const bool isInPool = job.poolOffset <= to.poolBytes_ && first <= to.poolBytes_ - job.poolOffset;
    if (!isInPool || job.direction != kToGuest)
      job.status = kOutsidePool;
    else if (!writable)
      job.status = kReadOnly;
  }
  if (source.status != kCopyOk || job.status != kCopyOk) return false;
  relayPieces(to, source, job, skip, head);
  return source.status == kCopyOk && job.status == kCopyOk;
}

// Copies ranges that are good, region by region.
void CopyEngine::relayPieces(CopyEngine& to, CopyJob& source, CopyJob& job, uint32_t skip, uint32_t head) noexcept {
  // Into locals: where a pool is the job list itself, a copy may change the jobs.
  const uint64_t target = guestAddressOf(job);
  const uint64_t origin = guestAddressOf(source) + skip;
  const uint64_t length = job.length;
  const uint64_t first = std::min(job.length, head);
  const uint8_t* const pool = to.pool_ + job.poolOffset;
  uint32_t sourceStatus = kCopyOk;
  uint32_t status = kCopyOk;
  for (uint64_t done = 0; done < length;) {
    Piece into;
    // Never fails after the checks; a job that did would end here, and not well.
    if (!to.locate(target + done, to.lastRegion_, &into)) {
      status = kOutsideMemory;
      break;
    }
    to.lastRegion_ = into.region;
    uint64_t part = std::min(into.bytes, length - done);
    // SAFETY: the part is inside the piece, and below inside that of the source, or inside the pool.
    uint8_t* const guest = into.region->host + into.offset;
    const FaultWatch intoWatch(*into.region);
    if (done < first) {
      part = std::min(part, first - done);
      copyBytes(guest, pool + done, static_cast<uint32_t>(part));
    } else {
      Piece from;
      if (!locate(origin + (done - first), lastRegion_, &from)) {
        sourceStatus = kOutsideMemory;
        break;
      }
      lastRegion_ = from.region;
      part = std::min(part, from.bytes);
      const FaultWatch fromWatch(*from.region);
      copyBytes(guest, from.region->host + from.offset, static_cast<uint32_t>(part));
      if (fromWatch.status() != kCopyOk) sourceStatus = kFault;
    }
    if (intoWatch.status() != kCopyOk) status = kFault;
    to.log_.mark(into.guestAddress, part);
    done += part;
  }
  source.status = sourceStatus;
  job.status = status;
}

}  // namespace virtio_pmd
