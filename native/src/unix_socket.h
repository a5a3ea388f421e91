// Unix stream sockets that carry descriptors: non-blocking, close-on-exec, never SIGPIPE.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "outcome.h"
#include "unique_fd.h"

namespace virtio_pmd {

// SCM_MAX_FD of the kernel.
constexpr size_t kMaxDescriptorsPerMessage = 253;

Outcome listenUnix(const std::string& path, int backlog, UniqueFd* listener);
// Leaves `*connection` invalid when nobody waits.
Outcome acceptUnix(int listener, UniqueFd* connection);
Outcome connectUnix(const std::string& path, UniqueFd* connection);
Outcome socketPair(UniqueFd* first, UniqueFd* second);

struct ReceivedMessage {
  // False when there was nothing to read.
  bool arrived = false;
  size_t bytes = 0;
  // The kernel dropped descriptors.
  bool truncated = false;
  std::vector<UniqueFd> fds;
};

// Reads up to `capacity` bytes, at least one, and the descriptors that came with them.
Outcome receiveMessage(int fd, uint8_t* into, size_t capacity, ReceivedMessage* message);
// Sends what fits, with `fds` on the first byte; `*sent` is 0 when the socket is full.
Outcome sendMessage(int fd, const uint8_t* bytes, size_t count, const std::vector<int>& fds, size_t* sent);

}  // namespace virtio_pmd
