// The copy engine and the memory table alone, for a build with sanitizers: edges by hand, then random job lists against
// a model that copies byte by byte.
#include "copy_engine.h"

#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "check.h"
#include "engine.h"
#include "short_copy.h"

using namespace virtio_pmd;

namespace {

// Every length and alignment of the inline moves, on exact allocations so that a byte too many is an ASan error.
void copiesEveryLength() {
  for (uint32_t length = 0; length <= 600; length++) {
    for (const uint32_t shift : {0u, 1u, 7u, 15u}) {
      std::vector<uint8_t> from(length + shift);
      std::vector<uint8_t> to(length + shift, 0xee);
      for (uint32_t i = 0; i < from.size(); i++) from[i] = static_cast<uint8_t>(i * 7 + 1);
      copyBytes(to.data() + shift, from.data() + shift, length);
      for (uint32_t i = 0; i < shift; i++) CHECK(to[i] == 0xee);
      for (uint32_t i = shift; i < to.size(); i++) CHECK(to[i] == from[i]);
    }
  }
}

void keepsToRegionEdges() {
  const UniqueFd fd = memory(3 * 4096);
  std::vector<uint8_t> pool(64 * 1024);
  CopyEngine engine(JobList::create(4));
  engine.setPool(pool.data(), pool.size());
  uint32_t number;
  // Two neighbours whose file parts lie the other way round, a hole, then a region that may only be read.
  CHECK(engine.addRegion(foreign(fd.get(), 4096, 4096), 0x10000, &number).ok());
  CHECK(engine.addRegion(foreign(fd.get(), 0, 4096), 0x11000, &number).ok());
  CHECK(engine.addRegion(foreign(fd.get(), 8192, 4096, true), 0x13000, &number).ok());

  CHECK(runOne(engine, job(0x10000, 0, 8192, kFromGuest)) == kCopyOk);
  CHECK(runOne(engine, job(0x10fff, 0, 2, kToGuest)) == kCopyOk);
  CHECK(runOne(engine, job(0x11fff, 0, 1, kFromGuest)) == kCopyOk);
  CHECK(runOne(engine, job(0x11fff, 0, 2, kFromGuest)) == kOutsideMemory);
  CHECK(runOne(engine, job(0x12000, 0, 1, kFromGuest)) == kOutsideMemory);
  CHECK(runOne(engine, job(0x12fff, 0, 2, kFromGuest)) == kOutsideMemory);
  CHECK(runOne(engine, job(0xffff, 0, 2, kFromGuest)) == kOutsideMemory);
  CHECK(runOne(engine, job(0x10000, 0, 0xffffffff, kFromGuest)) == kOutsideMemory);
  CHECK(runOne(engine, job(UINT64_MAX, 0, 2, kFromGuest)) == kOutsideMemory);
  CHECK(runOne(engine, job(UINT64_MAX, 0, 0xffffffff, kFromGuest)) == kOutsideMemory);
  CHECK(runOne(engine, job(0x13000, 0, 16, kFromGuest)) == kCopyOk);
  CHECK(runOne(engine, job(0x13000, 0, 16, kToGuest)) == kReadOnly);
  // An empty job still needs an address that exists.
  CHECK(runOne(engine, job(0x10000, 0, 0, kToGuest)) == kCopyOk);
  CHECK(runOne(engine, job(0x12000, 0, 0, kToGuest)) == kOutsideMemory);
  // The pool, to its last byte.
  const uint32_t end = static_cast<uint32_t>(pool.size());
  CHECK(runOne(engine, job(0x10000, end - 16, 16, kFromGuest)) == kCopyOk);
  CHECK(runOne(engine, job(0x10000, end - 15, 16, kFromGuest)) == kOutsidePool);
  CHECK(runOne(engine, job(0x10000, end, 0, kFromGuest)) == kCopyOk);
  CHECK(runOne(engine, job(0x10000, end + 1, 0, kFromGuest)) == kOutsidePool);
  CHECK(runOne(engine, job(0x10000, 0xffffffff, 16, kFromGuest)) == kOutsidePool);
  CHECK(runOne(engine, job(0x10000, 0, 16, 2)) == kOutsidePool);
  // More jobs than the list holds count as failed, and nothing beyond it is touched.
  for (int i = 0; i < 4; i++) engine.list()->jobs()[i] = job(0x10000, 0, 16, kFromGuest);
  CHECK(engine.run(UINT32_MAX) == UINT32_MAX - 4);
}

void refusesBadRegions() {
  const UniqueFd fd = memory(16 * 4096);
  CopyEngine engine(JobList::create(1));
  uint32_t number;
  CHECK(engine.addRegion(foreign(fd.get(), 0, 8192), 0x10000, &number).ok());
  CHECK(!engine.addRegion(foreign(fd.get(), 0, 8192), 0x11fff, &number).ok());
  CHECK(!engine.addRegion(foreign(fd.get(), 0, 2), 0xffff, &number).ok());
  CHECK(!engine.addRegion(foreign(fd.get(), 0, 16 * 4096), 0x8000, &number).ok());
  CHECK(!engine.addRegion(foreign(fd.get(), 0, 1), 0x10000, &number).ok());
  CHECK(!engine.addRegion(foreign(fd.get(), 0, 0), 0x20000, &number).ok());
  CHECK(!engine.addRegion(foreign(fd.get(), 16 * 4096, 1), 0x20000, &number).ok());
  CHECK(!engine.addRegion(foreign(fd.get(), UINT64_MAX - 4095, 8192), 0x20000, &number).ok());
  CHECK(!engine.addRegion(foreign(fd.get(), 0, UINT64_MAX), 0x20000, &number).ok());
  CHECK(!engine.addRegion(foreign(fd.get(), 0, 4096), UINT64_MAX - 4094, &number).ok());
  CHECK(!engine.addRegion(foreign(-1, 0, 4096), 0x20000, &number).ok());
  // Up to the very last address there is.
  CHECK(engine.addRegion(foreign(fd.get(), 0, 4096), UINT64_MAX - 4095, &number).ok());
  std::vector<uint8_t> pool(8192);
  engine.setPool(pool.data(), pool.size());
  CHECK(runOne(engine, job(UINT64_MAX, 0, 1, kFromGuest)) == kCopyOk);
  CHECK(runOne(engine, job(UINT64_MAX, 0, 2, kFromGuest)) == kOutsideMemory);
  CHECK(engine.memory().size() == 2);
}

// A bad job must not keep the others of its burst from being done.
void holdsManyRegions() {
  constexpr uint32_t kRegions = 509;
  const UniqueFd fd = memory(kRegions * 4096);
  const std::shared_ptr<Mapping> all = [&] {
    std::shared_ptr<Mapping> mapping;
    MappingRequest request;
    request.fd = fd.get();
    request.bytes = kRegions * 4096;
    CHECK(Mapping::open(request, &mapping).ok());
    return mapping;
  }();
  CopyEngine engine(JobList::create(kRegions));
  std::vector<uint8_t> pool(kRegions * 64);
  engine.setPool(pool.data(), pool.size());
  std::vector<uint32_t> numbers(kRegions);
  // In an order that makes the table sort; two pages a region, so every second page is a hole.
  for (uint32_t i = 0; i < kRegions; i++) {
    const uint32_t which = (i * 100) % kRegions;
    CHECK(engine.addRegion(foreign(fd.get(), which * 4096ull, 4096), which * 8192ull, &numbers[which]).ok());
    memset(all->data() + which * 4096ull, static_cast<int>(which % 251), 4096);
  }
  for (uint32_t i = 0; i < kRegions; i++)
    engine.list()->jobs()[i] = job(i * 8192ull + (i == 7 ? 4096 : 0), i * 64, 64, kFromGuest);
  CHECK(engine.run(kRegions) == 1);
  for (uint32_t i = 0; i < kRegions; i++) CHECK(pool[i * 64 + 63] == (i == 7 ? 0 : i % 251));
  CHECK(engine.removeRegion(numbers[3]) != nullptr);
  CHECK(engine.removeRegion(numbers[3]) == nullptr);
  CHECK(runOne(engine, job(3 * 8192, 0, 1, kFromGuest)) == kOutsideMemory);
  CHECK(engine.removeAllRegions().size() == kRegions - 1);
  CHECK(runOne(engine, job(0, 0, 0, kFromGuest)) == kOutsideMemory);
}

struct Model {
  struct Part {
    uint64_t guestAddress;
    uint64_t bytes;
    uint64_t fileOffset;
    bool readOnly;
  };
  std::map<uint32_t, Part> parts;
  std::vector<uint8_t> file;
  std::vector<uint8_t> pool;

