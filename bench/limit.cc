// The limit: how many frames a second two processors can hand to each other, with no protocol in between; and the
// probe: how the two processors are related at this moment.
//
// limit: two threads, one pinned to the host's processor and one to the guest's, and two rings between them, one for each
// direction, of 1024 slots of one frame. The frames go round as in the benchmark's traffic: the host begins with 1024
// of them; each side copies up to BURST frames out of one ring into memory of its own and from there into the other ring.
// So a frame is copied out and in on each side, and its cache lines cross from core to core twice on its way round.
// A ring's two indices are a cache line each, published once a burst; each side keeps the other's index for as long as
// it suffices. No descriptors, no headers, no buffers to allocate. FRAME_BYTES is given to the compiler, so that the
// copies are as short as they can be.
//
// probe: how long a cache line takes to the other processor and back (two threads answer each other through two words),
// and how fast a thread computes while another one computes on the other processor, as a share of how fast it does
// alone: about 1 where they are two cores, about a half where they are two threads of one.
//
// Input, a line each, answered by one line of JSON; end of input ends the program, which is idle between its answers.
//   rate SETTLE MEASURE (milliseconds)  {"packets":N,"nanoseconds":N,"processorNanoseconds":N}: what the host's side
//                                       received, and how long both threads together had a processor meanwhile
//   probe                               {"roundTripNanoseconds":X,"sharing":X}

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
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
#ifndef BURST
#define BURST 32
#endif

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr uint32_t kSlots = 1024;
constexpr uint32_t kBurst = BURST;
constexpr size_t kCacheLine = 64;
constexpr size_t kSlotBytes = (FRAME_BYTES + kCacheLine - 1) / kCacheLine * kCacheLine;

int64_t nanoseconds(Clock::duration time) { return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count(); }

void pinTo(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) != 0) {
    fprintf(stderr, "limit: there is no processor %d\n", processor);
    exit(1);
  }
}

