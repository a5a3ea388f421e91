// Windows, and the copy engine over windows, regions and a log at once, against models that go byte by byte.
#include <algorithm>
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
constexpr uint32_t kBoth = kWindowReadable | kWindowWritable;

// Each byte of an IOVA space of `space` bytes: which window it is in, if any, and where that leads.
struct WindowModel {
  struct Byte {
    uint32_t window = 0;
    uint32_t access = 0;
    uint64_t guest = 0;
  };
  uint64_t base;
  std::vector<Byte> bytes;
  uint32_t next = 1;

  WindowModel(uint64_t first, uint64_t space) : base(first), bytes(space) {}

  void add(const Window& window) {
    const uint64_t at = window.iova - base;
    const uint64_t end = at + window.lastOffset + 1;
    // What is right of the new one is a window of its own, also where it was one with what is left of it.
    if (end < bytes.size() && bytes[end].window != 0) {
      const uint32_t split = bytes[end].window;
      const uint32_t fresh = next++;
      for (uint64_t i = end; i < bytes.size() && bytes[i].window == split; i++) bytes[i].window = fresh;
    }
    const uint32_t number = next++;
    for (uint64_t i = at; i < end; i++) bytes[i] = {number, window.access, window.guestAddress + (i - at)};
  }

  void remove(uint64_t iova, uint64_t lastOffset) {
    std::vector<bool> isGone(next);
    for (uint64_t i = 0; i < bytes.size(); i++) {
      if (base + i >= iova && base + i - iova <= lastOffset) isGone[bytes[i].window] = true;
    }
    for (Byte& byte : bytes) {
      if (isGone[byte.window]) byte = Byte();
    }
  }

  const Byte& at(uint64_t iova) const {
    static const Byte none;
    return iova - base < bytes.size() ? bytes[iova - base] : none;
  }

  // The first byte a job lacks, as CopyEngine::missing says.
  bool missing(uint64_t iova, uint64_t length, uint32_t access, uint64_t* first) const {
    for (uint64_t i = 0; i < std::max<uint64_t>(length, 1); i++) {
      if (iova + i < iova) return false;
      const Byte& byte = at(iova + i);
      if (byte.window != 0 && (byte.access & access) == access) continue;
      *first = iova + i;
      return true;
    }
    return false;
  }

  size_t count() const {
    size_t windows = 0;
    for (uint64_t i = 0; i < bytes.size(); i++) {
      if (bytes[i].window != 0 && (i == 0 || bytes[i].window != bytes[i - 1].window)) windows++;
    }
    return windows;
  }
};

void windowsAgreeWithTheModel(uint32_t seed) {
  std::mt19937_64 random(seed);
  const auto pick = [&random](uint64_t bound) { return random() % bound; };
  constexpr uint64_t kSpace = 300;
  const uint64_t bases[] = {0, 0xffffff80, UINT64_MAX - (kSpace - 1)};
  const uint64_t base = bases[seed % 3];
  WindowModel model(base, kSpace);
  TranslationWindows windows;
  for (int step = 0; step < 2000; step++) {
    const uint64_t at = pick(kSpace);
    const uint64_t most = pick(4) == 0 ? kSpace : 20;
    const uint64_t lastOffset = std::min(pick(most), kSpace - 1 - at);
    const uint64_t what = pick(100);
    if (what < 60) {
      const Window window = {base + at, lastOffset, pick(3) == 0 ? UINT64_MAX - lastOffset : random() >> 1,
                             static_cast<uint32_t>(pick(4))};
      CHECK(windows.add(window).ok());
      model.add(window);
    } else if (what < 98) {
      // Too far is to the end.
      const uint64_t span = base + at + lastOffset == UINT64_MAX && pick(2) == 0 ? UINT64_MAX - pick(9) : lastOffset;
      windows.remove(base + at, span);
      model.remove(base + at, span);
    } else if (what == 98) {
      windows.remove(0, UINT64_MAX);
      model.remove(0, UINT64_MAX);
    } else {
      windows.clear();
      model.remove(0, UINT64_MAX);
    }
    CHECK(windows.size() == model.count());
    for (int look = 0; look < 8; look++) {
      const uint64_t iova = base + pick(kSpace + 20) - (base == 0 ? 0 : pick(10));
      const Window* const found = windows.find(iova);
      const WindowModel::Byte& byte = model.at(iova);
      CHECK((found != nullptr) == (byte.window != 0));
      if (found != nullptr) {
        CHECK(found->guestAddress + (iova - found->iova) == byte.guest && found->access == byte.access);
      }
      const uint64_t bytes = pick(60);
      const uint32_t access = static_cast<uint32_t>(pick(4));
      uint64_t bad = 0;
      uint64_t expectedBad = 0;
      bool isKnown = false;
      const bool allowed = windows.allow(iova, bytes, access, &bad, &isKnown);
      CHECK(allowed == !model.missing(iova, bytes, access, &expectedBad));
      if (!allowed) CHECK(bad == expectedBad && isKnown == (model.at(bad).window != 0));
    }
  }
}

