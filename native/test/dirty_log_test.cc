// The dirty log: which bits, against a plain model; no bit lost between threads; none set too early; a log that is cut.
#include "dirty_log.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "check.h"
#include "engine.h"

using namespace virtio_pmd;

namespace {

constexpr uint64_t kPage = 4096;

// An ordinary file, which unlike sealed memory can be cut.
UniqueFd temporaryFile(uint64_t bytes) {
  char path[] = "/tmp/virtio-pmd-XXXXXX";
  UniqueFd fd(mkostemp(path, O_CLOEXEC));
  CHECK(fd.valid());
  unlink(path);
  CHECK(ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
  return fd;
}

// Ranges at and around every kind of edge; the bytes beside the log belong to somebody else.
void marksWhatItSays() {
  constexpr uint64_t kOffset = 4099;
  constexpr uint64_t kBytes = 37;
  constexpr uint64_t kPages = kBytes * 8;
  const UniqueFd fd = memory(3 * kPage);
  const std::shared_ptr<Mapping> file = wholeOf(fd, 3 * kPage);
  std::mt19937_64 random(7);
  const auto pick = [&random](uint64_t bound) { return random() % bound; };
  for (int round = 0; round < 4000; round++) {
    DirtyLog log;
    CHECK(log.open(fd.get(), kOffset, kBytes).ok());
    memset(file->data(), 0, 3 * kPage);
    const uint64_t edge = pick(kPages + 20) * kPage;
    const uint64_t address = round % 50 == 0 ? random() : edge + pick(3) - (edge == 0 ? 0 : pick(3));
    const uint64_t sizes[] = {0, 1, 2, kPage, kPage + 1, pick(kPages * kPage), random(), UINT64_MAX};
    const uint64_t bytes = sizes[pick(8)];
    log.mark(address, bytes);
    uint64_t skipped = 0;
    std::vector<uint8_t> expected(3 * kPage);
    if (bytes != 0) {
      const uint64_t last = address + (bytes - 1) < address ? UINT64_MAX : address + (bytes - 1);
      for (uint64_t page = 0; page < kPages; page++) {
        const bool isDirty = address <= page * kPage + (kPage - 1) && last >= page * kPage;
        if (isDirty) expected[kOffset + page / 8] |= static_cast<uint8_t>(1 << page % 8);
      }
      const uint64_t firstBeyond = std::max(address / kPage, kPages);
      if (last / kPage >= firstBeyond) skipped = last / kPage - firstBeyond + 1;
    }
    CHECK(memcmp(file->data(), expected.data(), expected.size()) == 0);
    CHECK(log.skipped() == skipped);
  }
}

void keepsTheOneBeforeWhenRefused() {
  const UniqueFd fd = memory(kPage);
  DirtyLog log;
  CHECK(!log.open(fd.get(), 0, kPage + 1).ok());
  CHECK(!log.open(fd.get(), 1, kPage).ok());
  CHECK(!log.open(fd.get(), 0, 0).ok());
  CHECK(!log.open(fd.get(), UINT64_MAX, 2).ok());
  CHECK(!log.open(-1, 0, 1).ok());
  CHECK(!log.isOpen());
  log.mark(0, 1);
  CHECK(log.open(fd.get(), 0, 2).ok());
  CHECK(!log.open(fd.get(), kPage, 1).ok());
  CHECK(log.isOpen());
  log.mark(9 * kPage, 1);
  const std::shared_ptr<Mapping> file = wholeOf(fd, kPage);
  CHECK(file->data()[1] == 2);
  log.close();
  log.close();
  log.mark(0, 1);
  CHECK(file->data()[0] == 0);
}

// Threads that share a byte of the log: what one marks is there until it takes the bit out itself.
void losesNoBit(int rounds) {
  const UniqueFd fd = memory(kPage);
  std::atomic<int> ready{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 2; t++) {
    threads.emplace_back([&, t] {
      DirtyLog log;
      CHECK(log.open(fd.get(), 0, 1).ok());
      const std::shared_ptr<Mapping> file = wholeOf(fd, kPage);
      const uint8_t bit = static_cast<uint8_t>(1 << t);
      ready++;
      while (ready.load() < 2) sched_yield();
      for (int round = 0; round < rounds; round++) {
        log.mark(t * kPage, 1);
        const uint8_t before = __atomic_fetch_and(&file->data()[0], static_cast<uint8_t>(~bit), __ATOMIC_SEQ_CST);
        CHECK((before & bit) != 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A front-end that takes bits out while jobs write, and copies the pages of those it took, has the same memory as soon
// as the jobs are done. Each round ends in one, for only the last mark of a page could be too early and never be
// noticed.
void marksAfterTheBytes(int rounds) {
  constexpr uint64_t kPages = 16;
  constexpr uint32_t kLength = 3 * kPage;
  const UniqueFd guestFd = memory(kPages * kPage);
  const UniqueFd logFd = memory(kPage);
  const std::shared_ptr<Mapping> guest = wholeOf(guestFd, kPages * kPage);
  const std::shared_ptr<Mapping> bits = wholeOf(logFd, kPage);
  std::vector<uint8_t> copy(kPages * kPage);
  std::atomic<int> begun{0};
  std::atomic<int> done{0};
  std::thread writer([&] {
    CopyEngine engine(JobList::create(4));
    uint32_t number;
    CHECK(engine.addRegion(foreign(guestFd.get(), 0, kPages * kPage), 0, &number).ok());
    CHECK(engine.setLog(logFd.get(), 0, kPages / 8).ok());
    std::vector<uint8_t> pool(kLength);
    engine.setPool(pool.data(), pool.size());
    std::mt19937_64 random(3);
    for (int round = 1; round <= rounds; round++) {
      memset(pool.data(), round % 251, pool.size());
      for (int i = 0; i < 4; i++) {
        engine.list()->jobs()[i] = job(random() % (kPages * kPage - kLength), 0, kLength, kToGuest);
      }
      while (begun.load() < round) sched_yield();
      CHECK(engine.run(4) == 0);
      done = round;
    }
  });
  const auto collect = [&] {
    for (uint64_t byte = 0; byte < kPages / 8; byte++) {
      const uint8_t taken = __atomic_exchange_n(&bits->data()[byte], uint8_t{0}, __ATOMIC_SEQ_CST);
      for (uint64_t bit = 0; bit < 8; bit++) {
        const uint64_t at = (byte * 8 + bit) * kPage;
        if ((taken >> bit & 1) != 0) memcpy(&copy[at], guest->data() + at, kPage);
      }
    }
  };
  for (int round = 1; round <= rounds; round++) {
    begun = round;
    while (done.load() < round) collect();
    collect();
    CHECK(memcmp(copy.data(), guest->data(), copy.size()) == 0);
  }
  writer.join();
}

void survivesACutLog() {
  const UniqueFd fd = temporaryFile(2 * kPage);
  const UniqueFd guestFd = memory(kPage);
  CopyEngine engine(JobList::create(1));
  uint32_t number;
  CHECK(engine.addRegion(foreign(guestFd.get(), 0, kPage), 0, &number).ok());
  CHECK(engine.setLog(fd.get(), 0, 2 * kPage).ok());
  std::vector<uint8_t> pool(64, 5);
  engine.setPool(pool.data(), pool.size());
  CHECK(ftruncate(fd.get(), 0) == 0);
  CHECK(engine.faults() == 0);
  // The bytes are where they should be; that the log is not tells the count.
  CHECK(runOne(engine, job(0, 0, 64, kToGuest)) == kCopyOk);
  CHECK(wholeOf(guestFd, kPage)->data()[63] == 5);
  CHECK(engine.faults() == 1);
  engine.log().mark(8 * kPage * kPage, 1);
  CHECK(engine.faults() == 2);
  engine.clearLog();
  CHECK(engine.faults() == 2);
}

// Half of the job's pages are gone: all of them are marked, for who knows which were written.
void marksAJobThatFaults() {
  const UniqueFd guestFd = temporaryFile(4 * kPage);
  const UniqueFd logFd = memory(kPage);
  for (const bool isOneRegion : {true, false}) {
    CHECK(ftruncate(guestFd.get(), 4 * kPage) == 0);
    CopyEngine engine(JobList::create(1));
    uint32_t number;
    if (isOneRegion) {
      CHECK(engine.addRegion(foreign(guestFd.get(), 0, 4 * kPage), 0, &number).ok());
    } else {
      CHECK(engine.addRegion(foreign(guestFd.get(), 0, 2 * kPage), 0, &number).ok());
      CHECK(engine.addRegion(foreign(guestFd.get(), 2 * kPage, 2 * kPage), 2 * kPage, &number).ok());
    }
    CHECK(engine.setLog(logFd.get(), 0, 1).ok());
    std::vector<uint8_t> pool(4 * kPage, 5);
    engine.setPool(pool.data(), pool.size());
    CHECK(ftruncate(guestFd.get(), kPage) == 0);
    const std::shared_ptr<Mapping> bits = wholeOf(logFd, kPage);
    bits->data()[0] = 0;
    CHECK(runOne(engine, job(100, 0, 2 * kPage, kToGuest)) == kFault);
    CHECK(bits->data()[0] == 7);
    bits->data()[0] = 0;
    CHECK(runOne(engine, job(100, 0, 2 * kPage, kFromGuest)) != kOutsideMemory);
    CHECK(bits->data()[0] == 0);
  }
}

}  // namespace

int main(int argumentCount, char** arguments) {
  const int scale = argumentCount > 1 ? atoi(arguments[1]) : 10;
  // Sanitizers have a handler of their own, which would end the process.
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  sigaction(SIGBUS, &standard, nullptr);
  marksWhatItSays();
  keepsTheOneBeforeWhenRefused();
  losesNoBit(scale * 20000);
  marksAfterTheBytes(scale * 100);
  survivesACutLog();
  marksAJobThatFaults();
  puts("ok");
  return 0;
}
