// Truncated files under mappings, in many threads at once, for a build with sanitizers.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "check.h"
#include "copy_engine.h"

using namespace virtio_pmd;

namespace {

// An ordinary file, which unlike sealed memory can be cut.
UniqueFd temporaryFile(uint64_t bytes) {
  char path[] = "/tmp/virtio-pmd-XXXXXX";
  UniqueFd fd(mkostemp(path, O_CLOEXEC));
  CHECK(fd.valid());
  unlink(path);
  CHECK(ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
  return fd;
}

std::shared_ptr<Mapping> map(int fd, uint64_t bytes, bool readOnly = false) {
  MappingRequest request;
  request.fd = fd;
  request.bytes = bytes;
  request.readOnly = readOnly;
  std::shared_ptr<Mapping> mapping;
  CHECK(Mapping::open(request, &mapping).ok());
  return mapping;
}

void replacesPagesThatAreGone() {
  const UniqueFd fd = temporaryFile(4 * 4096);
  const std::shared_ptr<Mapping> mapping = map(fd.get(), 4 * 4096);
  memset(mapping->data(), 5, 4 * 4096);
  CHECK(ftruncate(fd.get(), 4096) == 0);
  CHECK(mapping->data()[0] == 5);
  CHECK(mapping->faults() == 0);
  CHECK(mapping->data()[2 * 4096 + 17] == 0);
  CHECK(mapping->faults() == 1);
  mapping->data()[2 * 4096] = 9;
  CHECK(mapping->data()[2 * 4096] == 9);
  CHECK(mapping->faults() == 1);
  mapping->unmap();
  CHECK(mapping->faults() == 1);
}

void reportsFaultsToTheJob() {
  const UniqueFd fd = temporaryFile(3 * 4096);
  CopyEngine engine(JobList::create(4));
  MappingRequest request;
  request.fd = fd.get();
  request.foreign = true;
  request.bytes = 2 * 4096;
  uint32_t number;
  CHECK(engine.addRegion(request, 0, &number).ok());
  request.fileOffset = 2 * 4096;
  request.bytes = 4096;
  CHECK(engine.addRegion(request, 2 * 4096, &number).ok());
  std::vector<uint8_t> pool(16384, 0xaa);
  engine.setPool(pool.data(), pool.size());
  CHECK(ftruncate(fd.get(), 4096) == 0);
  CopyJob* const jobs = engine.list()->jobs();
  jobs[0] = {0, 0, 0, 100, kFromGuest, 99, 0, 0};
  jobs[1] = {4096, 0, 200, 100, kFromGuest, 99, 0, 0};
  jobs[2] = {4096, 0, 400, 100, kToGuest, 99, 0, 0};
  // Over the edge between the two regions, the second of which has not faulted yet.
  jobs[3] = {8000, 0, 600, 400, kFromGuest, 99, 0, 0};
  CHECK(engine.run(4) == 2);
  CHECK(jobs[0].status == kCopyOk);
  CHECK(jobs[1].status == kFault);
  CHECK(pool[200] == 0 && pool[299] == 0 && pool[300] == 0xaa);
  CHECK(jobs[2].status == kCopyOk);
  CHECK(jobs[3].status == kFault);
  CHECK(engine.memory().faults() == 2);
  // A fault outside of run is not laid at the door of the next job.
  jobs[0] = {0, 0, 0, 100, kFromGuest, 99, 0, 0};
  CHECK(engine.run(1) == 0);
  engine.removeAllRegions();
  CHECK(engine.memory().faults() == 2);
}

void doesSoInManyThreads() {
  const UniqueFd fd = temporaryFile(64 * 4096);
  std::atomic<bool> isCut{false};
  std::atomic<int> ready{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&] {
      const std::shared_ptr<Mapping> mine = map(fd.get(), 64 * 4096, true);
      ready++;
      while (!isCut.load()) sched_yield();
      // Others come and go in the table meanwhile.
      for (uint64_t page = 0; page < 64; page++) {
        CHECK(mine->data()[page * 4096] == 0);
        const std::shared_ptr<Mapping> other = map(fd.get(), 1, true);
      }
      CHECK(mine->faults() == 60);
    });
  }
  while (ready.load() != 4) sched_yield();
  CHECK(ftruncate(fd.get(), 4 * 4096) == 0);
  isCut.store(true);
  for (std::thread& thread : threads) thread.join();
}

// Whether `action` ends a child process by SIGBUS, as without the guard.
template <typename Action>
bool diesOfBusError(Action action) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    action();
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
}

void leavesOtherBusErrorsAlone() {
  const UniqueFd fd = temporaryFile(4096);
  const std::shared_ptr<Mapping> guarded = map(fd.get(), 4096);
  void* const unguarded = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd.get(), 0);
  CHECK(unguarded != MAP_FAILED);
  CHECK(ftruncate(fd.get(), 0) == 0);
  CHECK(diesOfBusError([&] { static_cast<void>(*static_cast<volatile uint8_t*>(unguarded)); }));
  // A signal that was sent carries no address, whatever its bytes look like.
  CHECK(diesOfBusError([] { kill(getpid(), SIGBUS); }));
  CHECK(!diesOfBusError([&] { CHECK(guarded->data()[0] == 0); }));
  munmap(unguarded, 4096);
}

std::atomic<int> earlierCalls{0};
void earlierHandler(int) {
  earlierCalls++;
}

void passesOnToTheEarlierHandler() {
  kill(getpid(), SIGBUS);
  CHECK(earlierCalls == 1);
}

void keepsBlankedAddresses() {
  const UniqueFd fd = temporaryFile(4096);
  const std::shared_ptr<Mapping> mapping = map(fd.get(), 4096);
  uint8_t* const data = mapping->data();
  data[0] = 7;
  mapping->blank();
  CHECK(data[0] == 0);
  data[0] = 8;
  uint8_t inFile = 0;
  CHECK(pread(fd.get(), &inFile, 1, 0) == 1 && inFile == 7);
}

void sharesItsTableSlots() {
  const UniqueFd fd = temporaryFile(4096);
  std::vector<std::shared_ptr<Mapping>> mappings;
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < 1500; i++) mappings.push_back(map(fd.get(), 4096));
    mappings.clear();
  }
}

}  // namespace

int main() {
  struct sigaction earlier = {};
  earlier.sa_handler = SIG_DFL;
  // Before the guard is there; sanitizers have handlers of their own, which would catch what these tests expect to
  // kill.
  sigaction(SIGBUS, &earlier, nullptr);
  const pid_t child = fork();
  if (child == 0) {
    earlier.sa_handler = earlierHandler;
    sigaction(SIGBUS, &earlier, nullptr);
    replacesPagesThatAreGone();
    passesOnToTheEarlierHandler();
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  replacesPagesThatAreGone();
  reportsFaultsToTheJob();
  doesSoInManyThreads();
  leavesOtherBusErrorsAlone();
  keepsBlankedAddresses();
  sharesItsTableSlots();
  puts("ok");
  return 0;
}
