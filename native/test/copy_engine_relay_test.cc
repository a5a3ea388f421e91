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

// Where a packet goes, and the room that it has there.
CopyJob target(uint64_t guest, uint32_t room, uint32_t source) {
  CopyJob one = job(guest, 0, room, kToGuest);
  one.source = source;
  return one;
}

// What goes before each packet for the second guest.
constexpr uint8_t kHeader[] = {0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab};
constexpr uint32_t kHeaderBytes = sizeof(kHeader);
// As most packets are peeked at: 14 bytes of the sender's header, and 16 behind them.
constexpr uint32_t kSkip = 14;
constexpr uint32_t kPeeked = 16;

// Two guests of four pages each, at addresses of their own.
struct Pair {
  explicit Pair(uint32_t jobs = 4) : from(JobList::create(jobs)), into(JobList::create(jobs)) {
    uint32_t number;
    CHECK(from.addRegion(foreign(fromFd.get(), 0, 2 * kPage), kFromBase, &number).ok());
    CHECK(from.addRegion(foreign(fromFd.get(), 3 * kPage, kPage), kFromBase + 2 * kPage, &number).ok());
    CHECK(into.addRegion(foreign(intoFd.get(), kPage, kPage), kIntoBase, &number).ok());
    CHECK(into.addRegion(foreign(intoFd.get(), 0, kPage), kIntoBase + kPage, &number).ok());
    CHECK(into.addRegion(foreign(intoFd.get(), 2 * kPage, kPage, true), kIntoBase + 2 * kPage, &number).ok());
    from.setPool(pool.data(), pool.size());
    into.setHeader(kHeader, kHeaderBytes);
    for (size_t i = 0; i < 4 * kPage; i++) fromFile->data()[i] = static_cast<uint8_t>(i % 251);
    memset(intoFile->data(), 0xee, 4 * kPage);
    memset(pool.data(), 0x11, pool.size());
  }

  // The statuses of one packet that does not arrive, the source's first; both OK for one that has no room, too.
  std::pair<uint32_t, uint32_t> run(const CopyJob& source, const CopyJob& one, uint32_t skip = kSkip,
                                    uint32_t peeked = kPeeked) {
    CopyJob& sourceJob = from.list()->jobs()[one.source < 4 ? one.source : 0];
    sourceJob = source;
    into.list()->jobs()[0] = one;
    arrived = from.relay(into, 1, skip, peeked);
    if (arrived == 1) return {kCopyOk, kCopyOk};
    CHECK(arrived == 0);
    return {sourceJob.status, into.list()->jobs()[0].status};
  }

  bool arrives(const CopyJob& source, const CopyJob& one) {
    run(source, one);
    return arrived == 1;
  }

