#include "unix_socket.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

namespace virtio_pmd {
namespace {

Outcome fillAddress(const std::string& path, const char* syscall, sockaddr_un* address) {
  *address = {};
  address->sun_family = AF_UNIX;
  // An empty name or one with a NUL would be bound outside the file system.
  if (path.empty() || path.find('\0') != std::string::npos) return Outcome::system(syscall, EINVAL);
  if (path.size() >= sizeof(address->sun_path)) return Outcome::system(syscall, ENAMETOOLONG);
  memcpy(address->sun_path, path.data(), path.size());
  return Outcome::success();
}

UniqueFd unixSocket() {
  return UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

// Room for the control data of one message, aligned as its headers must be.
struct ControlBuffer {
  alignas(cmsghdr) uint8_t bytes[CMSG_SPACE(sizeof(int) * kMaxDescriptorsPerMessage)];
};

void takeDescriptors(msghdr& header, std::vector<UniqueFd>* fds) {
  for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr; control = CMSG_NXTHDR(&header, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      // SAFETY: cmsg_len is the kernel's and says that `count` ints follow the header.
      memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
      fds->emplace_back(fd);
    }
  }
}

}  // namespace

Outcome listenUnix(const std::string& path, int backlog, UniqueFd* listener) {
  sockaddr_un address;
  const Outcome outcome = fillAddress(path, "bind", &address);
  if (!outcome.ok()) return outcome;
  UniqueFd fd = unixSocket();
  if (!fd.valid()) return Outcome::system("socket");
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return Outcome::system("bind");
  if (listen(fd.get(), backlog) != 0) {
    const Outcome failure = Outcome::system("listen");
    unlink(path.c_str());
    return failure;
  }
  *listener = std::move(fd);
  return Outcome::success();
}

Outcome acceptUnix(int listener, UniqueFd* connection) {
  int fd;
  do {
    fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
  if (fd < 0 && errno != EAGAIN) return Outcome::system("accept4");
  connection->reset(fd);
  return Outcome::success();
}

Outcome connectUnix(const std::string& path, UniqueFd* connection) {
  sockaddr_un address;
  const Outcome outcome = fillAddress(path, "connect", &address);
  if (!outcome.ok()) return outcome;
  UniqueFd fd = unixSocket();
  if (!fd.valid()) return Outcome::system("socket");
  int result;
  do {
    result = connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  } while (result != 0 && errno == EINTR);
  if (result != 0) return Outcome::system("connect");
  *connection = std::move(fd);
  return Outcome::success();
}

Outcome socketPair(UniqueFd* first, UniqueFd* second) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0)
    return Outcome::system("socketpair");
  first->reset(fds[0]);
  second->reset(fds[1]);
  return Outcome::success();
}

Outcome receiveMessage(int fd, uint8_t* into, size_t capacity, ReceivedMessage* message) {
  // 0 bytes would read as the end of the stream.
  if (capacity == 0) return Outcome::range("there is no room to receive into");
  ControlBuffer control;
  iovec part = {into, capacity};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.bytes;
  header.msg_controllen = sizeof(control.bytes);
  message->fds.reserve(kMaxDescriptorsPerMessage);
  ssize_t result;
  do {
    // SAFETY: the kernel writes at most `capacity` bytes at `into`, which the caller holds.
    result = recvmsg(fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (result < 0 && errno == EINTR);
  if (result < 0) return errno == EAGAIN ? Outcome::success() : Outcome::system("recvmsg");
  takeDescriptors(header, &message->fds);
  message->arrived = true;
  message->bytes = static_cast<size_t>(result);
  message->truncated = (header.msg_flags & MSG_CTRUNC) != 0;
  return Outcome::success();
}

Outcome sendMessage(int fd, const uint8_t* bytes, size_t count, const std::vector<int>& fds, size_t* sent) {
  *sent = 0;
  if (fds.size() > kMaxDescriptorsPerMessage) return Outcome::range("a message carries at most 253 descriptors");
  if (count == 0) {
    // Descriptors travel with a byte; without one they would be lost without a word.
    return fds.empty() ? Outcome::success() : Outcome::range("descriptors need at least one byte to travel with");
  }
  ControlBuffer control;
  // SAFETY: sendmsg only reads the bytes; iovec has no const variant.
  iovec part = {const_cast<uint8_t*>(bytes), count};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    const size_t fdBytes = fds.size() * sizeof(int);
    memset(control.bytes, 0, sizeof(control.bytes));
    header.msg_control = control.bytes;
    header.msg_controllen = CMSG_SPACE(fdBytes);
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fdBytes);
    // SAFETY: the control buffer has room for 253 ints, checked above.
    memcpy(CMSG_DATA(rights), fds.data(), fdBytes);
  }
  ssize_t result;
  do {
    result = sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (result < 0 && errno == EINTR);
  if (result < 0) return errno == EAGAIN ? Outcome::success() : Outcome::system("sendmsg");
  *sent = static_cast<size_t>(result);
  return Outcome::success();
}

}  // namespace virtio_pmd
