// What the copy engine does with the headers of packets: put in by itself, left where they stand, and not fetched.
#include <sys/mman.h>

#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "copy_engine.h"
#include "engine.h"

using namespace virtio_pmd;

namespace {

constexpr uint32_t kHeaderBytes = 12;
constexpr std::array<uint8_t, kHeaderBytes> kHeader = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0};
constexpr uint64_t kPage = 4096;

// A page that only may be read holds the header: to write it would be the end of this program.
void leavesAHeaderThatStands() {
  const UniqueFd fd = memory(2 * kPage);
  const std::shared_ptr<Mapping> whole = wholeOf(fd, 2 * kPage);
  std::vector<uint8_t> pool(256, 0x55);
  CopyEngine engine(JobList::create(1));
  engine.setPool(pool.data(), pool.size());
  engine.setHeader(kHeader.data(), kHeaderBytes);
  uint32_t number;
  CHECK(engine.addRegion(foreign(fd.get(), 0, 2 * kPage), 0, &number).ok());
  uint64_t offset;
  uint8_t* const host = engine.inOneRegion(0, 2 * kPage, &offset)->host;
  memcpy(whole->data() + kPage - kHeaderBytes, kHeader.data(), kHeaderBytes);
  // The first job finds the region for those that come after it.
  CHECK(runOne(engine, job(0, 0, 0, kToGuest)) == kCopyOk);
  CHECK(mprotect(host, kPage, PROT_READ) == 0);
  engine.list()->jobs()[0] = job(kPage - kHeaderBytes, 0, 100, kToGuest);
  CHECK(engine.deliver(1) == 0);
  CHECK(memcmp(whole->data() + kPage - kHeaderBytes, kHeader.data(), kHeaderBytes) == 0);
  for (uint32_t i = kHeaderBytes; i < 100; i++) CHECK(whole->data()[kPage - kHeaderBytes + i] == 0x55);
  // Another one than ours is replaced, to the last byte.
  CHECK(mprotect(host, kPage, PROT_READ | PROT_WRITE) == 0);
  for (uint32_t byte = 0; byte < kHeaderBytes; byte++) {
    whole->data()[kPage - kHeaderBytes + byte] ^= 0x80;
    engine.list()->jobs()[0] = job(kPage - kHeaderBytes, 0, 100, kToGuest);
    CHECK(engine.deliver(1) == 0);
    CHECK(memcmp(whole->data() + kPage - kHeaderBytes, kHeader.data(), kHeaderBytes) == 0);
  }
}

// The header is not fetched from a page that nobody may read.
void leavesWhatNobodyReads() {
  const UniqueFd fd = memory(2 * kPage);
  const std::shared_ptr<Mapping> whole = wholeOf(fd, 2 * kPage);
  memset(whole->data(), 0x77, 2 * kPage);
  std::vector<uint8_t> pool(256, 0x55);
  CopyEngine engine(JobList::create(2));
  engine.setPool(pool.data(), pool.size());
  uint32_t number;
  CHECK(engine.addRegion(foreign(fd.get(), 0, 2 * kPage), 0, &number).ok());
  uint64_t offset;
  CHECK(runOne(engine, job(0, 0, 0, kFromGuest)) == kCopyOk);
  CHECK(mprotect(engine.inOneRegion(0, 2 * kPage, &offset)->host, kPage, PROT_NONE) == 0);
  engine.list()->jobs()[0] = job(kPage - kHeaderBytes, 0, 100, kFromGuest);
  // Shorter than what is left out, and with nothing in the guest at all.
  engine.list()->jobs()[1] = job(kPage - kHeaderBytes, 128, kHeaderBytes - 2, kFromGuest);
  CHECK(engine.fetch(2, kHeaderBytes) == 0);
  for (uint32_t i = 0; i < pool.size(); i++) CHECK(pool[i] == (i >= kHeaderBytes && i < 100 ? 0x77 : 0x55));
  engine.list()->jobs()[0] = job(2 * kPage - 4, 0, 100, kFromGuest);
  CHECK(engine.fetch(1, 100) == 1);
  CHECK(engine.list()->jobs()[0].status == kOutsideMemory);
}

// Pieces of guest memory, each its own part of the file, and what is to be in file and pool after each call.
class World {
 public:
  explicit World(uint32_t seed) : random_(seed), fd_(memory(kFileBytes)), whole_(wholeOf(fd_, kFileBytes)) {
    for (auto& byte : file_) byte = static_cast<uint8_t>(random_());
    for (auto& byte : pool_) byte = static_cast<uint8_t>(random_());
    memcpy(whole_->data(), file_.data(), kFileBytes);
    expectedPool_ = pool_;
    engine_.setPool(pool_.data(), pool_.size());
    engine_.setHeader(kHeader.data(), kHeaderBytes);
    // Neighbours and holes; every third may only be read.
    uint64_t guest = 0x10000;
    uint32_t number;
    for (uint64_t offset = 0; offset + 700 <= kFileBytes; offset += 700) {
      const bool readOnly = pick(3) == 0;
      CHECK(engine_.addRegion(foreign(fd_.get(), offset, 700, readOnly), guest, &number).ok());
      parts_.push_back({guest, offset, readOnly});
      guest += 700 + (pick(3) == 0 ? pick(100) : 0);
    }
  }