  uint32_t arrived = 0;
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
  const auto source = [](uint64_t address, uint32_t length = 302, uint32_t pool = 0) {
    return job(address, pool, length, kFromGuest);
  };
  // Header, 16 bytes from the pool, the rest from behind the first 30 of the source.
  CHECK(pair.arrives(source(from, 130, 100), target(into, 128, 2)));
  for (uint32_t i = 0; i < 128; i++) {
    const uint32_t expected = i < kHeaderBytes ? kHeader[i] : i < 28 ? 0x11 : (i + 2) % 251;
    CHECK(pair.intoFile->data()[kPage + i] == expected);
  }
  CHECK(pair.intoFile->data()[kPage + 128] == 0xee);
  // The room, to its last byte; without it nothing is wrong with either side.
  CHECK(pair.run(source(from, 131), target(into, 128, 2)) == kBothOk && pair.arrived == 0);
  CHECK(pair.run(source(from, 131), target(into + kPage * 2 - 128, 128, 2)) == kBothOk && pair.arrived == 0);
  CHECK(pair.run(source(from), target(into, 0, 0)) == kBothOk && pair.arrived == 0);
  // Over the edges of regions on both sides, whose file parts lie elsewhere; the source's last byte is its guest's
  // last.
  CHECK(pair.arrives(source(from + 3 * kPage - 302), target(into + 2 * kPage - 300, 300, 0)));
  CHECK(pair.arrives(source(from + kPage, 1502), target(into + kPage - 20, 1500, 0)));
  CHECK(pair.intoFile->data()[0] == 0x11 && pair.intoFile->data()[8] == (kPage + 30) % 251);
  CHECK(pair.arrives(source(from), target(into + kPage - 5, 300, 0)));
  CHECK(pair.intoFile->data()[2 * kPage - 1] == kHeader[4] && pair.intoFile->data()[0] == kHeader[5]);
  CHECK(pair.run(source(from + 3 * kPage - 301), target(into, 300, 0)) == Statuses(kOutsideMemory, kCopyOk));
  CHECK(pair.run(source(from - 1), target(into, 300, 0)) == Statuses(kOutsideMemory, kCopyOk));
  CHECK(pair.run(source(UINT64_MAX - 10), target(into, 300, 0)) == Statuses(kOutsideMemory, kCopyOk));
  CHECK(pair.run(source(from), target(into + kPage * 2 - 299, 300, 0)) == Statuses(kCopyOk, kReadOnly));
  CHECK(pair.run(source(from), target(into + kPage * 3 - 299, 300, 0)) == Statuses(kCopyOk, kOutsideMemory));
  CHECK(pair.run(source(from), target(UINT64_MAX - 5, 300, 0)) == Statuses(kCopyOk, kOutsideMemory));
  CHECK(pair.run(source(from, UINT32_MAX), target(into, UINT32_MAX, 0)) == Statuses(kOutsideMemory, kOutsideMemory));
  CHECK(pair.run(source(from, UINT32_MAX), target(into, 10, 0)) == Statuses(kOutsideMemory, kCopyOk));
  // Room beyond memory does no harm.
  CHECK(pair.arrives(source(from, 30), target(into + kPage * 2 - 28, UINT32_MAX, 0)));
  // Also where the job before read from there.
  pair.into.setPool(pair.pool.data(), pair.pool.size());
  CHECK(runOne(pair.into, job(into + kPage * 2, 0, 10, kFromGuest)) == kCopyOk);
  CHECK(pair.run(source(from), target(into + kPage * 2, 300, 0)) == Statuses(kCopyOk, kReadOnly));
  pair.into.setPool(nullptr, 0);
  memset(pair.pool.data(), 0x11, pair.pool.size());
  // The pool, to its last byte.
  CHECK(pair.arrives(source(from, 302, kPage - 30), target(into, 300, 0)));
  CHECK(pair.run(source(from, 302, kPage - 29), target(into, 300, 0)) == Statuses(kOutsidePool, kCopyOk));
  CHECK(pair.run(source(from, 302, UINT32_MAX), target(into, 300, 0)) == Statuses(kOutsidePool, kCopyOk));
  CHECK(pair.arrives(source(from, 20, kPage - 20), target(into, 18, 0)));
  CHECK(pair.run(source(from, 20, kPage - 19), target(into, 18, 0)) == Statuses(kOutsidePool, kCopyOk));
  CHECK(pair.run(source(from), target(into, 300, 0), kSkip, UINT32_MAX) == kBothOk && pair.arrived == 1);
  CHECK(pair.run(source(from, 302, kPage - 301), target(into, 300, 0), kSkip, UINT32_MAX) ==
        Statuses(kOutsidePool, kCopyOk));
  // What is shorter than its own header is no packet; what is nothing else is an empty one.
  CHECK(pair.run(source(from, 13), target(into, 300, 0)) == Statuses(kOutsidePool, kCopyOk));
  CHECK(pair.run(source(from), target(into, 300, 0), UINT32_MAX) == Statuses(kOutsidePool, kCopyOk));
  CHECK(pair.arrives(source(from, 14), target(into, kHeaderBytes, 0)));
  // Jobs that are none.
  CopyJob wrong = source(from);
  wrong.direction = kToGuest;
  CHECK(pair.run(wrong, target(into, 300, 0)) == Statuses(kOutsidePool, kCopyOk));
  wrong = target(into, 300, 0);
  wrong.direction = kFromGuest;
  CHECK(pair.run(source(from), wrong) == Statuses(kCopyOk, kOutsidePool));
  CHECK(pair.run(source(from), target(into, 300, 4)).second == kOutsidePool);
  CHECK(pair.run(source(from), target(into, 300, UINT32_MAX)).second == kOutsidePool);
  // No more arrive than the list has jobs, nor behind one that does not; the same engine has no two ends.
  for (uint32_t i = 0; i < 4; i++) pair.into.list()->jobs()[i] = target(into, 300, i);
  for (uint32_t i = 0; i < 4; i++) pair.from.list()->jobs()[i] = source(from);
  CHECK(pair.from.relay(pair.into, UINT32_MAX, kSkip, kPeeked) == 4);
  CHECK(pair.from.relay(pair.from, 4, kSkip, kPeeked) == 0);
  pair.into.list()->jobs()[2].length = 299;
  CHECK(pair.from.relay(pair.into, 4, kSkip, kPeeked) == 2);
}

