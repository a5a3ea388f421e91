// Runs a list of copies between a guest's memory and a packet pool, or from one guest to another.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "dirty_log.h"
#include "memory_table.h"
#include "translation_windows.h"

namespace virtio_pmd {

// One job, as native/index.ts lays it out (`CopyJob`).
struct CopyJob {
  uint32_t guestLow;
  uint32_t guestHigh;
  uint32_t poolOffset;
  uint32_t length;
  uint32_t direction;
  uint32_t status;
  // The caller's own.
  uint32_t spare;
  uint32_t source;
};
static_assert(sizeof(CopyJob) == 32, "CopyJob.WORDS is 8");
static_assert(offsetof(CopyJob, guestHigh) == 4 * 1, "CopyJob.GUEST_HIGH");
static_assert(offsetof(CopyJob, poolOffset) == 4 * 2, "CopyJob.POOL_OFFSET");
static_assert(offsetof(CopyJob, length) == 4 * 3, "CopyJob.LENGTH");
static_assert(offsetof(CopyJob, direction) == 4 * 4, "CopyJob.DIRECTION");
static_assert(offsetof(CopyJob, status) == 4 * 5, "CopyJob.STATUS");
static_assert(offsetof(CopyJob, source) == 4 * 7, "CopyJob.SOURCE");

inline uint64_t guestAddressOf(const CopyJob& job) {
  return job.guestLow | static_cast<uint64_t>(job.guestHigh) << 32;
}

// `CopyDirection` of native/index.ts.
constexpr uint32_t kFromGuest = 0;
constexpr uint32_t kToGuest = 1;
static_assert(kWindowReadable == 1u << kFromGuest && kWindowWritable == 1u << kToGuest, "a bit a direction");

// `CopyStatus` of native/index.ts.
enum CopyStatus : uint32_t {
  kCopyOk = 0,
  kOutsideMemory = 1,
  // Also for a direction that does not exist: the caller's part of the job is wrong.
  kOutsidePool = 2,
  kFault = 3,
  kReadOnly = 4,
  kNoTranslation = 5,
  kNoPermission = 6,
};

// The job list: on its own pages, so that nothing shares its cache lines.
class JobList {
 public:
  // Null when there is no memory for it.
  static std::shared_ptr<JobList> create(uint32_t capacity);
  JobList(const JobList&) = delete;
  JobList& operator=(const JobList&) = delete;
  ~JobList();
  CopyJob* jobs() const { return jobs_; }
  uint32_t capacity() const { return capacity_; }

 private:
  JobList(CopyJob* jobs, uint32_t capacity) : jobs_(jobs), capacity_(capacity) {}
  CopyJob* jobs_;
  uint32_t capacity_;
};

class CopyEngine {
 public:
  explicit CopyEngine(std::shared_ptr<JobList> list) : list_(std::move(list)) {}
  CopyEngine(const CopyEngine&) = delete;
  CopyEngine& operator=(const CopyEngine&) = delete;