void refusesBadWindows() {
  TranslationWindows windows;
  CHECK(!windows.add({UINT64_MAX, 1, 0, kBoth}).ok());
  CHECK(!windows.add({1, UINT64_MAX, 0, kBoth}).ok());
  CHECK(!windows.add({0, UINT64_MAX, 1, kBoth}).ok());
  CHECK(!windows.add({0, 1, UINT64_MAX, kBoth}).ok());
  CHECK(windows.size() == 0);
  // Everything, onto itself; then a hole in it.
  CHECK(windows.add({0, UINT64_MAX, 0, kBoth}).ok());
  CHECK(windows.find(UINT64_MAX)->lastIova() == UINT64_MAX);
  CHECK(windows.add({0x1000, 0xfff, 0x5000, kWindowReadable}).ok());
  CHECK(windows.size() == 3);
  CHECK(windows.find(0xfff)->lastIova() == 0xfff);
  CHECK(windows.find(0x1fff)->guestAddress == 0x5000);
  CHECK(windows.find(0x2000)->guestAddress == 0x2000 && windows.find(UINT64_MAX)->lastIova() == UINT64_MAX);
  CHECK(windows.add({UINT64_MAX, 0, UINT64_MAX, 0}).ok());
  CHECK(windows.find(UINT64_MAX - 1)->lastIova() == UINT64_MAX - 1);
  CHECK(windows.add({0, UINT64_MAX, 0, kBoth}).ok());
  CHECK(windows.size() == 1);
}

// A guest that asks for ever more (abuse case B50): bounded, the newest is there, and those that stay are right.
void forgetsAtRandom() {
  TranslationWindows windows;
  for (uint64_t i = 0; i < 10000; i++) {
    CHECK(windows.add({i * 2 * kPage, kPage - 1, i << 32, kBoth}).ok());
    CHECK(windows.size() == std::min<uint64_t>(i + 1, TranslationWindows::kMost));
    CHECK(windows.find(i * 2 * kPage) != nullptr);
  }
  size_t there = 0;
  for (uint64_t i = 0; i < 10000; i++) {
    const Window* const window = windows.find(i * 2 * kPage + 5);
    if (window == nullptr) continue;
    there++;
    CHECK(window->guestAddress == i << 32);
    CHECK(windows.find(i * 2 * kPage + kPage) == nullptr);
  }
  CHECK(there == TranslationWindows::kMost);
  // A full table in which each new window splits another in two.
  windows.clear();
  for (uint64_t i = 1; i < 20000; i++) {
    const uint64_t iova = (i * 2654435761 % 100000) * kPage;
    CHECK(windows.add({iova, kPage - 1, 0, kBoth}).ok());
    CHECK(windows.add({iova + 100, 0, i, kWindowReadable}).ok());
    CHECK(windows.size() <= TranslationWindows::kMost);
    CHECK(windows.find(iova + 100) != nullptr);
    CHECK(windows.find(iova + 100)->guestAddress == i);
  }
}

