// The limit: how many frames a second two cores can hand to each other, with no protocol in between.
//
// Two threads, one pinned to the host's core and one to the guest's, and two rings between them, one for each
// direction, of 1024 slots of one frame. The frames go round as in the benchmark's traffic: the host begins with 1024
// of them; each side copies up to 32 frames out of one ring into memory of its own and from there into the other ring.
// So a frame is copied out and in on each side, and its cache lines cross from core to core twice on its way round.
// A ring's two indices are a cache line each, published once a burst; each side keeps the other's index for as long as
// it suffices. No descriptors, no headers, no buffers to allocate. FRAME_BYTES is given to the compiler, so that the
// copies are as short as they can be.
//
// Input, a line each: `rate MILLISECONDS` answers `{"packets":N,"nanoseconds":N,"processorNanoseconds":N}`: what the
// host's side received in that time, and how long the two threads had a processor in it, both together. End of input
// ends the program. The threads run, and would use both cores whole, from start to end.

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#ifndef FRAME_BYTES
#error "FRAME_BYTES, the length of a frame, must be given"
#endif

namespace {

constexpr uint32_t kSlots = 1024;
constexpr uint32_t kBurst = 32;
constexpr size_t kCacheLine = 64;
constexpr size_t kSlotBytes = (FRAME_BYTES + kCacheLine - 1) / kCacheLine * kCacheLine;

struct alignas(kCacheLine) Index {
  std::atomic<uint32_t> value{0};
};

struct Ring {
  Index written;
  Index read;
  uint8_t* slots = nullptr;
};

std::atomic<bool> stopped{false};
alignas(kCacheLine) std::atomic<uint64_t> received{0};

uint8_t* allocateSlots() {
  void* memory = mmap(nullptr, kSlots * kSlotBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) {
    perror("limit: mmap");
    exit(1);
  }
  return static_cast<uint8_t*>(memory);
}

void pinTo(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) != 0) {
    fprintf(stderr, "limit: there is no processor %d\n", processor);
    exit(1);
  }
}

uint8_t* slot(uint8_t* slots, uint32_t number) { return slots + (number % kSlots) * kSlotBytes; }

// One side: takes from `in`, gives to `out`, until stopped. `injected` frames are in `out` from the start.
void forward(int processor, Ring& in, Ring& out, uint32_t injected, bool counts) {
  pinTo(processor);
  uint8_t* own = allocateSlots();
  uint32_t read = 0, readable = 0, written = injected, freed = 0;
  uint64_t total = 0;
  out.written.value.store(written, std::memory_order_release);
  while (!stopped.load(std::memory_order_relaxed)) {
    if (readable == read) {
      readable = in.written.value.load(std::memory_order_acquire);
      if (readable == read) continue;
    }
    const uint32_t burst = readable - read < kBurst ? readable - read : kBurst;
    for (uint32_t i = 0; i < burst; i++) memcpy(slot(own, read + i), slot(in.slots, read + i), FRAME_BYTES);
    const uint32_t first = read;
    read += burst;
    in.read.value.store(read, std::memory_order_release);
    while (kSlots - (written - freed) < burst) {
      freed = out.read.value.load(std::memory_order_acquire);
      if (stopped.load(std::memory_order_relaxed)) return;
    }
    for (uint32_t i = 0; i < burst; i++) memcpy(slot(out.slots, written + i), slot(own, first + i), FRAME_BYTES);
    written += burst;
    out.written.value.store(written, std::memory_order_release);
    if (counts) received.store(total += burst, std::memory_order_relaxed);
  }
}

// Time on a processor that the thread has had.
int64_t processorTime(std::thread& thread) {
  clockid_t clock;
  timespec time{};
  if (pthread_getcpuclockid(thread.native_handle(), &clock) == 0) clock_gettime(clock, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

void answerRate(int milliseconds, std::thread& host, std::thread& guest) {
  using Clock = std::chrono::steady_clock;
  const int64_t usedBefore = processorTime(host) + processorTime(guest);
  const uint64_t before = received.load(std::memory_order_relaxed);
  const auto start = Clock::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  const uint64_t after = received.load(std::memory_order_relaxed);
  const int64_t elapsed = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
  const int64_t used = processorTime(host) + processorTime(guest) - usedBefore;
  printf("{\"packets\":%" PRIu64 ",\"nanoseconds\":%" PRId64 ",\"processorNanoseconds\":%" PRId64 "}\n", after - before,
         elapsed, used);
  fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: limit HOST-PROCESSOR GUEST-PROCESSOR\n");
    return 2;
  }
  static Ring toGuest, toHost;
  toGuest.slots = allocateSlots();
  toHost.slots = allocateSlots();
  std::thread guest(forward, atoi(argv[2]), std::ref(toGuest), std::ref(toHost), 0, false);
  std::thread host(forward, atoi(argv[1]), std::ref(toHost), std::ref(toGuest), kSlots, true);
  puts("ready");
  fflush(stdout);

  char line[64];
  while (fgets(line, sizeof line, stdin) != nullptr) {
    int milliseconds = 0;
    if (sscanf(line, "rate %d", &milliseconds) == 1 && milliseconds > 0) answerRate(milliseconds, host, guest);
  }
  stopped.store(true);
  host.join();
  guest.join();
  return 0;
}
