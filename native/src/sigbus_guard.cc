#include "sigbus_guard.h"

#include <signal.h>
#include <sys/mman.h>

#include <cerrno>
#include <mutex>
#include <new>

namespace virtio_pmd {
namespace {

constexpr size_t kRangesPerChunk = 512;
constexpr size_t kMaxChunks = 1024;

struct Chunk {
  GuardedRange ranges[kRangesPerChunk];
};

// Chunks are published once and never freed, so that the handler can walk them at any time.
std::atomic<Chunk*> chunks[kMaxChunks];
std::atomic<size_t> chunkCount{0};
std::mutex tableLock;
bool handlerInstalled = false;
struct sigaction previousAction;

static_assert(std::atomic<uintptr_t>::is_always_lock_free, "the signal handler must not take locks");
static_assert(std::atomic<uint64_t>::is_always_lock_free, "the signal handler must not take locks");

bool replacePages(uintptr_t begin, size_t bytes, bool writable) {
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  // SAFETY: the range lies in a mapping that is registered here, so it is ours to replace.
  void* const page = mmap(reinterpret_cast<void*>(begin), bytes, protection,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
  return page != MAP_FAILED;
}

// Async-signal-safe: atomics and mmap only.
bool repair(uintptr_t address) {
  const size_t count = chunkCount.load(std::memory_order_acquire);
  for (size_t i = 0; i < count; i++) {
    for (GuardedRange& range : chunks[i].load(std::memory_order_acquire)->ranges) {
      const uint32_t version = range.version.load(std::memory_order_acquire);
      const uintptr_t begin = range.begin.load(std::memory_order_relaxed);
      const uintptr_t end = range.end.load(std::memory_order_relaxed);
      const uintptr_t pageBytes = range.pageBytes.load(std::memory_order_relaxed);
      const bool writable = range.writable.load(std::memory_order_relaxed);
      std::atomic_thread_fence(std::memory_order_acquire);
      // An entry in change is not the one that faulted: that one's thread stands here, not in guardRange.
      if ((version & 1) != 0 || range.version.load(std::memory_order_relaxed) != version) continue;
      if (address < begin || address >= end) continue;
      const uintptr_t page = address & ~(pageBytes - 1);
      // When the kernel allows no further mapping, one that covers the whole range needs none.
      if (!replacePages(page, pageBytes, writable) && !replacePages(begin, end - begin, writable)) return false;
      range.faults.fetch_add(1, std::memory_order_relaxed);
      return true;
    }
  }
  return false;
}

void passOn(int signal, siginfo_t* info, void* context) {
  const bool sent = info->si_code <= 0;
  if ((previousAction.sa_flags & SA_SIGINFO) != 0) {
    if (previousAction.sa_sigaction != nullptr) return previousAction.sa_sigaction(signal, info, context);
  } else if (previousAction.sa_handler == SIG_IGN && sent) {
    return;
  } else if (previousAction.sa_handler != SIG_DFL && previousAction.sa_handler != SIG_IGN) {
    return previousAction.sa_handler(signal);
  }
  // The default action. A fault happens again on return; a signal that was sent must be sent again.
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  sigaction(signal, &standard, nullptr);
  if (sent) raise(signal);
}

void onBusError(int signal, siginfo_t* info, void* context) {
  const int savedErrno = errno;
  // Only the kernel's own faults carry an address.
  const bool isFault = info->si_code > 0;
  if (!isFault || !repair(reinterpret_cast<uintptr_t>(info->si_addr))) passOn(signal, info, context);
  errno = savedErrno;
}

bool installHandler() {
  struct sigaction action = {};
  action.sa_sigaction = onBusError;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&action.sa_mask);
  return sigaction(SIGBUS, &action, &previousAction) == 0;
}

GuardedRange* freeRange() {
  const size_t count = chunkCount.load(std::memory_order_relaxed);
  for (size_t i = 0; i < count; i++) {
    for (GuardedRange& range : chunks[i].load(std::memory_order_relaxed)->ranges) {
      if (range.end.load(std::memory_order_relaxed) == 0) return &range;
    }
  }
  if (count == kMaxChunks) return nullptr;
  Chunk* const chunk = new (std::nothrow) Chunk();
  if (chunk == nullptr) return nullptr;
  chunks[count].store(chunk, std::memory_order_release);
  chunkCount.store(count + 1, std::memory_order_release);
  return &chunk->ranges[0];
}

void setRange(GuardedRange& range, uintptr_t begin, uintptr_t end, size_t pageBytes, bool writable) {
  const uint32_t version = range.version.load(std::memory_order_relaxed);
  range.version.store(version + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  range.begin.store(begin, std::memory_order_relaxed);
  range.end.store(end, std::memory_order_relaxed);
  range.pageBytes.store(pageBytes, std::memory_order_relaxed);
  range.writable.store(writable, std::memory_order_relaxed);
  range.version.store(version + 2, std::memory_order_release);
}

}  // namespace

GuardedRange* guardRange(void* begin, size_t bytes, size_t pageBytes, bool writable) {
  const std::lock_guard<std::mutex> hold(tableLock);
  if (!handlerInstalled && !installHandler()) return nullptr;
  handlerInstalled = true;
  GuardedRange* const range = freeRange();
  if (range == nullptr) return nullptr;
  const uintptr_t address = reinterpret_cast<uintptr_t>(begin);
  range->faults.store(0, std::memory_order_relaxed);
  setRange(*range, address, address + bytes, pageBytes, writable);
  return range;
}

void unguardRange(GuardedRange* range) {
  if (range == nullptr) return;
  const std::lock_guard<std::mutex> hold(tableLock);
  setRange(*range, 0, 0, 0, false);
}

}  // namespace virtio_pmd
