// Copies and comparisons of packet size: short ones inline as a few overlapping vector moves, long ones through the C
// library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace virtio_pmd {

// Up to this length the moves below beat a call of memcpy (measured; bench in native/test/copy_bench.cc).
constexpr uint32_t kInlineCopyLimit = 256;
constexpr size_t kCacheLine = 64;

namespace copy_detail {

// Any alignment, any type behind it: what a packet is.
typedef uint8_t Vector16 __attribute__((vector_size(16), aligned(1), may_alias));

// SAFETY, for all below: the caller gives N readable bytes at `from` and N writable ones at `to`.
inline void move16(uint8_t* to, const uint8_t* from) {
  *reinterpret_cast<Vector16*>(to) = *reinterpret_cast<const Vector16*>(from);
}

inline void move64(uint8_t* to, const uint8_t* from) {
  const Vector16 a = *reinterpret_cast<const Vector16*>(from);
  const Vector16 b = *reinterpret_cast<const Vector16*>(from + 16);
  const Vector16 c = *reinterpret_cast<const Vector16*>(from + 32);
  const Vector16 d = *reinterpret_cast<const Vector16*>(from + 48);
  *reinterpret_cast<Vector16*>(to) = a;
  *reinterpret_cast<Vector16*>(to + 16) = b;
  *reinterpret_cast<Vector16*>(to + 32) = c;
  *reinterpret_cast<Vector16*>(to + 48) = d;
}

template <typename Word>
inline void moveEnds(uint8_t* to, const uint8_t* from, uint32_t bytes) {
  Word first;
  Word last;
  __builtin_memcpy(&first, from, sizeof(Word));
  __builtin_memcpy(&last, from + bytes - sizeof(Word), sizeof(Word));
  __builtin_memcpy(to, &first, sizeof(Word));
  __builtin_memcpy(to + bytes - sizeof(Word), &last, sizeof(Word));
}

}  // namespace copy_detail

// Copies `bytes` bytes. The ranges may alias the same memory: then the result is some mix of old and new bytes.
inline void copyBytes(uint8_t* to, const uint8_t* from, uint32_t bytes) {
  using namespace copy_detail;
  // SAFETY: every move below stays within [0, bytes) of both ranges: heads start at 0, tails end at `bytes`, and each
  // branch is entered only when `bytes` is at least the width of its moves.
  if (__builtin_expect(bytes > kInlineCopyLimit, 0)) {
    memcpy(to, from, bytes);
  } else if (bytes > 64) {
    uint32_t offset = 0;
    for (; offset + 64 < bytes; offset += 64) move64(to + offset, from + offset);
    // What is left is 1 to 64 bytes, so few 16-byte moves that end where the range ends do it.
    const uint32_t left = bytes - offset;
    if (left > 48) move16(to + bytes - 64, from + bytes - 64);
    if (left > 32) move16(to + bytes - 48, from + bytes - 48);
    if (left > 16) move16(to + bytes - 32, from + bytes - 32);
    move16(to + bytes - 16, from + bytes - 16);
  } else if (bytes > 32) {
    move16(to, from);
    move16(to + 16, from + 16);
    if (bytes > 48) move16(to + bytes - 32, from + bytes - 32);
    move16(to + bytes - 16, from + bytes - 16);
  } else if (bytes >= 16) {
    move16(to, from);
    move16(to + bytes - 16, from + bytes - 16);
  } else if (bytes >= 8) {
    moveEnds<uint64_t>(to, from, bytes);
  } else if (bytes >= 4) {
    moveEnds<uint32_t>(to, from, bytes);
  } else if (bytes >= 2) {
    moveEnds<uint16_t>(to, from, bytes);
  } else if (bytes == 1) {
    *to = *from;
  }
}

// Whether `bytes` bytes at both addresses are the same.
inline bool sameBytes(const uint8_t* a, const uint8_t* b, uint32_t bytes) {
  if (bytes < 8 || bytes > 32) return memcmp(a, b, bytes) == 0;
  uint64_t x[4];
  uint64_t y[4];
  if (bytes < 16) {
    // SAFETY: a word of 8 from the front and one that ends where the range does, both inside it.
    __builtin_memcpy(x, a, 8);
    __builtin_memcpy(y, b, 8);
    __builtin_memcpy(x + 1, a + bytes - 8, 8);
    __builtin_memcpy(y + 1, b + bytes - 8, 8);
    return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
  }
  // SAFETY: two words of 8 from the front and two that end where the range does, all inside it.
  __builtin_memcpy(x, a, 16);
  __builtin_memcpy(y, b, 16);
  __builtin_memcpy(x + 2, a + bytes - 16, 16);
  __builtin_memcpy(y + 2, b + bytes - 16, 16);
  return ((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3])) == 0;
}

// Puts the header where a packet is to begin with it. Most drivers leave it as they got it: in a line of its own,
// before that of the packet, it is not written anew, and the line need not come from their processor. SAFETY: the
// caller gives `bytes` writable bytes at `guest`.
inline void putHeader(uint8_t* guest, const uint8_t* header, uint32_t bytes) {
  const bool endsLine = (reinterpret_cast<uintptr_t>(guest + bytes) & (kCacheLine - 1)) == 0;
  if (!endsLine || !sameBytes(guest, header, bytes)) copyBytes(guest, header, bytes);
}

}  // namespace virtio_pmd