void writesNoHeaderThatIsThere() {
  // Of all lengths that there are: a header that differs in one byte is written, whichever that is.
  uint8_t header[CopyEngine::kHeaderMax];
  for (uint32_t i = 0; i < sizeof(header); i++) header[i] = static_cast<uint8_t>(i + 1);
  for (uint32_t bytes = 0; bytes <= sizeof(header); bytes++) {
    Pair pair;
    pair.into.setHeader(header, bytes);
    for (uint32_t wrong = 0; wrong <= bytes; wrong++) {
      memcpy(pair.intoFile->data() + kPage, header, bytes);
      pair.intoFile->data()[kPage + wrong] ^= 0x40;
      CHECK(pair.arrives(job(Pair::kFromBase, 0, 100, kFromGuest), target(Pair::kIntoBase, 200, 0)));
      CHECK(memcmp(pair.intoFile->data() + kPage, header, bytes) == 0);
      CHECK(pair.intoFile->data()[kPage + bytes] == 0x11);
    }
  }
  Pair pair;
  uint8_t more[CopyEngine::kHeaderMax + 1] = {};
  pair.into.setHeader(more, sizeof(more));
  CHECK(pair.arrives(job(Pair::kFromBase, 0, 14, kFromGuest), target(Pair::kIntoBase, CopyEngine::kHeaderMax, 0)));
}

