// Packets from one guest's memory to another's: edges by hand, then random job lists against a model that copies byte
// by byte, with regions that touch and regions that don't, memory that may not be written, a log, and truncated files.
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "check.h"
#include "copy_engine.h"
#include "engine.h"

using namespace virtio_pmd;

namespace {

constexpr uint64_t kPage = 4096;

CopyJob relayed(uint64_t guest, uint32_t pool, uint32_t length, uint32_t source) {
  CopyJob one = job(guest, pool, length, kToGuest);
  one.source = source;
  return one;
}

// Two guests of four pages each, at addresses of their own.
struct Pair {
  explicit Pair(uint32_t jobs = 4) : from(JobList::create(jobs)), into(JobList::create(jobs)) {
    uint32_t number;
    CHECK(from.addRegion(foreign(fromFd.get(), 0, 2 * kPage), kFromBase, &number).ok());
    CHECK(from.addRegion(foreign(fromFd.get(), 3 * kPage, kPage), kFromBase + 2 * kPage, &number).ok());
    CHECK(into.addRegion(foreign(intoFd.get(), kPage, kPage), kIntoBase, &number).ok());
    CHECK(into.addRegion(foreign(intoFd.get(), 0, kPage), kIntoBase + kPage, &number).ok());
    CHECK(into.addRegion(foreign(intoFd.get(), 2 * kPage, kPage, true), kIntoBase + 2 * kPage, &number).ok());
    into.setPool(pool.data(), pool.size());
    for (size_t i = 0; i < 4 * kPage; i++) fromFile->data()[i] = static_cast<uint8_t>(i % 251);
    memset(intoFile->data(), 0xee, 4 * kPage);
    memset(pool.data(), 0x11, pool.size());
  }

  // The statuses of one packet: the source's, then the other one's.
  std::pair<uint32_t, uint32_t> run(const CopyJob& source, const CopyJob& one, uint32_t skip, uint32_t head) {
    from.list()->jobs()[one.source < 4 ? one.source : 0] = source;
    into.list()->jobs()[0] = one;
    const uint32_t failed = from.relay(into, 1, skip, head);
    const uint32_t sourceStatus = from.list()->jobs()[one.source < 4 ? one.source : 0].status;
    const uint32_t status = into.list()->jobs()[0].status;
    CHECK(failed == (sourceStatus == kCopyOk && status == kCopyOk ? 0 : 1));
    return {sourceStatus, status};
  }