// A view is one piece of memory: neither two regions whose offsets happen to follow each other, nor one with a gap.
void viewsAreOnePiece() {
  const UniqueFd fd = memory(4 * kPage);
  CopyEngine engine(JobList::create(1));
  uint32_t first;
  uint32_t second;
  CHECK(engine.addRegion(foreign(fd.get(), 0, 2 * kPage), 0x10000, &first).ok());
  CHECK(engine.addRegion(foreign(fd.get(), 2 * kPage, 2 * kPage), 0x20000, &second).ok());
  engine.setTranslated(true);
  const auto map = [&](uint64_t iova, uint64_t guest, uint32_t access = kBoth) {
    CHECK(engine.windows().add({iova, kPage - 1, guest, access}).ok());
  };
  uint64_t offset = 99;
  map(0x1000, 0x10000);
  map(0x2000, 0x11000);
  CHECK(engine.inOneRegion(0x1004, kPage, &offset)->number == first && offset == 4);
  CHECK(engine.inOneRegion(0x1000, 2 * kPage, &offset)->number == first && offset == 0);
  CHECK(engine.inOneRegion(0x1000, 2 * kPage + 1, &offset) == nullptr);
  CHECK(engine.inOneRegion(0x1000, 0, &offset) == nullptr);
  map(0x2000, 0x21000);
  CHECK(engine.inOneRegion(0x1000, 2 * kPage, &offset) == nullptr);
  CHECK(engine.inOneRegion(0x2000, kPage, &offset)->number == second && offset == kPage);
  map(0x2000, 0x10000);
  CHECK(engine.inOneRegion(0x1000, 2 * kPage, &offset) == nullptr);
  map(0x2000, 0x11000, kWindowReadable);
  CHECK(engine.inOneRegion(0x1000, 2 * kPage, &offset) == nullptr);
  CHECK(engine.inOneRegion(0x1000, kPage, &offset)->number == first);
  map(0x2000, 0x30000);
  CHECK(engine.inOneRegion(0x2000, 1, &offset) == nullptr);
  engine.setTranslated(false);
  CHECK(engine.inOneRegion(0x1000, 1, &offset) == nullptr);
  CHECK(engine.inOneRegion(0x10000, 2 * kPage, &offset)->number == first);
}

struct Part {
  uint64_t guestAddress;
  uint64_t bytes;
  uint64_t fileOffset;
  bool readOnly;
};

constexpr uint64_t kGuestBytes = 32 * kPage;
constexpr uint64_t kPoolBytes = 16 * 1024;
constexpr uint64_t kLogBytes = 3;

// Regions, windows and log of an engine, and what each job does to them.
struct Model {
  std::map<uint32_t, Part> parts;
  WindowModel windows;
  bool isTranslated = false;
  std::vector<uint8_t> file = std::vector<uint8_t>(kGuestBytes);
  std::vector<uint8_t> pool = std::vector<uint8_t>(kPoolBytes);
  std::vector<uint8_t> log = std::vector<uint8_t>(kLogBytes);
  bool hasLog = false;

  explicit Model(uint64_t iovaBase) : windows(iovaBase, kGuestBytes) {}

  const std::pair<const uint32_t, Part>* regionOf(uint64_t guest) const {
    for (const auto& entry : parts) {
      if (guest >= entry.second.guestAddress && guest - entry.second.guestAddress < entry.second.bytes) return &entry;
    }
    return nullptr;
  }

  uint64_t guestOf(uint64_t address) const { return isTranslated ? windows.at(address).guest : address; }

  uint32_t run(const CopyJob& one) {
    const uint64_t address = one.guestLow | static_cast<uint64_t>(one.guestHigh) << 32;
    const uint64_t looked = one.length == 0 ? 1 : one.length;
    if (address + (looked - 1) < address) return kOutsideMemory;
    uint64_t bad = 0;
    const uint32_t access = one.direction > 1 ? 0 : 1u << one.direction;
    if (isTranslated && windows.missing(address, one.length, access, &bad)) {
      return windows.at(bad).window == 0 ? kNoTranslation : kNoPermission;
    }
    bool anyReadOnly = false;
    for (uint64_t i = 0; i < looked; i++) {
      const auto* const region = regionOf(guestOf(address + i));
      if (region == nullptr) return kOutsideMemory;
      anyReadOnly = anyReadOnly || region->second.readOnly;
    }
    if (static_cast<uint64_t>(one.poolOffset) + one.length > kPoolBytes || one.direction > 1) return kOutsidePool;
    if (one.direction == kToGuest && anyReadOnly) return kReadOnly;
    for (uint64_t i = 0; i < one.length; i++) {
      const uint64_t guest = guestOf(address + i);
      const Part& part = regionOf(guest)->second;
      uint8_t& guestByte = file[part.fileOffset + (guest - part.guestAddress)];
      uint8_t& poolByte = pool[one.poolOffset + i];
      if (one.direction == kFromGuest) {
        poolByte = guestByte;
        continue;
      }
      guestByte = poolByte;
      const uint64_t page = guest / kPage;
      if (hasLog && page < kLogBytes * 8) log[page / 8] |= static_cast<uint8_t>(1 << page % 8);
    }
    return kCopyOk;
  }

