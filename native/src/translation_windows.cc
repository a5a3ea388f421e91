#include "translation_windows.h"

#include <algorithm>
#include <cstddef>

namespace virtio_pmd {

Outcome TranslationWindows::add(const Window& window) {
  uint64_t last;
  uint64_t lastGuest;
  if (__builtin_add_overflow(window.iova, window.lastOffset, &last) ||
      __builtin_add_overflow(window.guestAddress, window.lastOffset, &lastGuest)) {
    return Outcome::range("the window leaves the 64-bit addresses");
  }
  // Nothing is allocated once the first window is there: one more than the most may be split in two.
  windows_.reserve(kMost + 2);
  const auto begin = std::partition_point(windows_.begin(), windows_.end(),
                                          [&](const Window& other) { return other.lastIova() < window.iova; });
  const auto end = std::partition_point(begin, windows_.end(), [&](const Window& other) { return other.iova <= last; });
  Window parts[3];
  size_t count = 0;
  size_t added = static_cast<size_t>(begin - windows_.begin());
  if (begin != end && begin->iova < window.iova) {
    parts[count] = *begin;
    parts[count++].lastOffset = window.iova - 1 - begin->iova;
    added++;
  }
  parts[count++] = window;
  if (begin != end && (end - 1)->lastIova() > last) {
    const Window& other = *(end - 1);
    const uint64_t skipped = last + 1 - other.iova;
    parts[count++] = {last + 1, other.lastOffset - skipped, other.guestAddress + skipped, other.access};
  }
  windows_.insert(windows_.erase(begin, end), parts, parts + count);
  while (windows_.size() > kMost) {
    // Any but the one that was just asked for.
    size_t victim = nextRandom() % (windows_.size() - 1);
    if (victim >= added) {
      victim++;
    } else {
      added--;
    }
    windows_.erase(windows_.begin() + static_cast<std::ptrdiff_t>(victim));
  }
  return Outcome::success();
}

void TranslationWindows::remove(uint64_t iova, uint64_t lastOffset) {
  uint64_t last;
  if (__builtin_add_overflow(iova, lastOffset, &last)) last = UINT64_MAX;
  const auto begin = std::partition_point(windows_.begin(), windows_.end(),
                                          [&](const Window& other) { return other.lastIova() < iova; });
  const auto end = std::partition_point(begin, windows_.end(), [&](const Window& other) { return other.iova <= last; });
  windows_.erase(begin, end);
}

void TranslationWindows::clear() {
  windows_.clear();
}

const Window* TranslationWindows::find(uint64_t iova) const noexcept {
  if (lastHit_ < windows_.size()) {
    // SAFETY: checked a line above.
    const Window& hit = windows_[lastHit_];
    if (iova - hit.iova <= hit.lastOffset) return &hit;
  }
  const auto found = std::partition_point(windows_.begin(), windows_.end(),
                                          [&](const Window& other) { return other.lastIova() < iova; });
  if (found == windows_.end() || found->iova > iova) return nullptr;
  lastHit_ = static_cast<size_t>(found - windows_.begin());
  return &*found;
}

bool TranslationWindows::allow(uint64_t iova, uint64_t bytes, uint32_t access, uint64_t* bad,
                               bool* isKnown) const noexcept {
  uint64_t left = bytes == 0 ? 0 : bytes - 1;
  for (;;) {
    const Window* const window = find(iova);
    if (window == nullptr || (window->access & access) != access) {
      *bad = iova;
      *isKnown = window != nullptr;
      return false;
    }
    const uint64_t available = window->lastOffset - (iova - window->iova);
    if (left <= available || window->lastIova() == UINT64_MAX) return true;
    left -= available + 1;
    iova += available + 1;
  }
}

// xorshift: need not be good, only without a pattern that traffic has too.
uint32_t TranslationWindows::nextRandom() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 17;
  random_ ^= random_ << 5;
  return random_;
}

}  // namespace virtio_pmd
