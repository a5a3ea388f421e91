#include "descriptors.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

namespace virtio_pmd {
namespace {

// Standard input, output and error stay what they are, even where they are closed.
constexpr int kFirstOwnDescriptor = 3;

const char* kindOf(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return "file";
    case S_IFDIR:
      return "directory";
    case S_IFSOCK:
      return "socket";
    case S_IFIFO:
      return "fifo";
    case S_IFCHR:
      return "character";
    case S_IFBLK:
      return "block";
    default:
      return "other";
  }
}

// A peer's descriptor may block, and one poll() ahead would not help: the peer could fill it in between.
bool makeNonBlocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return false;
  return (flags & O_NONBLOCK) != 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

}  // namespace

Outcome closeDescriptor(int fd) {
  // After EINTR the descriptor is closed all the same on Linux; closing again could hit somebody else's.
  if (close(fd) != 0 && errno != EINTR) return Outcome::system("close");
  return Outcome::success();
}

Outcome duplicateDescriptor(int fd, UniqueFd* copy) {
  const int result = fcntl(fd, F_DUPFD_CLOEXEC, kFirstOwnDescriptor);
  if (result < 0) return Outcome::system("fcntl");
  copy->reset(result);
  return Outcome::success();
}

Outcome inspectDescriptor(int fd, DescriptorKind* kind) {
  struct stat status;
  if (fstat(fd, &status) != 0) return Outcome::system("fstat");
  kind->kind = kindOf(status.st_mode);
  kind->bytes = status.st_size;
  kind->seals = fcntl(fd, F_GET_SEALS);
  return Outcome::success();
}

Outcome createEventFd(uint32_t initial, UniqueFd* event) {
  const int fd = eventfd(initial, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) return Outcome::system("eventfd");
  event->reset(fd);
  return Outcome::success();
}

bool signalEventFd(int fd) {
  if (!makeNonBlocking(fd)) return false;
  const uint64_t one = 1;
  ssize_t result;
  do {
    result = write(fd, &one, sizeof(one));
  } while (result < 0 && errno == EINTR);
  return result == sizeof(one);
}

Outcome drainEventFd(int fd, uint64_t* count) {
  *count = 0;
  if (!makeNonBlocking(fd)) return Outcome::system("fcntl");
  uint64_t value = 0;
  ssize_t result;
  do {
    result = read(fd, &value, sizeof(value));
  } while (result < 0 && errno == EINTR);
  if (result < 0 && errno != EAGAIN) return Outcome::system("read");
  if (result == sizeof(value)) *count = value;
  return Outcome::success();
}

}  // namespace virtio_pmd
