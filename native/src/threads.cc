#include "threads.h"

#include <sched.h>
#include <sys/resource.h>

#include <chrono>

namespace virtio_pmd {
namespace {

// As many bits as kMaxProcessors; the C library's cpu_set_t stops at 1024.
struct ProcessorSet {
  cpu_set_t words[kMaxProcessors / CPU_SETSIZE] = {};
};
static_assert(sizeof(ProcessorSet) * 8 == kMaxProcessors, "one bit a processor");

Outcome readSet(ProcessorSet* set) {
  if (sched_getaffinity(0, sizeof(*set), set->words) != 0) return Outcome::system("sched_getaffinity");
  return Outcome::success();
}

void pauseProcessor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

}  // namespace

Outcome setAffinity(const std::vector<uint32_t>& processors) {
  ProcessorSet wanted;
  for (const uint32_t processor : processors) {
    if (processor >= kMaxProcessors) return Outcome::system("sched_setaffinity", EINVAL);
    CPU_SET_S(processor, sizeof(wanted), wanted.words);
  }
  ProcessorSet before;
  const Outcome outcome = readSet(&before);
  if (!outcome.ok()) return outcome;
  if (sched_setaffinity(0, sizeof(wanted), wanted.words) != 0) return Outcome::system("sched_setaffinity");
  // The kernel quietly drops processors that do not exist as long as one is left.
  ProcessorSet granted;
  if (!readSet(&granted).ok() || !CPU_EQUAL_S(sizeof(wanted), wanted.words, granted.words)) {
    sched_setaffinity(0, sizeof(before), before.words);
    return Outcome::system("sched_setaffinity", EINVAL);
  }
  return Outcome::success();
}

Outcome affinity(std::vector<uint32_t>* processors) {
  ProcessorSet set;
  const Outcome outcome = readSet(&set);
  if (!outcome.ok()) return outcome;
  for (uint32_t processor = 0; processor < kMaxProcessors; processor++) {
    if (CPU_ISSET_S(processor, sizeof(set), set.words)) processors->push_back(processor);
  }
  return Outcome::success();
}

void yieldThread() {
  sched_yield();
}

void pauseThread(uint64_t nanoseconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::nanoseconds(nanoseconds);
  do pauseProcessor();
  while (std::chrono::steady_clock::now() < until);
}

Outcome memlockLimit(uint64_t* bytes) {
  rlimit limit;
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return Outcome::system("getrlimit");
  *bytes = limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : static_cast<uint64_t>(limit.rlim_cur);
  return Outcome::success();
}

}  // namespace virtio_pmd