  // The region of a view and the offset of its first byte, or null.
  const uint32_t* view(uint64_t address, uint64_t bytes, uint64_t* offset) const {
    uint64_t bad;
    if (bytes == 0 || address + (bytes - 1) < address) return nullptr;
    if (isTranslated && windows.missing(address, bytes, kBoth, &bad)) return nullptr;
    const auto* const first = regionOf(guestOf(address));
    if (first == nullptr) return nullptr;
    *offset = guestOf(address) - first->second.guestAddress;
    for (uint64_t i = 0; i < bytes; i++) {
      const uint64_t guest = guestOf(address + i);
      if (regionOf(guest) != first || guest - first->second.guestAddress != *offset + i) return nullptr;
    }
    return &first->first;
  }
};

void engineAgreesWithTheModel(uint32_t seed, int rounds) {
  std::mt19937_64 random(seed);
  const auto pick = [&random](uint64_t bound) { return random() % bound; };
  const UniqueFd fd = memory(kGuestBytes);
  const UniqueFd logFd = memory(kPage);
  const std::shared_ptr<Mapping> whole = wholeOf(fd, kGuestBytes);
  const std::shared_ptr<Mapping> bits = wholeOf(logFd, kPage);
  // Where the log is of use, or where both spaces end with the addresses.
  const uint64_t guestBase = seed % 4 == 0 ? UINT64_MAX - (kGuestBytes - 1) : 0;
  const uint64_t iovaBase = seed % 3 == 0 ? UINT64_MAX - (kGuestBytes - 1) : 0xfffff000;
  Model model(iovaBase);
  for (auto& byte : model.file) byte = static_cast<uint8_t>(random());
  for (auto& byte : model.pool) byte = static_cast<uint8_t>(random());
  memcpy(whole->data(), model.file.data(), kGuestBytes);
  std::vector<uint8_t> pool = model.pool;
  CopyEngine engine(JobList::create(32));
  engine.setPool(pool.data(), pool.size());

  // Each region takes the part of the file at its own place in the space, so that none shares a byte.
  const auto addRegion = [&] {
    const uint64_t at = pick(kGuestBytes);
    const uint64_t bytes = std::min(1 + pick(pick(3) == 0 ? kGuestBytes : 9000), kGuestBytes - at);
    const bool readOnly = pick(6) == 0;
    uint32_t number = UINT32_MAX;
    if (!engine.addRegion(foreign(fd.get(), at, bytes, readOnly), guestBase + at, &number).ok()) return;
    model.parts[number] = {guestBase + at, bytes, at, readOnly};
  };
  const auto randomWindow = [&] {
    const uint64_t at = pick(kGuestBytes);
    const uint64_t bytes = std::min(1 + pick(pick(4) == 0 ? kGuestBytes : 6000), kGuestBytes - at);
    const uint32_t access = pick(4) == 0 ? static_cast<uint32_t>(pick(4)) : kBoth;
    const uint64_t inGuest = pick(5) == 0 ? at : pick(kGuestBytes - bytes + 1);
    return Window{iovaBase + at, bytes - 1, guestBase + inGuest, access};
  };

  for (int i = 0; i < 12; i++) addRegion();
  for (int round = 0; round < rounds; round++) {
    const uint64_t what = pick(100);
    if (what < 4 && !model.parts.empty()) {
      auto victim = model.parts.begin();
      std::advance(victim, pick(model.parts.size()));
      CHECK(engine.removeRegion(victim->first) != nullptr);
      model.parts.erase(victim);
    } else if (what < 12) {
      addRegion();
    } else if (what < 14 || round == 0) {
      model.isTranslated = pick(4) != 0;
      engine.setTranslated(model.isTranslated);
      model.windows.remove(0, UINT64_MAX);
    } else if (what < 17) {
      model.hasLog = pick(3) != 0;
      if (model.hasLog) {
        CHECK(engine.setLog(logFd.get(), 1, kLogBytes).ok());
      } else {
        engine.clearLog();
      }
    } else if (what < 60 && model.isTranslated) {
      const Window window = randomWindow();
      CHECK(engine.windows().add(window).ok());
      model.windows.add(window);
    } else if (what < 66 && model.isTranslated) {
      const Window window = randomWindow();
      engine.windows().remove(window.iova, window.lastOffset % 100);
      model.windows.remove(window.iova, window.lastOffset % 100);
    }

    const uint32_t count = static_cast<uint32_t>(pick(9));
    std::vector<CopyJob> jobs;
    for (uint32_t i = 0; i < count; i++) {
      const uint64_t base = model.isTranslated ? iovaBase : guestBase;
      const uint64_t address = pick(30) == 0 ? random() : base + pick(kGuestBytes + 8) - pick(8);
      const uint64_t longest[] = {4, 80, 300, 2000, 9000};
      uint32_t length = static_cast<uint32_t>(pick(longest[pick(5)]));
      if (pick(60) == 0) length = static_cast<uint32_t>(random() % kGuestBytes * 2);
      const uint32_t poolOffset = static_cast<uint32_t>(pick(40) == 0 ? random() : pick(kPoolBytes - 2000));
      jobs.push_back(job(address, poolOffset, length, static_cast<uint32_t>(pick(60) == 0 ? random() : pick(2))));
      engine.list()->jobs()[i] = jobs[i];
    }
    uint32_t expectedFailures = 0;
    const uint32_t failures = engine.run(count);
    for (uint32_t i = 0; i < count; i++) {
      const uint32_t expected = model.run(jobs[i]);
      CHECK(engine.list()->jobs()[i].status == expected);
      if (expected != kCopyOk) expectedFailures++;
      const uint64_t address = jobs[i].guestLow | static_cast<uint64_t>(jobs[i].guestHigh) << 32;
      uint64_t first = 0;
      uint64_t expectedFirst = 0;
      const uint32_t direction = jobs[i].direction & 1;
      const bool isMissing = engine.missing(address, jobs[i].length, direction, &first);
      CHECK(isMissing ==
            (model.isTranslated && model.windows.missing(address, jobs[i].length, 1u << direction, &expectedFirst)));
      CHECK(first == expectedFirst);
      uint64_t offset = 0;
      uint64_t expectedOffset = 0;
      const Region* const region = engine.inOneRegion(address, jobs[i].length, &offset);
      const uint32_t* const number = model.view(address, jobs[i].length, &expectedOffset);
      CHECK((region != nullptr) == (number != nullptr));
      if (region != nullptr) CHECK(region->number == *number && offset == expectedOffset);
    }
    CHECK(failures == expectedFailures);
    CHECK(memcmp(pool.data(), model.pool.data(), kPoolBytes) == 0);
    CHECK(memcmp(whole->data(), model.file.data(), kGuestBytes) == 0);
    CHECK(memcmp(bits->data() + 1, model.log.data(), kLogBytes) == 0);
    CHECK(bits->data()[0] == 0 && bits->data()[1 + kLogBytes] == 0);
    memset(bits->data(), 0, kPage);
    std::fill(model.log.begin(), model.log.end(), 0);
  }
}

}  // namespace

int main(int argumentCount, char** arguments) {
  refusesBadWindows();
  forgetsAtRandom();
  viewsAreOnePiece();
  const uint32_t seeds = argumentCount > 1 ? static_cast<uint32_t>(atoi(arguments[1])) : 30;
  for (uint32_t seed = 1; seed <= seeds; seed++) {
    currentSeed = seed;
    windowsAgreeWithTheModel(seed);
    engineAgreesWithTheModel(seed, 300);
  }
  puts("ok");
  return 0;
}