  const std::shared_ptr<JobList>& list() const { return list_; }
  const MemoryTable& memory() const { return memory_; }
  Outcome addRegion(const MappingRequest& request, uint64_t guestAddress, uint32_t* number);
  std::shared_ptr<Mapping> removeRegion(uint32_t number);
  std::vector<std::shared_ptr<Mapping>> removeAllRegions();
  // The pool must stay readable and writable until it is set to another one or to nothing.
  void setPool(uint8_t* pool, uint64_t bytes) {
    pool_ = pool;
    poolBytes_ = bytes;
  }
  // From now on the addresses of jobs and of inOneRegion() go through windows, or no more. None is left either way.
  void setTranslated(bool isTranslated);
  bool isTranslated() const { return isTranslated_; }
  // Without effect on anything while addresses are not translated.
  TranslationWindows& windows() { return windows_; }
  Outcome setLog(int fd, uint64_t fileOffset, uint64_t bytes);
  void clearLog();
  DirtyLog& log() { return log_; }
  // Pages of regions and logs, those that are gone included, that had to be replaced.
  uint64_t faults() const { return memory_.faults() + log_.faults(); }
  // The region that holds the whole range, which begins `*offset` into it, in one piece and, where addresses are
  // translated, for reading and writing; null when there is none. The pointer is good until regions change.
  const Region* inOneRegion(uint64_t address, uint64_t bytes, uint64_t* offset) const;
  // Whether a job of this direction over the range lacks a window, and the first address that does.
  bool missing(uint64_t iova, uint64_t bytes, uint32_t direction, uint64_t* first) const;
  // Runs jobs 0 to count - 1 and returns how many did not end OK; jobs beyond the list count as such.
  uint32_t run(uint32_t count) noexcept;
  // The same, but copies the first `most` bytes of a job at most; all of it is checked. `source` of each job becomes
  // the first of those just before it that brought the same bytes, as far as that was looked for, or its own number.
  uint32_t peek(uint32_t count, uint32_t most) noexcept;
  // As run(), but need not copy the first `skip` bytes of what comes from the guest; all of it is checked.
  uint32_t fetch(uint32_t count, uint32_t skip) noexcept;
  // As run(), with the header in place of the first bytes of each job, which go to the guest and have room for it.
  uint32_t deliver(uint32_t count) noexcept;
  // What deliver() and relay() put before each packet for this engine's guest; at most kHeaderMax bytes.
  void setHeader(const uint8_t* header, uint32_t bytes) {
    header_.bytes = std::min(bytes, kHeaderMax);
    memcpy(header_.value, header, header_.bytes);
  }
  static constexpr uint32_t kHeaderMax = 32;
  // Copies packets of this engine's guest, which were peeked at, to that of `to`, another engine of this thread;
  // returns how many arrived.
  //
  // Jobs 0 to count - 1 of `to` say where a packet goes, what room there is, and in `source` which job of this engine's
  // list it is in. The header of `to` goes before it in place of the first `skip` bytes of that job; the next `peeked`
  // bytes come from the pool, where they follow the skipped ones, and the rest from the guest. At the first packet that
  // cannot arrive that is the end, and both its jobs get a status; OK for both where there is no room for it.
  uint32_t relay(CopyEngine& to, uint32_t count, uint32_t skip, uint32_t peeked) noexcept;

 private:
  // What of a range lies in one window and one region.
  struct Piece {
    const Region* region;
    uint64_t guestAddress;
    uint64_t offset;
    // From the offset on; at least 1.
    uint64_t bytes;
    // What the window allows.
    uint32_t access;
  };

  enum class Task { kCopy, kPeek, kFetch, kDeliver };

  template <Task kTask>
  static bool allows(const CopyJob& job, const Region& region, uint32_t headerBytes) noexcept;
  template <Task kTask>
  uint32_t runJobs(uint32_t count, uint32_t most, uint32_t skip) noexcept;
  void putHeaderIntoPool(const CopyJob& job) noexcept;
  uint32_t runExtended(uint32_t count, uint32_t most) noexcept;
  bool runOutOfLine(CopyJob& job, uint32_t most, const Region*& region) noexcept;
  bool relayOutOfLine(CopyEngine& to, CopyJob& source, CopyJob& job, uint32_t skip, uint32_t seen) noexcept;
  void relayPieces(CopyEngine& to, CopyJob& source, CopyJob& job, uint32_t skip, uint32_t seen) noexcept;
  uint32_t check(const CopyJob& job) const noexcept;
  uint32_t checkGuest(uint64_t address, uint64_t length, uint32_t direction, bool* writable) const noexcept;
  bool isCovered(uint64_t address, uint64_t bytes, bool* writable) const noexcept;
  bool locate(uint64_t address, const Region* hint, Piece* piece) const noexcept;
  void updateExtended() { isExtended_ = isTranslated_ || log_.isOpen(); }

  struct Header {
    uint8_t value[kHeaderMax] = {};
    uint32_t bytes = 0;
  };

  std::shared_ptr<JobList> list_;
  Header header_;
  uint8_t* pool_ = nullptr;
  uint64_t poolBytes_ = 0;
  // The region that the last job was in, or one that holds no address.
  const Region* lastRegion_ = &kNoRegion;
  // Whether a run has more to do than to copy.
  bool isExtended_ = false;
  bool isTranslated_ = false;
  MemoryTable memory_;
  TranslationWindows windows_;
  DirtyLog log_;
  static const Region kNoRegion;
};

}  // namespace virtio_pmd