  static constexpr uint64_t kFromBase = 0x10000;
  static constexpr uint64_t kIntoBase = 0xffffe000;
  const UniqueFd fromFd = memory(4 * kPage);
  const UniqueFd intoFd = memory(4 * kPage);
  const std::shared_ptr<Mapping> fromFile = wholeOf(fromFd, 4 * kPage);
  const std::shared_ptr<Mapping> intoFile = wholeOf(intoFd, 4 * kPage);
  std::vector<uint8_t> pool = std::vector<uint8_t>(kPage);
  CopyEngine from;
  CopyEngine into;
};

typedef std::pair<uint32_t, uint32_t> Statuses;
const Statuses kBothOk{kCopyOk, kCopyOk};

void keepsToTheEdgesOfBothSides() {
  Pair pair;
  const uint64_t from = Pair::kFromBase;
  const uint64_t into = Pair::kIntoBase;
  const auto source = [](uint64_t address) { return job(address, 7, 5, kFromGuest); };
  // Head of 28 bytes from the pool, the rest from behind the first 30 of the source.
  CHECK(pair.run(source(from), relayed(into, 100, 128, 2), 30, 28) == kBothOk);
  for (uint32_t i = 0; i < 128; i++) {
    CHECK(pair.intoFile->data()[kPage + i] == (i < 28 ? 0x11 : (i + 2) % 251));
  }
  CHECK(pair.intoFile->data()[kPage + 128] == 0xee);
  // Over the edges of regions on both sides, whose file parts lie elsewhere; the source's last byte is its guest's
  // last.
  CHECK(pair.run(source(from + 3 * kPage - 302), relayed(into + 2 * kPage - 300, 0, 300, 0), 30, 28) == kBothOk);
  CHECK(pair.run(source(from + kPage), relayed(into + kPage - 20, 0, 1500, 0), 30, 28) == kBothOk);
  CHECK(pair.intoFile->data()[0] == 0x11 && pair.intoFile->data()[8] == (kPage + 30) % 251);
  CHECK(pair.run(source(from + 3 * kPage - 301), relayed(into, 0, 300, 0), 30, 28) ==
        Statuses(kOutsideMemory, kCopyOk));
  CHECK(pair.run(source(from - 1), relayed(into, 0, 300, 0), 30, 28) == Statuses(kOutsideMemory, kCopyOk));
  CHECK(pair.run(source(UINT64_MAX - 10), relayed(into, 0, 300, 0), 30, 28) == Statuses(kOutsideMemory, kCopyOk));
  CHECK(pair.run(source(from), relayed(into + kPage * 2 - 299, 0, 300, 0), 30, 28) == Statuses(kCopyOk, kReadOnly));
  CHECK(pair.run(source(from), relayed(into + kPage * 3 - 299, 0, 300, 0), 30, 28) ==
        Statuses(kCopyOk, kOutsideMemory));
  CHECK(pair.run(source(from), relayed(UINT64_MAX - 5, 0, 300, 0), 30, 28) == Statuses(kCopyOk, kOutsideMemory));
  CHECK(pair.run(source(from), relayed(into, 0, UINT32_MAX, 0), 30, 28) == Statuses(kOutsideMemory, kOutsideMemory));
  CHECK(pair.run(source(from), relayed(into, 0, 300, 0), UINT32_MAX, 28) == Statuses(kOutsideMemory, kCopyOk));
  // Also where the job before read from there.
  CHECK(runOne(pair.into, job(into + kPage * 2, 0, 10, kFromGuest)) == kCopyOk);
  CHECK(pair.run(source(from), relayed(into + kPage * 2, 0, 300, 0), 30, 28) == Statuses(kCopyOk, kReadOnly));
  // The pool, to its last byte.
  CHECK(pair.run(source(from), relayed(into, kPage - 28, 300, 0), 30, 28) == kBothOk);
  CHECK(pair.run(source(from), relayed(into, kPage - 27, 300, 0), 30, 28) == Statuses(kCopyOk, kOutsidePool));
  CHECK(pair.run(source(from), relayed(into, UINT32_MAX, 300, 0), 30, 28) == Statuses(kCopyOk, kOutsidePool));
  // What is all in the pool needs an address that exists, and no more.
  CHECK(pair.run(source(from + 3 * kPage - 1), relayed(into, 0, 28, 0), 30, 28) == kBothOk);
  CHECK(pair.run(source(from + 3 * kPage - 1), relayed(into, kPage - 20, 20, 0), 30, 28) == kBothOk);
  CHECK(pair.run(source(from), relayed(into, 0, 0, 0), 30, 28) == kBothOk);
  CHECK(pair.run(source(from + 3 * kPage), relayed(into, 0, 28, 0), 30, 28) == Statuses(kOutsideMemory, kCopyOk));
  // Jobs that are none.
  CopyJob wrong = source(from);
  wrong.direction = kToGuest;
  CHECK(pair.run(wrong, relayed(into, 0, 300, 0), 30, 28) == Statuses(kOutsidePool, kCopyOk));
  wrong = relayed(into, 0, 300, 0);
  wrong.direction = kFromGuest;
  CHECK(pair.run(source(from), wrong, 30, 28) == Statuses(kCopyOk, kOutsidePool));
  CHECK(pair.run(source(from), relayed(into, 0, 300, 4), 30, 28).second == kOutsidePool);
  CHECK(pair.run(source(from), relayed(into, 0, 300, UINT32_MAX), 30, 28).second == kOutsidePool);
  // More jobs than the list holds count as failed; the same engine has no two ends.
  for (uint32_t i = 0; i < 4; i++) pair.into.list()->jobs()[i] = relayed(into, 0, 100, i);
  for (uint32_t i = 0; i < 4; i++) pair.from.list()->jobs()[i] = source(from);
  CHECK(pair.from.relay(pair.into, UINT32_MAX, 30, 28) == UINT32_MAX - 4);
  CHECK(pair.from.relay(pair.from, 4, 30, 28) == 4);
}

void peeksAtTheBeginningAndChecksTheWhole() {
  Pair pair;
  pair.from.setPool(pair.pool.data(), pair.pool.size());
  CopyJob* const jobs = pair.from.list()->jobs();
  jobs[0] = job(Pair::kFromBase, 0, 1000, kFromGuest);
  jobs[1] = job(Pair::kFromBase + 3 * kPage - 999, 100, 1000, kFromGuest);
  jobs[2] = job(Pair::kFromBase + 2 * kPage - 10, 200, 1000, kFromGuest);
  jobs[3] = job(Pair::kFromBase, 300, 20, kFromGuest);
  CHECK(pair.from.peek(4, 28) == 1);
  CHECK(jobs[0].status == kCopyOk && jobs[1].status == kOutsideMemory && jobs[2].status == kCopyOk);
  CHECK(pair.pool[27] == 27 && pair.pool[28] == 0x11 && pair.pool[100] == 0x11);
  CHECK(pair.pool[209] == (2 * kPage - 1) % 251 && pair.pool[210] == 3 * kPage % 251 && pair.pool[228] == 0x11);
  CHECK(pair.pool[319] == 19 && pair.pool[320] == 0x11);
}

void honoursWindowsAndLog() {
  Pair pair;
  const uint64_t logBytes = 0x100000 / 8;
  const UniqueFd log = memory(logBytes);
  const std::shared_ptr<Mapping> bits = wholeOf(log, logBytes);
  CHECK(pair.into.setLog(log.get(), 0, logBytes).ok());
  const CopyJob source = job(Pair::kFromBase, 0, 0, kFromGuest);
  CHECK(pair.run(source, relayed(Pair::kIntoBase + kPage - 20, 0, 300, 0), 30, 28) == kBothOk);
  CHECK(bits->data()[0xffffe / 8] == 0xc0);
  // And where both are in the regions of the job before.
  CHECK(pair.run(source, relayed(Pair::kIntoBase + kPage, 0, 300, 0), 30, 28) == kBothOk);
  memset(bits->data(), 0, logBytes);
  CHECK(pair.run(source, relayed(Pair::kIntoBase + kPage, 0, 300, 0), 30, 28) == kBothOk);
  CHECK(bits->data()[0xfffff / 8] == 0x80);
  pair.into.clearLog();
  pair.into.setTranslated(true);
  const CopyJob target = relayed(0x5000, 0, 300, 0);
  CHECK(pair.run(source, target, 30, 28) == Statuses(kCopyOk, kNoTranslation));
  CHECK(pair.into.windows().add({0x5000, 0xfff, Pair::kIntoBase, kWindowReadable}).ok());
  CHECK(pair.run(source, target, 30, 28) == Statuses(kCopyOk, kNoPermission));
  CHECK(pair.into.windows().add({0x5000, 0xfff, Pair::kIntoBase, kWindowWritable}).ok());
  memset(pair.intoFile->data(), 0xee, 4 * kPage);
  pair.from.setTranslated(true);
  CHECK(pair.run(source, target, 30, 28) == Statuses(kNoTranslation, kCopyOk));
  CHECK(pair.intoFile->data()[kPage] == 0xee);
  CHECK(pair.from.windows().add({Pair::kFromBase, 0xff, Pair::kFromBase, kWindowReadable}).ok());
  CHECK(pair.run(source, target, 30, 28) == Statuses(kNoTranslation, kCopyOk));
  CHECK(pair.from.windows().add({Pair::kFromBase + 0x100, 0xff, Pair::kFromBase, kWindowReadable}).ok());
  CHECK(pair.run(source, target, 30, 28) == kBothOk);
  // The source's second window leads back to its first bytes.
  CHECK(pair.intoFile->data()[kPage + 28] == 30 && pair.intoFile->data()[kPage + 28 + 226] == 0);
  pair.into.setTranslated(false);
  pair.from.windows().remove(0, UINT64_MAX);
  CHECK(pair.run(source, relayed(Pair::kIntoBase, 0, 300, 0), 30, 28) == Statuses(kNoTranslation, kCopyOk));
}

UniqueFd temporaryFile(uint64_t bytes) {
  char path[] = "/tmp/virtio-pmd-XXXXXX";
  UniqueFd fd(mkostemp(path, O_CLOEXEC));
  CHECK(fd.valid());
  unlink(path);
  CHECK(ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
  return fd;
}

void saysWhichSideIsGone() {
  const UniqueFd fromFd = temporaryFile(2 * kPage);
  const UniqueFd intoFd = temporaryFile(2 * kPage);
  CopyEngine from(JobList::create(2));
  CopyEngine into(JobList::create(2));
  std::vector<uint8_t> pool(64);
  into.setPool(pool.data(), pool.size());
  uint32_t number;
  CHECK(from.addRegion(foreign(fromFd.get(), 0, 2 * kPage), 0, &number).ok());
  CHECK(into.addRegion(foreign(intoFd.get(), 0, 2 * kPage), 0, &number).ok());
  const auto run = [&](uint64_t address, uint64_t target) {
    from.list()->jobs()[0] = job(address, 0, 0, kFromGuest);
    into.list()->jobs()[0] = relayed(target, 0, 300, 0);
    CHECK(from.relay(into, 1, 30, 28) <= 1);
    return Statuses(from.list()->jobs()[0].status, into.list()->jobs()[0].status);
  };
  CHECK(run(kPage, kPage) == kBothOk);
  CHECK(ftruncate(fromFd.get(), kPage) == 0);
  CHECK(run(kPage, kPage) == Statuses(kFault, kCopyOk));
  CHECK(run(0, kPage) == kBothOk);
  CHECK(ftruncate(intoFd.get(), kPage) == 0);
  CHECK(run(0, kPage) == Statuses(kCopyOk, kFault));
  CHECK(run(0, 0) == kBothOk);
  CHECK(from.faults() == 1 && into.faults() == 1);
}

// A guest as the model has it: parts of a file at addresses.
struct Guest {
  struct Part {
    uint64_t address;
    uint64_t bytes;
    uint64_t fileOffset;
    bool readOnly;
  };
  std::vector<Part> parts;
  std::vector<uint8_t> file;

  uint8_t* at(uint64_t address, bool* readOnly) {
    for (const Part& part : parts) {
      if (address - part.address >= part.bytes) continue;
      *readOnly = *readOnly || part.readOnly;
      return &file[part.fileOffset + (address - part.address)];
    }
    return nullptr;
  }

  uint32_t check(uint64_t address, uint64_t bytes, bool* readOnly) {
    *readOnly = false;
    for (uint64_t i = 0; i < (bytes == 0 ? 1 : bytes); i++) {
      if (address + i < address || at(address + i, readOnly) == nullptr) return kOutsideMemory;
    }
    return kCopyOk;
  }
};

Statuses runModel(Guest& from, Guest& into, const std::vector<uint8_t>& pool, const CopyJob& source, const CopyJob& one,
                  uint32_t skip, uint32_t head) {
  bool readOnly = false;
  const uint64_t first = one.length < head ? one.length : head;
  const uint64_t rest = one.length - first;
  uint32_t sourceStatus = from.check(guestAddressOf(source), rest == 0 ? 0 : skip + rest, &readOnly);
  if (source.direction != kFromGuest) sourceStatus = kOutsidePool;
  uint32_t status = into.check(guestAddressOf(one), one.length, &readOnly);
  if (status == kCopyOk && (one.poolOffset + first > pool.size() || one.direction != kToGuest)) status = kOutsidePool;
  if (status == kCopyOk && readOnly) status = kReadOnly;
  if (sourceStatus != kCopyOk || status != kCopyOk) return {sourceStatus, status};
  for (uint64_t i = 0; i < one.length; i++) {
    const uint64_t origin = guestAddressOf(source) + skip + (i - first);
    *into.at(guestAddressOf(one) + i, &readOnly) = i < first ? pool[one.poolOffset + i] : *from.at(origin, &readOnly);
  }
  return kBothOk;
}

void agreesWithTheModel(uint32_t seed) {
  std::mt19937_64 random(seed);
  const auto pick = [&random](uint64_t bound) { return random() % bound; };
  constexpr uint64_t kFileBytes = 16 * kPage;
  constexpr uint32_t kJobs = 32;
  std::vector<uint8_t> pool(2048);
  for (auto& byte : pool) byte = static_cast<uint8_t>(random());
  CopyEngine engines[] = {CopyEngine(JobList::create(kJobs)), CopyEngine(JobList::create(kJobs))};
  Guest guests[2];
  std::shared_ptr<Mapping> whole[2];
  UniqueFd fds[2];
  for (int side = 0; side < 2; side++) {
    Guest& guest = guests[side];
    engines[side].setPool(pool.data(), pool.size());
    fds[side] = memory(kFileBytes);
    whole[side] = wholeOf(fds[side], kFileBytes);
    guest.file.resize(kFileBytes);
    for (auto& byte : guest.file) byte = static_cast<uint8_t>(random());
    memcpy(whole[side]->data(), guest.file.data(), kFileBytes);
    // With few regions most jobs are in the one that the last job was in.
    const uint64_t most = pick(3) == 0 ? 24 : 1 + pick(2);
    uint64_t fileOffset = 0;
    uint64_t address = pick(4) == 0 ? UINT64_MAX - 9000 : 0xfffff000 + pick(8192);
    while (fileOffset < kFileBytes - kPage && guest.parts.size() < most) {
      const uint64_t bytes = 1 + pick(pick(2) == 0 ? 4000 : 300);
      const bool readOnly = side == 1 && pick(4) == 0;
      uint32_t number;
      if (address + bytes - 1 < address) break;
      CHECK(engines[side].addRegion(foreign(fds[side].get(), fileOffset, bytes, readOnly), address, &number).ok());
      guest.parts.push_back({address, bytes, fileOffset, readOnly});
      fileOffset += bytes;
      address += bytes;
      if (pick(4) == 0) address += pick(100);
      if (address < bytes) break;
    }
  }
  const auto somewhere = [&](const Guest& guest) {
    const Guest::Part& part = guest.parts[pick(guest.parts.size())];
    return pick(25) == 0 ? random() : part.address + pick(part.bytes + 4) - pick(3);
  };
  for (int round = 0; round < 40; round++) {
    const uint32_t count = static_cast<uint32_t>(pick(kJobs + 1));
    const uint32_t skip = static_cast<uint32_t>(pick(60));
    const uint32_t head = static_cast<uint32_t>(pick(60));
    uint32_t failures = 0;
    for (uint32_t i = 0; i < kJobs; i++) {
      engines[0].list()->jobs()[i] = job(somewhere(guests[0]), 0, 0, pick(40) == 0 ? kToGuest : kFromGuest);
    }
    std::vector<CopyJob> jobs;
    for (uint32_t i = 0; i < count; i++) {
      const uint64_t longest[] = {40, 100, 300, 2000};
      const uint32_t length = static_cast<uint32_t>(pick(60) == 0 ? random() : pick(longest[pick(4)]));
      const uint32_t poolOffset = static_cast<uint32_t>(pick(30) == 0 ? random() : pick(pool.size()));
      jobs.push_back(relayed(somewhere(guests[1]), poolOffset, length, static_cast<uint32_t>(pick(kJobs))));
      if (pick(40) == 0) jobs[i].direction = static_cast<uint32_t>(random());
      engines[1].list()->jobs()[i] = jobs[i];
    }
    const uint32_t failed = engines[0].relay(engines[1], count, skip, head);
    for (uint32_t i = 0; i < count; i++) {
      const CopyJob& source = engines[0].list()->jobs()[jobs[i].source];
      const Statuses expected = runModel(guests[0], guests[1], pool, source, jobs[i], skip, head);
      CHECK(engines[1].list()->jobs()[i].status == expected.second);
      if (expected != kBothOk) failures++;
    }
    CHECK(failed == failures);
    CHECK(memcmp(whole[0]->data(), guests[0].file.data(), kFileBytes) == 0);
    CHECK(memcmp(whole[1]->data(), guests[1].file.data(), kFileBytes) == 0);
  }
}

}  // namespace

int main(int argumentCount, char** arguments) {
  keepsToTheEdgesOfBothSides();
  peeksAtTheBeginningAndChecksTheWhole();
  honoursWindowsAndLog();
  saysWhichSideIsGone();
  const uint32_t seeds = argumentCount > 1 ? static_cast<uint32_t>(atoi(arguments[1])) : 60;
  for (uint32_t seed = 1; seed <= seeds; seed++) {
    currentSeed = seed;
    agreesWithTheModel(seed);
  }
  puts("ok");
  return 0;
}