void peeksAtTheBeginningAndChecksTheWhole() {
  Pair pair;
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
  const CopyJob source = job(Pair::kFromBase, 0, 302, kFromGuest);
  CHECK(pair.run(source, target(Pair::kIntoBase + kPage - 20, 300, 0)) == kBothOk);
  CHECK(bits->data()[0xffffe / 8] == 0xc0);
  // And where both are in the regions of the job before.
  CHECK(pair.run(source, target(Pair::kIntoBase + kPage, 300, 0)) == kBothOk);
  memset(bits->data(), 0, logBytes);
  CHECK(pair.run(source, target(Pair::kIntoBase + kPage, 300, 0)) == kBothOk);
  CHECK(bits->data()[0xfffff / 8] == 0x80);
  pair.into.clearLog();
  pair.into.setTranslated(true);
  const CopyJob there = target(0x5000, 300, 0);
  CHECK(pair.run(source, there) == Statuses(kCopyOk, kNoTranslation));
  CHECK(pair.into.windows().add({0x5000, 0xfff, Pair::kIntoBase, kWindowReadable}).ok());
  CHECK(pair.run(source, there) == Statuses(kCopyOk, kNoPermission));
  CHECK(pair.into.windows().add({0x5000, 0xfff, Pair::kIntoBase, kWindowWritable}).ok());
  memset(pair.intoFile->data(), 0xee, 4 * kPage);
  pair.from.setTranslated(true);
  CHECK(pair.run(source, there) == Statuses(kNoTranslation, kCopyOk));
  CHECK(pair.intoFile->data()[kPage] == 0xee);
  CHECK(pair.from.windows().add({Pair::kFromBase, 0xff, Pair::kFromBase, kWindowReadable}).ok());
  CHECK(pair.run(source, there) == Statuses(kNoTranslation, kCopyOk));
  CHECK(pair.from.windows().add({Pair::kFromBase + 0x100, 0xff, Pair::kFromBase, kWindowReadable}).ok());
  CHECK(pair.run(source, there) == kBothOk);
  // The source's second window leads back to its first bytes.
  CHECK(pair.intoFile->data()[kPage + 28] == 30 && pair.intoFile->data()[kPage + 28 + 226] == 0);
  pair.into.setTranslated(false);
  pair.from.windows().remove(0, UINT64_MAX);
  CHECK(pair.run(source, target(Pair::kIntoBase, 300, 0)) == Statuses(kNoTranslation, kCopyOk));
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
  from.setPool(pool.data(), pool.size());
  into.setHeader(kHeader, kHeaderBytes);
  uint32_t number;
  CHECK(from.addRegion(foreign(fromFd.get(), 0, 2 * kPage), 0, &number).ok());
  CHECK(into.addRegion(foreign(intoFd.get(), 0, 2 * kPage), 0, &number).ok());
  const auto run = [&](uint64_t address, uint64_t there) {
    from.list()->jobs()[0] = job(address, 0, 302, kFromGuest);
    into.list()->jobs()[0] = target(there, 300, 0);
    if (from.relay(into, 1, kSkip, kPeeked) == 1) return kBothOk;
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

// What one packet comes to, and whether it arrives.
Statuses runModel(Guest& from, Guest& into, const std::vector<uint8_t>& pool, const CopyJob& source, const CopyJob& one,
                  uint32_t headerBytes, uint32_t skip, uint32_t peeked, bool* arrives) {
  bool readOnly = false;
  const uint64_t data = source.length < skip ? 0 : source.length - skip;
  const uint64_t seen = data < peeked ? data : peeked;
  const uint64_t length = headerBytes + data;
  uint32_t sourceStatus = from.check(guestAddressOf(source), source.length, &readOnly);
  const bool isPeeked = source.length >= skip && source.poolOffset + uint64_t{skip} + seen <= pool.size();
  if (sourceStatus == kCopyOk && (!isPeeked || source.direction != kFromGuest)) sourceStatus = kOutsidePool;
  uint32_t status = into.check(guestAddressOf(one), length < one.length ? length : one.length, &readOnly);
  if (status == kCopyOk && one.direction != kToGuest) status = kOutsidePool;
  if (status == kCopyOk && readOnly) status = kReadOnly;
  *arrives = sourceStatus == kCopyOk && status == kCopyOk && length <= one.length;
  for (uint64_t i = 0; *arrives && i < length; i++) {
    const uint64_t at = i - headerBytes;
    const uint8_t byte = i < headerBytes ? kHeader[i]
                         : at < seen     ? pool[source.poolOffset + skip + at]
                                         : *from.at(guestAddressOf(source) + skip + at, &readOnly);
    *into.at(guestAddressOf(one) + i, &readOnly) = byte;
  }
  return {sourceStatus, status};
}

// Returns how many packets arrived.
uint32_t agreesWithTheModel(uint32_t seed) {
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
    if (pick(4) != 0) return part.address + pick(part.bytes / 4 + 1);
    return pick(10) == 0 ? random() : part.address + pick(part.bytes + 4) - pick(3);
  };
  uint32_t total = 0;
  for (int round = 0; round < 40; round++) {
    const uint32_t count = static_cast<uint32_t>(pick(kJobs + 1));
    const uint32_t skip = static_cast<uint32_t>(pick(pick(4) == 0 ? 60 : 14));
    const uint32_t peeked = static_cast<uint32_t>(pick(60));
    const uint32_t headerBytes = static_cast<uint32_t>(pick(kHeaderBytes + 1));
    engines[1].setHeader(kHeader, headerBytes);
    for (uint32_t i = 0; i < kJobs; i++) {
      const uint64_t longest[] = {20, 40, 100, 1000};
      const uint32_t length = static_cast<uint32_t>(pick(100) == 0 ? random() : 14 + pick(longest[pick(4)]));
      const uint32_t poolOffset = static_cast<uint32_t>(pick(60) == 0 ? random() : pick(pool.size() - 100));
      const uint32_t direction = pick(60) == 0 ? kToGuest : kFromGuest;
      engines[0].list()->jobs()[i] = job(somewhere(guests[0]), poolOffset, length, direction);
      const uint64_t room = pick(8) == 0 ? pick(2000) : 3000;
      CopyJob& one = engines[1].list()->jobs()[i];
      one = target(somewhere(guests[1]), static_cast<uint32_t>(room), static_cast<uint32_t>(pick(kJobs)));
      if (pick(60) == 0) one.direction = static_cast<uint32_t>(random());
    }
    const uint32_t arrived = engines[0].relay(engines[1], count, skip, peeked);
    CHECK(arrived <= count);
    total += arrived;
    for (uint32_t i = 0; i < count && i <= arrived; i++) {
      const CopyJob& one = engines[1].list()->jobs()[i];
      const CopyJob& source = engines[0].list()->jobs()[one.source];
      bool arrives;
      const Statuses expected = runModel(guests[0], guests[1], pool, source, one, headerBytes, skip, peeked, &arrives);
      CHECK(arrives == (i < arrived));
      if (!arrives) CHECK(expected == Statuses(source.status, one.status));
    }
    CHECK(memcmp(whole[0]->data(), guests[0].file.data(), kFileBytes) == 0);
    CHECK(memcmp(whole[1]->data(), guests[1].file.data(), kFileBytes) == 0);
  }
  return total;
}

}  // namespace

int main(int argumentCount, char** arguments) {
  keepsToTheEdgesOfBothSides();
  writesNoHeaderThatIsThere();
  peeksAtTheBeginningAndChecksTheWhole();
  honoursWindowsAndLog();
  saysWhichSideIsGone();
  const uint32_t seeds = argumentCount > 1 ? static_cast<uint32_t>(atoi(arguments[1])) : 60;
  uint32_t arrived = 0;
  for (uint32_t seed = 1; seed <= seeds; seed++) {
    currentSeed = seed;
    arrived += agreesWithTheModel(seed);
  }
  // Or the model would have had nothing to say.
  CHECK(arrived > 20 * seeds);
  puts("ok");
  return 0;
}
