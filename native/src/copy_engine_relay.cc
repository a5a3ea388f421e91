// From one guest's memory to another's, with the first bytes from the pool: one copy where two engines' jobs would make
// two.
#include <algorithm>

#include "copy_engine.h"
#include "fault_watch.h"
#include "short_copy.h"

namespace virtio_pmd {
namespace {

// How many jobs ahead the memory of both guests is asked for; as in copy_engine.cc.
constexpr uint32_t kPrefetchDistance = 4;

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

// What a packet on its way consists of, in bytes, in this order.
struct Relayed {
  Relayed(const CopyJob& source, uint32_t headerBytes, uint32_t skip, uint32_t seen)
      : header(headerBytes),
        fromPool(source.length < skip ? 0 : std::min(source.length - skip, seen)),
        fromGuest(source.length < skip ? 0 : source.length - skip - fromPool) {}
  uint64_t length() const { return uint64_t{header} + fromPool + fromGuest; }
  uint32_t header;
  uint32_t fromPool;
  uint32_t fromGuest;
};

}  // namespace

uint32_t CopyEngine::relay(CopyEngine& to, uint32_t count, uint32_t skip, uint32_t peeked) noexcept {
  if (&to == this) return 0;
  CopyJob* const sources = list_->jobs();
  CopyJob* const jobs = to.list_->jobs();
  count = std::min(count, to.list_->capacity());
  const bool isExtended = isTranslated_ || to.isExtended_;
  const uint32_t headerBytes = to.header_.bytes;
  const uint32_t seen = std::min(peeked, UINT32_MAX - skip);
  const Region* from = lastRegion_;
  const Region* into = to.lastRegion_;
  for (uint32_t i = 0; i < count; i++) {
    if (i + kPrefetchDistance < count) {
      const CopyJob& next = jobs[i + kPrefetchDistance];
      prefetch<1>(guestAddressOf(next), kCacheLine + headerBytes, *into);
      if (next.source < list_->capacity() && sources[next.source].length > skip + seen) {
        prefetch<0>(guestAddressOf(sources[next.source]) + skip + seen, kCacheLine / 2, *from);
      }
    }
    // SAFETY: i < count <= capacity of the list.
    CopyJob& job = jobs[i];
    if (job.source >= list_->capacity()) {
      job.status = kOutsidePool;
      return i;
    }
    CopyJob& source = sources[job.source];
    const Relayed parts(source, headerBytes, skip, seen);
    const uint64_t poolOffset = source.poolOffset;
    const uint64_t fromOffset = guestAddressOf(source) - from->guestAddress;
    const uint64_t intoOffset = guestAddressOf(job) - into->guestAddress;
    // Subtractions on the side that is known to be larger, so that nothing can wrap.
    const bool isPlain = !isExtended && fromOffset < from->bytes && source.length <= from->bytes - fromOffset &&
                         intoOffset < into->bytes && parts.length() <= into->bytes - intoOffset && !into->readOnly &&
                         poolOffset <= poolBytes_ && source.length >= skip &&
                         skip + parts.fromPool <= poolBytes_ - poolOffset && parts.length() <= job.length &&
                         source.direction == kFromGuest && job.direction == kToGuest;
    if (__builtin_expect(!isPlain, 0)) {
      if (!relayOutOfLine(to, source, job, skip, seen)) return i;
      from = lastRegion_;
      into = to.lastRegion_;
      continue;
    }
    // SAFETY: [fromOffset, fromOffset + source.length) and [intoOffset, intoOffset + length) are inside their regions,
    // and [poolOffset, poolOffset + skip + fromPool) is inside the pool; skip + fromPool + fromGuest is the source's
    // length.
    uint8_t* const target = into->host + intoOffset;
    const FaultWatch fromWatch(*from);
    const FaultWatch intoWatch(*into);
    putHeader(target, to.header_.value, headerBytes);
    copyBytes(target + headerBytes, pool_ + poolOffset + skip, parts.fromPool);
    copyBytes(target + headerBytes + parts.fromPool, from->host + fromOffset + skip + parts.fromPool, parts.fromGuest);
    if (__builtin_expect(fromWatch.status() != kCopyOk || intoWatch.status() != kCopyOk, 0)) {
      source.status = fromWatch.status();
      job.status = intoWatch.status();
      return i;
    }
  }
  return count;
}

// Everything but a valid job in one piece on both sides: other regions than the last ones, several of them, windows, a
// log, and bad jobs. Both get a status.
__attribute__((noinline)) bool CopyEngine::relayOutOfLine(CopyEngine& to, CopyJob& source, CopyJob& job, uint32_t skip,
                                                          uint32_t seen) noexcept {
  const Relayed parts(source, to.header_.bytes, skip, seen);
  bool writable = false;
  // The source's state comes first: what cannot be read is nobody else's business.
  source.status = checkGuest(guestAddressOf(source), source.length, kFromGuest, &writable);
  if (source.status == kCopyOk) {
    const bool isInPool = source.length >= skip && source.poolOffset <= poolBytes_ &&
                          uint64_t{skip} + parts.fromPool <= poolBytes_ - source.poolOffset;
    if (!isInPool || source.direction != kFromGuest) source.status = kOutsidePool;
  }
  const uint64_t length = std::min<uint64_t>(parts.length(), job.length);
  job.status = to.checkGuest(guestAddressOf(job), length, kToGuest, &writable);
  if (job.status == kCopyOk) {
    if (job.direction != kToGuest)
      job.status = kOutsidePool;
    else if (!writable)
      job.status = kReadOnly;
  }
  if (source.status != kCopyOk || job.status != kCopyOk || length < parts.length()) return false;
  relayPieces(to, source, job, skip, seen);
  return source.status == kCopyOk && job.status == kCopyOk;
}

// Copies ranges that are good, region by region.
void CopyEngine::relayPieces(CopyEngine& to, CopyJob& source, CopyJob& job, uint32_t skip, uint32_t seen) noexcept {
  // Into locals: where a pool is the job list itself, a copy may change the jobs.
  const Relayed parts(source, to.header_.bytes, skip, seen);
  const uint64_t target = guestAddressOf(job);
  const uint64_t origin = guestAddressOf(source) + skip;
  const uint8_t* const pool = pool_ + source.poolOffset + skip;
  const uint64_t length = parts.length();
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
    // SAFETY: the part is inside the piece, and below inside the header, the pool's range, or the source's piece.
    uint8_t* const guest = into.region->host + into.offset;
    const FaultWatch intoWatch(*into.region);
    if (done < parts.header) {
      part = std::min<uint64_t>(part, parts.header - done);
      copyBytes(guest, to.header_.value + done, static_cast<uint32_t>(part));
    } else if (const uint64_t at = done - parts.header; at < parts.fromPool) {
      part = std::min<uint64_t>(part, parts.fromPool - at);
      copyBytes(guest, pool + at, static_cast<uint32_t>(part));
    } else {
      Piece from;
      if (!locate(origin + at, lastRegion_, &from)) {
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