  // The file offset of one guest byte, or -1.
  int64_t place(uint64_t address, bool* readOnly) const {
    for (const auto& [number, part] : parts) {
      if (address >= part.guestAddress && address - part.guestAddress < part.bytes) {
        *readOnly = part.readOnly;
        return static_cast<int64_t>(part.fileOffset + (address - part.guestAddress));
      }
    }
    return -1;
  }

  uint32_t run(const CopyJob& one) {
    const uint64_t guest = one.guestLow | static_cast<uint64_t>(one.guestHigh) << 32;
    bool anyReadOnly = false;
    for (uint64_t i = 0; i < (one.length == 0 ? 1 : one.length); i++) {
      bool readOnly = false;
      if (guest + i < guest || place(guest + i, &readOnly) < 0) return kOutsideMemory;
      anyReadOnly = anyReadOnly || readOnly;
    }
    if (static_cast<uint64_t>(one.poolOffset) + one.length > pool.size()) return kOutsidePool;
    if (one.direction > 1) return kOutsidePool;
    if (one.direction == kToGuest && anyReadOnly) return kReadOnly;
    for (uint64_t i = 0; i < one.length; i++) {
      bool readOnly = false;
      uint8_t& guestByte = file[static_cast<size_t>(place(guest + i, &readOnly))];
      uint8_t& poolByte = pool[one.poolOffset + i];
      if (one.direction == kToGuest)
        guestByte = poolByte;
      else
        poolByte = guestByte;
    }
    return kCopyOk;
  }
};

void agreesWithTheModel(uint32_t seed) {
  std::mt19937_64 random(seed);
  const auto pick = [&random](uint64_t bound) { return random() % bound; };
  constexpr uint64_t kFileBytes = 64 * 4096;
  constexpr uint64_t kPoolBytes = 16 * 1024;
  const UniqueFd fd = memory(kFileBytes);
  std::shared_ptr<Mapping> whole;
  MappingRequest request;
  request.fd = fd.get();
  request.bytes = kFileBytes;
  CHECK(Mapping::open(request, &whole).ok());
  Model model;
  model.file.resize(kFileBytes);
  model.pool.resize(kPoolBytes);
  for (auto& byte : model.file) byte = static_cast<uint8_t>(random());
  for (auto& byte : model.pool) byte = static_cast<uint8_t>(random());
  memcpy(whole->data(), model.file.data(), kFileBytes);
  std::vector<uint8_t> pool = model.pool;
  CopyEngine engine(JobList::create(64));
  engine.setPool(pool.data(), pool.size());

  // Regions of odd sizes close together, some touching, one group at the end of the address space. Each takes its own
  // part of the file, for with two regions over one byte the order inside a copy would show.
  uint64_t fileOffset = 0;
  uint64_t guest = pick(3) == 0 ? UINT64_MAX - 20000 : 0xfffff000 + pick(8192);
  while (fileOffset < kFileBytes - 4096 && model.parts.size() < 40) {
    const uint64_t bytes = 1 + pick(3000);
    const bool readOnly = pick(5) == 0;
    uint32_t number = UINT32_MAX;
    const bool fits = guest + bytes - 1 >= guest;
    const bool added = engine.addRegion(foreign(fd.get(), fileOffset, bytes, readOnly), guest, &number).ok();
    CHECK(added == fits);
    if (!added) break;
    model.parts[number] = {guest, bytes, fileOffset, readOnly};
    fileOffset += bytes + pick(50);
    guest += bytes;
    if (pick(3) == 0) guest += pick(100);
    if (guest < bytes) break;
  }

  for (int round = 0; round < 60; round++) {
    if (!model.parts.empty() && pick(20) == 0) {
      auto victim = model.parts.begin();
      std::advance(victim, pick(model.parts.size()));
      CHECK(engine.removeRegion(victim->first) != nullptr);
      model.parts.erase(victim);
    }
    const uint32_t count = static_cast<uint32_t>(pick(65));
    uint32_t expectedFailures = 0;
    std::vector<CopyJob> jobs;
    for (uint32_t i = 0; i < count; i++) {
      uint64_t address = random();
      if (!model.parts.empty() && pick(20) != 0) {
        auto part = model.parts.begin();
        std::advance(part, pick(model.parts.size()));
        address = part->second.guestAddress + pick(part->second.bytes + 4) - pick(3);
      }
      const uint64_t longest[] = {4, 80, 300, 2000, 9000};
      uint32_t length = static_cast<uint32_t>(pick(longest[pick(5)]));
      if (pick(50) == 0) length = static_cast<uint32_t>(random());
      const uint32_t poolOffset = static_cast<uint32_t>(pick(20) == 0 ? random() : pick(kPoolBytes));
      jobs.push_back(job(address, poolOffset, length, static_cast<uint32_t>(pick(40) == 0 ? random() : pick(2))));
      engine.list()->jobs()[i] = jobs[i];
    }
    const uint32_t failures = engine.run(count);
    for (uint32_t i = 0; i < count; i++) {
      const uint32_t expected = model.run(jobs[i]);
      CHECK(engine.list()->jobs()[i].status == expected);
      if (expected != kCopyOk) expectedFailures++;
    }
    CHECK(failures == expectedFailures);
    CHECK(memcmp(pool.data(), model.pool.data(), kPoolBytes) == 0);
    CHECK(memcmp(whole->data(), model.file.data(), kFileBytes) == 0);
  }
}

}  // namespace

int main(int argumentCount, char** arguments) {
  copiesEveryLength();
  keepsToRegionEdges();
  refusesBadRegions();
  holdsManyRegions();
  const uint32_t seeds = argumentCount > 1 ? static_cast<uint32_t>(atoi(arguments[1])) : 60;
  for (uint32_t seed = 1; seed <= seeds; seed++) {
    currentSeed = seed;
    agreesWithTheModel(seed);
  }
  puts("ok");
  return 0;
}
