// How long a burst of copies takes: warm, and with the packets fresh from another core's cache.
//
//   g++ -O2 -std=c++17 -I../src copy_bench.cc ../src/copy_engine.cc ../src/memory_table.cc ../src/mapping.cc
//       ../src/sigbus_guard.cc ../src/dirty_log.cc ../src/translation_windows.cc -lpthread -o /tmp/copy_bench && /tmp/copy_bench
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "copy_engine.h"
#include "short_copy.h"

using namespace virtio_pmd;

namespace {

constexpr uint32_t kBurst = 32;
constexpr uint32_t kSlots = 1024;
constexpr uint32_t kSlotBytes = 2048;
constexpr uint64_t kBytes = uint64_t{kSlots} * kSlotBytes;

using Clock = std::chrono::steady_clock;

double nanoseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::nano>(duration).count();
}

double median(std::vector<double>& samples) {
  std::nth_element(samples.begin(), samples.begin() + samples.size() / 2, samples.end());
  return samples[samples.size() / 2];
}

void pin(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  sched_setaffinity(0, sizeof(set), &set);
}

struct Bench {
  UniqueFd guestFd;
  UniqueFd poolFd;
  std::shared_ptr<Mapping> writer;
  std::shared_ptr<Mapping> pool;
  CopyEngine engine{JobList::create(kBurst)};

  Bench() {
    createMemory("guest", kBytes, 0, &guestFd);
    createMemory("pool", kBytes, 0, &poolFd);
    MappingRequest request;
    request.bytes = kBytes;
    request.populate = true;
    request.fd = guestFd.get();
    Mapping::open(request, &writer);
    request.fd = poolFd.get();
    Mapping::open(request, &pool);
    request.populate = false;
    request.foreign = true;
    request.fd = guestFd.get();
    uint32_t number;
    engine.addRegion(request, 1ull << 32, &number);
    engine.setPool(pool->data(), pool->bytes());
  }

  void fill(uint32_t first, uint32_t length, uint32_t direction) {
    for (uint32_t i = 0; i < kBurst; i++) {
      const uint32_t slot = (first + i) % kSlots;
      engine.list()->jobs()[i] = {slot * kSlotBytes + 116, 1, slot * kSlotBytes + 128, length, direction, 0, 0, 0};
    }
  }

  double warm(uint32_t length) {
    fill(0, length, kFromGuest);
    std::vector<double> samples;
    for (int i = 0; i < 2000; i++) {
      const auto begin = Clock::now();
      for (int k = 0; k < 10; k++) engine.run(kBurst);
      samples.push_back(nanoseconds(Clock::now() - begin) / (10 * kBurst));
    }
    return median(samples);
  }

  // The other thread touches the packets of a burst, as a guest that fills or reads them does; this one then copies.
  double crossCore(uint32_t length, uint32_t direction) {
    std::atomic<uint32_t> ready{0};
    std::atomic<uint32_t> done{0};
    const uint32_t rounds = 20000;
    std::thread guest([&] {
      pin(1);
      uint32_t slot = 0;
      for (uint32_t round = 1; round <= rounds; round++) {
        for (uint32_t i = 0; i < kBurst; i++, slot = (slot + 1) % kSlots) {
          memset(writer->data() + slot * kSlotBytes + 116, static_cast<int>(round), length);
        }
        ready.store(round, std::memory_order_release);
        while (done.load(std::memory_order_acquire) != round) sched_yield();
      }
    });
    pin(0);
    std::vector<double> samples;
    uint32_t slot = 0;
    for (uint32_t round = 1; round <= rounds; round++) {
      fill(slot, length, direction);
      slot = (slot + kBurst) % kSlots;
      while (ready.load(std::memory_order_acquire) != round) sched_yield();
      const auto begin = Clock::now();
      engine.run(kBurst);
      samples.push_back(nanoseconds(Clock::now() - begin) / kBurst);
      done.store(round, std::memory_order_release);
    }
    guest.join();
    return median(samples);
  }
};

template <typename Copy>
double copyOnly(uint8_t* to, const uint8_t* from, uint32_t length, Copy copy) {
  std::vector<double> samples;
  volatile uint32_t hidden = length;
  for (int i = 0; i < 2000; i++) {
    const auto begin = Clock::now();
    for (int k = 0; k < 320; k++) copy(to + (k & 31) * kSlotBytes + 128, from + (k & 31) * kSlotBytes + 116, hidden);
    samples.push_back(nanoseconds(Clock::now() - begin) / 320);
  }
  return median(samples);
}

}  // namespace

int main() {
  Bench bench;
  printf("%6s %10s %10s %10s %12s %12s   ns a job\n", "bytes", "memcpy", "copyBytes", "run warm", "run from",
         "run to guest");
  for (const uint32_t length : {1u, 12u, 28u, 60u, 76u, 128u, 192u, 256u, 384u, 512u, 1024u, 1530u}) {
    const double library = copyOnly(bench.pool->data(), bench.writer->data(), length,
                                    [](uint8_t* to, const uint8_t* from, uint32_t bytes) { memcpy(to, from, bytes); });
    const double inlined =
        copyOnly(bench.pool->data(), bench.writer->data(), length,
                 [](uint8_t* to, const uint8_t* from, uint32_t bytes) { copyBytes(to, from, bytes); });
    printf("%6u %10.2f %10.2f %10.2f %12.2f %12.2f\n", length, library, inlined, bench.warm(length),
           bench.crossCore(length, kFromGuest), bench.crossCore(length, kToGuest));
  }
  return 0;
}
