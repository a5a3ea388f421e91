#include "tap.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>

namespace virtio_pmd {
namespace {

static_assert(kTapBufferWords * sizeof(uint32_t) == 16, "TapBuffer of native/index.ts");

bool isInside(const uint32_t* buffer, size_t poolBytes) {
  return buffer[kTapOffset] <= poolBytes && buffer[kTapBytes] <= poolBytes - buffer[kTapOffset];
}

bool areInside(const uint32_t* buffers, size_t count, size_t poolBytes) {
  for (size_t i = 0; i < count; i++) {
    if (!isInside(buffers + i * kTapBufferWords, poolBytes)) return false;
  }
  return true;
}

Outcome attach(int fd, const std::string& name, short flags, std::string* given) {
  ifreq request = {};
  memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags = flags;
  if (ioctl(fd, TUNSETIFF, &request) != 0) return Outcome::system("TUNSETIFF");
  request.ifr_name[IFNAMSIZ - 1] = '\0';
  *given = request.ifr_name;
  return Outcome::success();
}

}  // namespace

Outcome openTap(const TapOptions& options, Tap* tap) {
  // An empty name, or one with a %, would be the kernel's choice.
  if (options.name.empty() || options.name.find_first_of(std::string("\0%/", 3)) != std::string::npos) {
    return Outcome::system("TUNSETIFF", EINVAL);
  }
  if (options.name.size() >= IFNAMSIZ) return Outcome::system("TUNSETIFF", ENAMETOOLONG);
  UniqueFd fd(open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) return Outcome::system("open");
  const short flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  Outcome outcome = attach(fd.get(), options.name, flags, &tap->name);
  // One that was made for several queues is opened as such, or not at all.
  if (outcome.error == EINVAL) outcome = attach(fd.get(), options.name, flags | IFF_MULTI_QUEUE, &tap->name);
  if (!outcome.ok()) return outcome;
  int headerBytes = static_cast<int>(options.headerBytes);
  if (ioctl(fd.get(), TUNSETVNETHDRSZ, &headerBytes) != 0) return Outcome::system("TUNSETVNETHDRSZ");
  // Headers are little-endian, as those of virtio 1.0 on any machine.
  int isLittleEndian = 1;
  if (ioctl(fd.get(), TUNSETVNETLE, &isLittleEndian) != 0) return Outcome::system("TUNSETVNETLE");
  outcome = setTapOffloads(fd.get(), options.offloads);
  if (!outcome.ok()) return outcome;
  tap->fd = std::move(fd);
  return Outcome::success();
}

Outcome setTapOffloads(int fd, uint32_t offloads) {
  if (ioctl(fd, TUNSETOFFLOAD, static_cast<unsigned long>(offloads)) != 0) return Outcome::system("TUNSETOFFLOAD");
  return Outcome::success();
}

Outcome readTap(int fd, uint8_t* pool, size_t poolBytes, uint32_t* buffers, size_t count, size_t spares,
                size_t* frames) {
  *frames = 0;
  if (spares >= kMaxTapSegments) return Outcome::range("there are at most 63 spare buffers");
  if (!areInside(buffers, count + spares, poolBytes)) return Outcome::range("a buffer must be inside the pool");
  iovec parts[kMaxTapSegments];
  for (size_t i = 0; i < spares; i++) {
    const uint32_t* const spare = buffers + (count + i) * kTapBufferWords;
    // SAFETY: the buffer is inside the pool, checked above.
    parts[i + 1] = {pool + spare[kTapOffset], spare[kTapBytes]};
  }
  for (size_t frame = 0; frame < count; frame++) {
    uint32_t* const buffer = buffers + frame * kTapBufferWords;
    // SAFETY: as above.
    parts[0] = {pool + buffer[kTapOffset], buffer[kTapBytes]};
    ssize_t result;
    do {
      result = readv(fd, parts, static_cast<int>(spares + 1));
    } while (result < 0 && errno == EINTR);
    if (result < 0) {
      // What was read before an error is not lost for it: the error comes again.
      return errno == EAGAIN || frame > 0 ? Outcome::success() : Outcome::system("readv");
    }
    buffer[kTapFrame] = static_cast<uint32_t>(result);
    *frames = frame + 1;
    if (static_cast<size_t>(result) > buffer[kTapBytes]) break;
  }
  return Outcome::success();
}

Outcome writeTap(int fd, const uint8_t* pool, size_t poolBytes, const uint32_t* buffers, size_t count, size_t* written,
                 size_t* refused) {
  *written = 0;
  *refused = 0;
  if (!areInside(buffers, count, poolBytes)) return Outcome::range("a buffer must be inside the pool");
  iovec parts[kMaxTapSegments];
  for (size_t first = 0; first < count;) {
    size_t end = first;
    bool goesOn = true;
    size_t used = 0;
    for (; goesOn && end < count; end++) {
      const uint32_t* const buffer = buffers + end * kTapBufferWords;
      if (used < kMaxTapSegments) {
        // SAFETY: inside the pool, checked above; writev only reads, iovec has no const variant.
        parts[used] = {const_cast<uint8_t*>(pool) + buffer[kTapOffset], buffer[kTapBytes]};
      }
      used += 1;
      goesOn = buffer[kTapFrame] != 0;
    }
    ssize_t result = -1;
    if (used <= kMaxTapSegments) {
      do {
        result = writev(fd, parts, static_cast<int>(used));
      } while (result < 0 && errno == EINTR);
      if (result < 0 && errno == EAGAIN) return Outcome::success();
    }
    if (result < 0) *refused += 1;
    first = end;
    *written = end;
  }
  return Outcome::success();
}

}  // namespace virtio_pmd
