#include "dirty_log.h"

#include <utility>

namespace virtio_pmd {

Outcome DirtyLog::open(int fd, uint64_t fileOffset, uint64_t bytes) {
  MappingRequest request;
  request.fd = fd;
  request.fileOffset = fileOffset;
  request.bytes = bytes;
  request.foreign = true;
  std::shared_ptr<Mapping> mapping;
  const Outcome outcome = Mapping::open(request, &mapping);
  if (!outcome.ok()) return outcome;
  close();
  mapping_ = std::move(mapping);
  bitmap_ = mapping_->data();
  // Cannot overflow: a mapping is far smaller than 2^61 bytes.
  pages_ = bytes * 8;
  return outcome;
}

void DirtyLog::close() {
  if (mapping_ == nullptr) return;
  faultsOfClosed_ += mapping_->faults();
  bitmap_ = nullptr;
  pages_ = 0;
  mapping_ = nullptr;
}

void DirtyLog::mark(uint64_t guestAddress, uint64_t bytes) noexcept {
  if (bytes == 0 || mapping_ == nullptr) return;
  uint64_t lastAddress;
  if (__builtin_add_overflow(guestAddress, bytes - 1, &lastAddress)) lastAddress = UINT64_MAX;
  const uint64_t first = guestAddress >> kLogPageShift;
  uint64_t last = lastAddress >> kLogPageShift;
  if (__builtin_expect(last >= pages_, 0)) {
    skipped_ += last - (first >= pages_ ? first : pages_) + 1;
    if (first >= pages_) return;
    last = pages_ - 1;
  }
  const uint64_t lastByte = last / 8;
  uint32_t bits = 0xffu << (first % 8);
  for (uint64_t byte = first / 8; byte <= lastByte; byte++) {
    if (byte == lastByte) bits &= 0xffu >> (7 - last % 8);
    // Never skipped for a bit that is set already: the front-end may be about to take it out, and only a full barrier
    // between what was written and the look at the bit would tell.
    // SAFETY: byte <= last / 8 < pages_ / 8, the size of the bitmap.
    __atomic_fetch_or(&bitmap_[byte], static_cast<uint8_t>(bits), __ATOMIC_SEQ_CST);
    bits = 0xff;
  }
}

}  // namespace virtio_pmd
