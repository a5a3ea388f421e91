// The limit: how many frames a second two processors can hand to each other, with no protocol in between; and the
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

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr uint32_t kSlots = 1024;
constexpr uint32_t kBurst = 4;
constexpr size_t kCacheLine = 64;
constexpr size_t kAddressBytes = 6;
constexpr size_t kSlotBytes = (FRAME_BYTES + kCacheLine - 1) / kCacheLine * kCacheLine;

int64_t nanoseconds(Clock::duration time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
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

// The frames on their way: slots that the host's side fills in order and the guest's side hands back in order.
struct Loop {
  Word filled;
  Word returned;
  uint8_t* slots = nullptr;
};

uint8_t* allocateSlots() {
  void* memory =
      mmap(nullptr, kSlots * kSlotBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) {
    perror("limit: mmap");
    exit(1);
  }
  return static_cast<uint8_t*>(memory);
}

uint8_t* slot(uint8_t* slots, uint32_t number) {
  return slots + (number % kSlots) * kSlotBytes;
}

std::atomic<bool> stopped{false};
alignas(kCacheLine) std::atomic<uint64_t> received{0};

// Copies frames out of the slots that came back into memory of its own, and from there into the same slots again.
void host(int processor, Loop& loop, uint8_t* own) {
  pinTo(processor);
  uint32_t filled = kSlots, taken = 0, returned = 0;
  uint64_t total = 0;
  loop.filled.value.store(filled, std::memory_order_release);
  while (!stopped.load(std::memory_order_relaxed)) {
    if (returned == taken) {
      returned = loop.returned.value.load(std::memory_order_acquire);
      if (returned == taken) continue;
    }
    const uint32_t burst = std::min(returned - taken, kBurst);
    for (uint32_t i = 0; i < burst; i++) memcpy(slot(own, taken + i), slot(loop.slots, taken + i), FRAME_BYTES);
    for (uint32_t i = 0; i < burst; i++) memcpy(slot(loop.slots, taken + i), slot(own, taken + i), FRAME_BYTES);
    taken += burst;
    filled += burst;
    loop.filled.value.store(filled, std::memory_order_release);
    received.store(total += burst, std::memory_order_relaxed);
  }
}

// Exchanges the two addresses at the head of each frame, in place.
void guest(int processor, Loop& loop) {
  pinTo(processor);
  uint32_t filled = 0, returned = 0;
  while (!stopped.load(std::memory_order_relaxed)) {
    if (filled == returned) {
      filled = loop.filled.value.load(std::memory_order_acquire);
      if (filled == returned) continue;
    }
    const uint32_t burst = std::min(filled - returned, kBurst);
    for (uint32_t i = 0; i < burst; i++) {
      uint8_t* frame = slot(loop.slots, returned + i);
      uint8_t addresses[2 * kAddressBytes];
      memcpy(addresses, frame, sizeof addresses);
      memcpy(frame, addresses + kAddressBytes, kAddressBytes);
      memcpy(frame + kAddressBytes, addresses, kAddressBytes);
    }
    returned += burst;
    loop.returned.value.store(returned, std::memory_order_release);
  }
}

class Limit {
 public:
  Limit(int hostProcessor, int guestProcessor) : hostProcessor_(hostProcessor), guestProcessor_(guestProcessor) {
    loop_.slots = allocateSlots();
    own_ = allocateSlots();
  }

  void rate(int settle, int measure) {
    loop_.filled.value.store(0);
    loop_.returned.value.store(0);
    received.store(0);
    stopped.store(false);
    std::thread guestThread(guest, guestProcessor_, std::ref(loop_));
    std::thread hostThread(host, hostProcessor_, std::ref(loop_), own_);
    std::this_thread::sleep_for(milliseconds(settle));

    const auto start = Clock::now();
    const int64_t usedBefore = processorTime(hostThread) + processorTime(guestThread);
    const uint64_t before = received.load(std::memory_order_relaxed);
    std::this_thread::sleep_for(milliseconds(measure));
    const uint64_t after = received.load(std::memory_order_relaxed);
    const int64_t used = processorTime(hostThread) + processorTime(guestThread) - usedBefore;
    const int64_t elapsed = nanoseconds(Clock::now() - start);

    stopped.store(true);
    hostThread.join();
    guestThread.join();
    printf("{\"packets\":%" PRIu64 ",\"nanoseconds\":%" PRId64 ",\"processorNanoseconds\":%" PRId64 "}\n",
           after - before, elapsed, used);
  }

 private:
  const int hostProcessor_;
  const int guestProcessor_;
  Loop loop_;
  uint8_t* own_ = nullptr;
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

// Steps of arithmetic per nanosecond on the processor, over `forNanoseconds` of it. Uses the core's units as fully as
// one thread can.
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
