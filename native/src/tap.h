// A tap interface of the kernel: Ethernet frames as bytes on a descriptor, each with a virtio-net header before it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "outcome.h"
#include "unique_fd.h"

namespace virtio_pmd {

// The longest frame is spread over this many buffers at most.
constexpr size_t kMaxTapSegments = 64;

// Words of one buffer in a list for the calls below; `TapBuffer` of native/index.ts.
enum TapBufferWord : size_t {
  kTapOffset = 0,
  // Bytes of room (read), bytes of data (write).
  kTapBytes = 1,
  // Read: bytes of the frame that begins here. Write: 1 where the frame goes on in the next buffer.
  kTapFrame = 2,
  kTapBufferWords = 4,
};

struct TapOptions {
  std::string name;
  // Bytes of the header before each frame, both ways.
  uint32_t headerBytes = 12;
  // TUN_F_ bits: what frames from the kernel may be left to the reader.
  uint32_t offloads = 0;
};

struct Tap {
  UniqueFd fd;
  // What the kernel named it.
  std::string name;
};

// Opens an interface, and makes it where it is not there: then it is gone with the descriptor.
Outcome openTap(const TapOptions& options, Tap* tap);
Outcome setTapOffloads(int fd, uint32_t offloads);

// Reads frames into buffers 0 to `count - 1` of the pool, one a buffer; what is longer than its buffer goes on in the
// spare ones behind them, and ends the call. Writes the frames' lengths; `frames` is how many there were. An error is
// reported when no frame was read before it.
Outcome readTap(int fd, uint8_t* pool, size_t poolBytes, uint32_t* buffers, size_t count, size_t spares,
                size_t* frames);

// Writes the frames in buffers 0 to `count - 1`. `written` is how many buffers were dealt with: less than `count` when
// the interface takes no more now. Frames that it refuses are dropped and counted.
Outcome writeTap(int fd, const uint8_t* pool, size_t poolBytes, const uint32_t* buffers, size_t count, size_t* written,
                 size_t* refused);

}  // namespace virtio_pmd