  void round() {
    const bool delivers = pick(2) == 0;
    const uint32_t skip = static_cast<uint32_t>(pick(20));
    std::vector<CopyJob> jobs;
    for (uint32_t i = 0; i < kSlots; i++) {
      const uint64_t address = parts_[pick(parts_.size())].guestAddress + pick(702) - 1;
      jobs.push_back(job(address, i * kSlotBytes, static_cast<uint32_t>(pick(kSlotBytes + 1)),
                         static_cast<uint32_t>(pick(8) == 0 ? pick(3) : delivers)));
      engine_.list()->jobs()[i] = jobs[i];
    }
    const uint32_t failed = delivers ? engine_.deliver(kSlots) : engine_.fetch(kSlots, skip);
    uint32_t expected = 0;
    for (uint32_t i = 0; i < kSlots; i++) {
      const uint32_t status = delivers ? deliver(jobs[i]) : fetch(jobs[i], skip);
      CHECK(engine_.list()->jobs()[i].status == status);
      expected += status == kCopyOk ? 0 : 1;
    }
    CHECK(failed == expected);
    CHECK(pool_ == expectedPool_);
    CHECK(memcmp(whole_->data(), file_.data(), kFileBytes) == 0);
  }

 private:
  static constexpr uint64_t kFileBytes = 32 * 700;
  static constexpr uint32_t kSlots = 32;
  static constexpr uint32_t kSlotBytes = 300;
  struct Part {
    uint64_t guestAddress;
    uint64_t fileOffset;
    bool readOnly;
  };

  uint64_t pick(uint64_t bound) { return random_() % bound; }

  const Part* partOf(uint64_t address) const {
    for (const Part& part : parts_) {
      if (address >= part.guestAddress && address - part.guestAddress < 700) return &part;
    }
    return nullptr;
  }

  uint8_t& byteAt(uint64_t address) {
    const Part* const part = partOf(address);
    return file_[part->fileOffset + (address - part->guestAddress)];
  }

  uint32_t statusOf(const CopyJob& one) const {
    bool anyReadOnly = false;
    for (uint64_t i = 0; i < std::max(one.length, 1u); i++) {
      const Part* const part = partOf(guestAddressOf(one) + i);
      if (part == nullptr) return kOutsideMemory;
      anyReadOnly = anyReadOnly || part->readOnly;
    }
    if (one.direction > kToGuest) return kOutsidePool;
    return one.direction == kToGuest && anyReadOnly ? kReadOnly : kCopyOk;
  }

  uint32_t deliver(const CopyJob& one) {
    const uint32_t status = statusOf(one);
    const bool hasHeader = one.direction == kToGuest && one.length >= kHeaderBytes;
    // Where the header stands in the pool is the engine's.
    if (hasHeader) adopt(one.poolOffset, kHeaderBytes);
    if (status != kCopyOk) return status;
    for (uint32_t i = 0; i < one.length; i++) {
      uint8_t& guest = byteAt(guestAddressOf(one) + i);
      uint8_t& pool = expectedPool_[one.poolOffset + i];
      if (one.direction == kFromGuest)
        pool = guest;
      else
        guest = hasHeader && i < kHeaderBytes ? kHeader[i] : pool;
    }
    return status;
  }

  uint32_t fetch(const CopyJob& one, uint32_t skip) {
    const uint32_t status = statusOf(one);
    if (status != kCopyOk) return status;
    for (uint32_t i = 0; i < one.length; i++) {
      uint8_t& guest = byteAt(guestAddressOf(one) + i);
      uint8_t& pool = expectedPool_[one.poolOffset + i];
      if (one.direction == kToGuest)
        guest = pool;
      else if (i >= skip)
        pool = guest;
    }
    // What need not be copied may be.
    if (one.direction == kFromGuest) adopt(one.poolOffset, std::min(skip, one.length));
    return status;
  }

  void adopt(uint32_t offset, uint32_t bytes) {
    for (uint32_t i = offset; i < offset + bytes; i++) expectedPool_[i] = pool_[i];
  }

  std::mt19937_64 random_;
  UniqueFd fd_;
  std::shared_ptr<Mapping> whole_;
  std::vector<uint8_t> file_ = std::vector<uint8_t>(kFileBytes);
  std::vector<uint8_t> pool_ = std::vector<uint8_t>(kSlots * kSlotBytes);
  std::vector<uint8_t> expectedPool_;
  std::vector<Part> parts_;
  CopyEngine engine_{JobList::create(kSlots)};
};

}  // namespace

int main(int argumentCount, char** arguments) {
  leavesAHeaderThatStands();
  leavesWhatNobodyReads();
  const uint32_t seeds = argumentCount > 1 ? static_cast<uint32_t>(atoi(arguments[1])) : 60;
  for (uint32_t seed = 1; seed <= seeds; seed++) {
    currentSeed = seed;
    World world(seed);
    for (int round = 0; round < 40; round++) world.round();
  }
  puts("ok");
  return 0;
}
