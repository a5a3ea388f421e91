#include "copy_engine.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "fault_watch.h"
#include "short_copy.h"

namespace virtio_pmd {
namespace {

// How many jobs ahead the guest's memory is asked for: its lines come from another core's cache. Costs nothing that
// could be measured; a core whose window spans several jobs (Zen 4) gains nothing from it, smaller ones do
// (native/test/copy_bench.cc).
constexpr uint32_t kPrefetchDistance = 6;

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

// Copies either way and returns the status.
// SAFETY: the caller gives `bytes` bytes at both addresses, those of the guest inside `region`.
inline uint32_t copyWatched(const Region& region, uint8_t* guest, uint8_t* pool, uint32_t bytes, bool toGuest) {
  const FaultWatch watch(region);
  if (toGuest) {
    copyBytes(guest, pool, bytes);
  } else {
    copyBytes(pool, guest, bytes);
  }
  return watch.status();
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

// Whether a task has jobs of this direction, and the region may be used so.
template <CopyEngine::Task kTask>
inline bool CopyEngine::allows(const CopyJob& job, const Region& region, uint32_t headerBytes) noexcept {
  const bool isIntoGuest = job.direction == kToGuest && !region.readOnly;
  if (kTask == Task::kDeliver) return isIntoGuest && job.length >= headerBytes;
  return job.direction == kFromGuest || isIntoGuest;
}

// Everything about `kTask`, and `most` but for kPeek, is known when this is compiled. With kPeek each job gets, in
// `source`, the first of the jobs just before it that brought the same bytes; that of a job alone is its own.
template <CopyEngine::Task kTask>
inline __attribute__((always_inline)) uint32_t CopyEngine::runJobs(uint32_t count, uint32_t most,
                                                                   uint32_t skip) noexcept {
  CopyJob* const jobs = list_->jobs();
  uint32_t failed = 0;
  if (__builtin_expect(count > list_->capacity(), 0)) {
    failed = count - list_->capacity();
    count = list_->capacity();
  }
  if (kTask == Task::kPeek) {
    for (uint32_t i = 0; i < count; i++) jobs[i].source = i;
  }
  if (__builtin_expect(isExtended_, 0)) {
    if (kTask == Task::kDeliver) {
      for (uint32_t i = 0; i < count; i++) putHeaderIntoPool(jobs[i]);
    }
    return failed + runExtended(count, most);
  }
  const uint32_t headerBytes = header_.bytes;
  const uint8_t* before = nullptr;
  uint32_t bytesBefore = 0;
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
                         length <= poolBytes_ - poolOffset && allows<kTask>(job, *region, headerBytes);
    if (__builtin_expect(!isPlain, 0)) {
      if (kTask == Task::kDeliver) putHeaderIntoPool(job);
      if (!runOutOfLine(job, most, region)) failed++;
      bytesBefore = 0;
      continue;
    }
    // SAFETY: [offset, offset + length) is inside the region and [poolOffset, poolOffset + length) inside the pool.
    uint8_t* const guest = region->host + offset;
    uint8_t* const pool = pool_ + poolOffset;
    const uint32_t copied = std::min(static_cast<uint32_t>(length), most);
    const FaultWatch watch(*region);
    if (kTask == Task::kDeliver) {
      putHeader(guest, header_.value, headerBytes);
      copyBytes(guest + headerBytes, pool + headerBytes, copied - headerBytes);
    } else if (job.direction == kToGuest) {
      copyBytes(guest, pool, copied);
    } else if (kTask == Task::kFetch) {
      const uint32_t first = std::min(skip, copied);
      copyBytes(pool + first, guest + first, copied - first);
    } else {
      copyBytes(pool, guest, copied);
    }
    job.status = watch.status();
    failed += job.status == kCopyOk ? 0 : 1;
    if (kTask == Task::kPeek) {
      // SAFETY: both ranges were inside the pool when their jobs were checked; i > 0 where bytesBefore is not 0.
      if (copied != 0 && copied == bytesBefore && sameBytes(pool, before, copied)) job.source = jobs[i - 1].source;
      before = pool;
      bytesBefore = copied;
    }
  }
  lastRegion_ = region;
  return failed;
}

uint32_t CopyEngine::run(uint32_t count) noexcept {
  return runJobs<Task::kCopy>(count, UINT32_MAX, 0);
}

uint32_t CopyEngine::peek(uint32_t count, uint32_t most) noexcept {
  return runJobs<Task::kPeek>(count, most, 0);
}

uint32_t CopyEngine::fetch(uint32_t count, uint32_t skip) noexcept {
  return runJobs<Task::kFetch>(count, UINT32_MAX, skip);
}

uint32_t CopyEngine::deliver(uint32_t count) noexcept {
  return runJobs<Task::kDeliver>(count, UINT32_MAX, 0);
}

// For a packet that is not put into the guest in one piece: its header goes there with it.
void CopyEngine::putHeaderIntoPool(const CopyJob& job) noexcept {
  const bool hasRoom = job.poolOffset <= poolBytes_ && header_.bytes <= poolBytes_ - job.poolOffset;
  // SAFETY: [poolOffset, poolOffset + header bytes) is inside the pool.
  if (job.direction == kToGuest && job.length >= header_.bytes && hasRoom) {
    copyBytes(pool_ + job.poolOffset, header_.value, header_.bytes);
  }
}

// The same with addresses translated or writes logged.
__attribute__((noinline)) uint32_t CopyEngine::runExtended(uint32_t count, uint32_t most) noexcept {
  CopyJob* const jobs = list_->jobs();
  uint32_t failed = 0;
  const Region* region = lastRegion_;
  for (uint32_t i = 0; i < count; i++) {
    // SAFETY: i < count <= capacity of the list.
    CopyJob& job = jobs[i];
    const uint64_t length = job.length;
    const uint64_t poolOffset = job.poolOffset;
    Piece piece;
    const bool isPlain = job.direction <= kToGuest && locate(guestAddressOf(job), region, &piece) &&
                         length <= piece.bytes && poolOffset <= poolBytes_ && length <= poolBytes_ - poolOffset &&
                         (piece.access >> job.direction & 1) != 0 &&
                         (job.direction == kFromGuest || !piece.region->readOnly);
    if (!isPlain) {
      if (!runOutOfLine(job, most, region)) failed++;
      continue;
    }
    region = piece.region;
    // SAFETY: `length` bytes from the piece's offset on are inside its region, and those from poolOffset on inside the
    // pool.
    uint8_t* const guest = region->host + piece.offset;
    uint8_t* const pool = pool_ + poolOffset;
    const bool toGuest = job.direction == kToGuest;
    const uint32_t copied = std::min(job.length, most);
    job.status = copyWatched(*region, guest, pool, copied, toGuest);
    if (toGuest) log_.mark(piece.guestAddress, copied);
    failed += job.status == kCopyOk ? 0 : 1;
  }
  lastRegion_ = region;
  return failed;
}

// Everything but a valid job in one piece: several regions or windows, and bad jobs. `region` becomes the last one.
__attribute__((noinline)) bool CopyEngine::runOutOfLine(CopyJob& job, uint32_t most, const Region*& region) noexcept {
  job.status = check(job);
  if (job.status != kCopyOk) return false;
  // Into locals: where the pool is the job list itself, a copy may change the job.
  const bool toGuest = job.direction == kToGuest;
  const uint64_t address = guestAddressOf(job);
  const uint64_t length = std::min(job.length, most);
  const uint64_t poolOffset = job.poolOffset;
  bool faulted = false;
  uint64_t done = 0;
  do {
    Piece piece;
    // Never fails after check(); a job that did would end here, and not well.
    if (!locate(address + done, region, &piece)) {
      job.status = kOutsideMemory;
      return false;
    }
    region = piece.region;
    const uint64_t part = std::min(piece.bytes, length - done);
    // SAFETY: the part is inside the piece, which is inside the region, and [poolOffset, poolOffset + length) is inside
    // the pool.
    uint8_t* const guest = region->host + piece.offset;
    uint8_t* const pool = pool_ + poolOffset + done;
    if (copyWatched(*region, guest, pool, static_cast<uint32_t>(part), toGuest) != kCopyOk) faulted = true;
    if (toGuest) log_.mark(piece.guestAddress, part);
    done += part;
  } while (done < length);
  job.status = faulted ? kFault : kCopyOk;
  return !faulted;
}

// The status of a job before anything is copied.
uint32_t CopyEngine::check(const CopyJob& job) const noexcept {
  const uint64_t length = job.length;
  const uint64_t poolOffset = job.poolOffset;
  bool writable = false;
  const uint32_t status = checkGuest(guestAddressOf(job), length, job.direction, &writable);
  if (status != kCopyOk) return status;
  if (poolOffset > poolBytes_ || length > poolBytes_ - poolOffset || job.direction > kToGuest) return kOutsidePool;
  return job.direction == kToGuest && !writable ? kReadOnly : kCopyOk;
}

// The status of a range of the guest's; `*writable` tells whether its regions may be written.
uint32_t CopyEngine::checkGuest(uint64_t address, uint64_t length, uint32_t direction, bool* writable) const noexcept {
  if (!isTranslated_) return memory_.covers(address, length, writable) ? kCopyOk : kOutsideMemory;
  uint64_t last;
  if (length != 0 && __builtin_add_overflow(address, length - 1, &last)) return kOutsideMemory;
  uint64_t bad;
  bool isKnown;
  const uint32_t access = direction > kToGuest ? 0 : 1u << direction;
  if (!windows_.allow(address, length, access, &bad, &isKnown)) return isKnown ? kNoPermission : kNoTranslation;
  return isCovered(address, length, writable) ? kCopyOk : kOutsideMemory;
}

// Whether every byte of a translated range is in some region; `*writable` tells whether all of them may be written.
bool CopyEngine::isCovered(uint64_t address, uint64_t bytes, bool* writable) const noexcept {
  *writable = true;
  const Region* region = &kNoRegion;
  for (;;) {
    Piece piece;
    if (!locate(address, region, &piece)) return false;
    region = piece.region;
    if (region->readOnly) *writable = false;
    if (bytes <= piece.bytes) return true;
    bytes -= piece.bytes;
    address += piece.bytes;
  }
}

// Where an address is, and how far it goes on from there. `hint` is the region to look at first.
bool CopyEngine::locate(uint64_t address, const Region* hint, Piece* piece) const noexcept {
  // Less one, for it may be 2^64.
  uint64_t available = UINT64_MAX;
  piece->access = kWindowReadable | kWindowWritable;
  if (isTranslated_) {
    const Window* const window = windows_.find(address);
    if (window == nullptr) return false;
    const uint64_t inside = address - window->iova;
    available = window->lastOffset - inside;
    piece->access = window->access;
    address = window->guestAddress + inside;
  }
  piece->region = address - hint->guestAddress < hint->bytes ? hint : memory_.find(address);
  if (piece->region == nullptr) return false;
  piece->guestAddress = address;
  piece->offset = address - piece->region->guestAddress;
  piece->bytes = std::min(available, piece->region->bytes - piece->offset - 1) + 1;
  return true;
}

const Region* CopyEngine::inOneRegion(uint64_t address, uint64_t bytes, uint64_t* offset) const {
  uint64_t last;
  if (bytes == 0 || __builtin_add_overflow(address, bytes - 1, &last)) return nullptr;
  uint64_t bad;
  bool isKnown;
  const uint32_t access = kWindowReadable | kWindowWritable;
  if (isTranslated_ && !windows_.allow(address, bytes, access, &bad, &isKnown)) return nullptr;
  Piece piece;
  if (!locate(address, &kNoRegion, &piece)) return nullptr;
  const Region* const region = piece.region;
  *offset = piece.offset;
  while (bytes > piece.bytes) {
    const uint64_t next = piece.offset + piece.bytes;
    bytes -= piece.bytes;
    address += piece.bytes;
    if (!locate(address, region, &piece) || piece.region != region || piece.offset != next) return nullptr;
  }
  return region;
}

bool CopyEngine::missing(uint64_t iova, uint64_t bytes, uint32_t direction, uint64_t* first) const {
  bool isKnown;
  return isTranslated_ && !windows_.allow(iova, bytes, 1u << direction, first, &isKnown);
}

void CopyEngine::setTranslated(bool isTranslated) {
  windows_.clear();
  isTranslated_ = isTranslated;
  updateExtended();
}

Outcome CopyEngine::setLog(int fd, uint64_t fileOffset, uint64_t bytes) {
  const Outcome outcome = log_.open(fd, fileOffset, bytes);
  updateExtended();
  return outcome;
}

void CopyEngine::clearLog() {
  log_.close();
  updateExtended();
}

}  // namespace virtio_pmd