// Nanoseconds on a processor that the owner of `clock` has had.
int64_t processorTime(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

int64_t processorTime(std::thread& thread) {
  clockid_t clock;
  return pthread_getcpuclockid(thread.native_handle(), &clock) == 0 ? processorTime(clock) : 0;
}

struct alignas(kCacheLine) Word {
  std::atomic<uint32_t> value{0};
};

struct Ring {
  Word written;
  Word read;
  uint8_t* slots = nullptr;

  void empty() {
    written.value.store(0);
    read.value.store(0);
  }
};

uint8_t* allocateSlots() {
  void* memory = mmap(nullptr, kSlots * kSlotBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) {
    perror("limit: mmap");
    exit(1);
  }
  return static_cast<uint8_t*>(memory);
}

uint8_t* slot(uint8_t* slots, uint32_t number) { return slots + (number % kSlots) * kSlotBytes; }

std::atomic<bool> stopped{false};
alignas(kCacheLine) std::atomic<uint64_t> received{0};

// One side: takes from `in`, gives to `out`, until stopped. `injected` frames are in `out` from the start.
void forward(int processor, Ring& in, Ring& out, uint8_t* own, uint32_t injected, bool counts) {
  pinTo(processor);
  uint32_t read = 0, readable = 0, written = injected, freed = 0;
  uint64_t total = 0;
  out.written.value.store(written, std::memory_order_release);
  while (!stopped.load(std::memory_order_relaxed)) {
    if (readable == read) {
      readable = in.written.value.load(std::memory_order_acquire);
      if (readable == read) continue;
    }
    const uint32_t burst = std::min(readable - read, kBurst);
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

class Limit {
 public:
  Limit(int hostProcessor, int guestProcessor) : hostProcessor_(hostProcessor), guestProcessor_(guestProcessor) {
    for (uint8_t** memory : {&toGuest_.slots, &toHost_.slots, &ofHost_, &ofGuest_}) *memory = allocateSlots();
  }

  void rate(int settle, int measure) {
    toGuest_.empty();
    toHost_.empty();
    received.store(0);
    stopped.store(false);
    std::thread guest(forward, guestProcessor_, std::ref(toGuest_), std::ref(toHost_), ofGuest_, 0, false);
    std::thread host(forward, hostProcessor_, std::ref(toHost_), std::ref(toGuest_), ofHost_, kSlots, true);
    std::this_thread::sleep_for(milliseconds(settle));

    const auto start = Clock::now();
    const int64_t usedBefore = processorTime(host) + processorTime(guest);
    const uint64_t before = received.load(std::memory_order_relaxed);
    std::this_thread::sleep_for(milliseconds(measure));
    const uint64_t after = received.load(std::memory_order_relaxed);
    const int64_t used = processorTime(host) + processorTime(guest) - usedBefore;
    const int64_t elapsed = nanoseconds(Clock::now() - start);

    stopped.store(true);
    host.join();
    guest.join();
    printf("{\"packets\":%" PRIu64 ",\"nanoseconds\":%" PRId64 ",\"processorNanoseconds\":%" PRId64 "}\n", after - before,
           elapsed, used);
  }

 private:
  const int hostProcessor_;
  const int guestProcessor_;
  Ring toGuest_;
  Ring toHost_;
  uint8_t* ofHost_ = nullptr;
  uint8_t* ofGuest_ = nullptr;
};

// Least nanoseconds, over some tries, of a word's way to the other processor and the answer's way back.
double roundTrip(int near, int far) {
  constexpr uint32_t kTries = 8, kTrips = 1000;
  static Word question, answer;
  question.value.store(0);
  answer.value.store(0);
  std::thread other([far] {
    pinTo(far);
    uint32_t last = 0;
    while (last < kTries * kTrips) {
      const uint32_t asked = question.value.load(std::memory_order_acquire);
      if (asked != last) answer.value.store(last = asked, std::memory_order_release);
    }
  });
  pinTo(near);
  double best = 1e9;
  uint32_t number = 0;
  for (uint32_t i = 0; i < kTries; i++) {
    const auto start = Clock::now();
    for (uint32_t trip = 0; trip < kTrips; trip++) {
      question.value.store(++number, std::memory_order_release);
      while (answer.value.load(std::memory_order_acquire) != number) continue;
    }
    best = std::min(best, static_cast<double>(nanoseconds(Clock::now() - start)) / kTrips);
  }
  other.join();
  return best;
}

// Steps of arithmetic per nanosecond on the processor, over `forNanoseconds` of it. Uses the core's units as fully as one
// thread can.
double compute(int64_t forNanoseconds) {
  constexpr int kSteps = 5000;
  uint64_t a = 1, b = 2, c = 3, d = 4;
  int64_t steps = 0, used = 0;
  const int64_t start = processorTime(CLOCK_THREAD_CPUTIME_ID);
  while (used < forNanoseconds) {
    for (int i = 0; i < kSteps; i++) {
      a += 7;
      b ^= a;
      c += 3;
      d -= c;
      asm volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
    }
    steps += kSteps;
    used = processorTime(CLOCK_THREAD_CPUTIME_ID) - start;
  }
  return static_cast<double>(steps) / static_cast<double>(used);
}

// Speed of a thread beside another one, as a share of its speed alone: the best of some tries of each.
double sharing(int near, int far) {
  constexpr int kTries = 3;
  constexpr int64_t kTryNanoseconds = 2'000'000;
  static std::atomic<bool> isBusy, ended;
  ended.store(false);
  isBusy.store(false);
  std::thread other([far] {
    pinTo(far);
    while (!ended.load()) {
      if (isBusy.load()) {
        compute(kTryNanoseconds / 20);
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      }
    }
  });
  pinTo(near);
  double alone = 0, beside = 0;
  for (int i = 0; i < kTries; i++) {
    alone = std::max(alone, compute(kTryNanoseconds));
    isBusy.store(true);
    std::this_thread::sleep_for(std::chrono::microseconds(300));
    beside = std::max(beside, compute(kTryNanoseconds));
    isBusy.store(false);
    std::this_thread::sleep_for(std::chrono::microseconds(300));
  }
  ended.store(true);
  other.join();
  return beside / alone;
}

void probe(int near, int far) {
  double trip = 0, share = 0;
  // In a thread, so that the main thread stays where the scheduler wants it.
  std::thread prober([&] {
    trip = roundTrip(near, far);
    share = sharing(near, far);
  });
  prober.join();
  printf("{\"roundTripNanoseconds\":%.1f,\"sharing\":%.3f}\n", trip, share);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: limit HOST-PROCESSOR GUEST-PROCESSOR\n");
    return 2;
  }
  const int host = atoi(argv[1]), guest = atoi(argv[2]);
  Limit limit(host, guest);
  char line[64];
  while (fgets(line, sizeof line, stdin) != nullptr) {
    int settle = 0, measure = 0;
    if (sscanf(line, "rate %d %d", &settle, &measure) == 2 && settle >= 0 && measure > 0) {
      limit.rate(settle, measure);
    } else if (strcmp(line, "probe\n") == 0) {
      probe(guest, host);
    } else {
      puts("{}");
    }
    fflush(stdout);
  }
  return 0;
}
