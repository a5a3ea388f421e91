// Descriptors, sockets and processors, for a build with sanitizers.
#include "descriptors.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cstring>
#include <string>

#include "check.h"
#include "threads.h"
#include "unix_socket.h"

using namespace virtio_pmd;

namespace {

void passesDescriptors() {
  UniqueFd first;
  UniqueFd second;
  CHECK(socketPair(&first, &second).ok());
  std::vector<int> many(253, first.get());
  size_t sent = 0;
  const uint8_t byte = 42;
  CHECK(sendMessage(first.get(), &byte, 1, many, &sent).ok() && sent == 1);
  many.push_back(first.get());
  CHECK(!sendMessage(first.get(), &byte, 1, many, &sent).ok());
  CHECK(!sendMessage(first.get(), &byte, 0, {first.get()}, &sent).ok());
  uint8_t into[4] = {};
  {
    ReceivedMessage message;
    CHECK(receiveMessage(second.get(), into, sizeof(into), &message).ok());
    CHECK(message.arrived && message.bytes == 1 && message.fds.size() == 253 && !message.truncated && into[0] == 42);
  }
  ReceivedMessage nothing;
  CHECK(receiveMessage(second.get(), into, sizeof(into), &nothing).ok() && !nothing.arrived);
  first.reset(-1);
  ReceivedMessage end;
  CHECK(receiveMessage(second.get(), into, sizeof(into), &end).ok() && end.arrived && end.bytes == 0);
}

// What a peer sends may be set to block: asking it must not.
void doesNotWaitForBlockingEvents() {
  const UniqueFd event(eventfd(0, 0));
  uint64_t count = 1;
  CHECK(drainEventFd(event.get(), &count).ok() && count == 0);
  const UniqueFd full(eventfd(0, 0));
  const uint64_t most = UINT64_MAX - 1;
  CHECK(write(full.get(), &most, sizeof(most)) == sizeof(most));
  CHECK(!signalEventFd(full.get()));
  CHECK(drainEventFd(full.get(), &count).ok() && count == most);
  CHECK(!signalEventFd(-1));
  CHECK(!drainEventFd(-1, &count).ok());
}

void keepsStandardDescriptorsFree() {
  UniqueFd copy;
  CHECK(duplicateDescriptor(0, &copy).ok() || errno == EBADF);
  CHECK(!copy.valid() || copy.get() > 2);
  UniqueFd none;
  CHECK(!duplicateDescriptor(-1, &none).ok() && !none.valid());
  CHECK(closeDescriptor(-1).error == EBADF);
}

void refusesBadNames() {
  UniqueFd fd;
  CHECK(listenUnix("", 1, &fd).error == EINVAL);
  CHECK(listenUnix(std::string("/tmp/a\0b", 8), 1, &fd).error == EINVAL);
  CHECK(connectUnix(std::string(108, 'x'), &fd).error == ENAMETOOLONG);
  CHECK(!fd.valid());
}

// A message whose header claims credentials beside descriptors: only the descriptors are taken.
void ignoresOtherControlData() {
  UniqueFd first;
  UniqueFd second;
  CHECK(socketPair(&first, &second).ok());
  const int on = 1;
  CHECK(setsockopt(second.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0);
  size_t sent = 0;
  const uint8_t byte = 1;
  CHECK(sendMessage(first.get(), &byte, 1, {first.get(), second.get()}, &sent).ok());
  uint8_t into;
  ReceivedMessage message;
  CHECK(receiveMessage(second.get(), &into, 1, &message).ok());
  CHECK(message.fds.size() == 2);
  for (const UniqueFd& fd : message.fds) CHECK((fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
}

void pinsAndUnpins() {
  std::vector<uint32_t> before;
  CHECK(affinity(&before).ok() && !before.empty());
  CHECK(setAffinity({before[0]}).ok());
  CHECK(setAffinity({before[0], kMaxProcessors - 1}).error == EINVAL);
  CHECK(setAffinity({kMaxProcessors}).error == EINVAL);
  std::vector<uint32_t> pinned;
  CHECK(affinity(&pinned).ok() && pinned.size() == 1 && pinned[0] == before[0]);
  CHECK(setAffinity(before).ok());
}

}  // namespace

int main() {
  passesDescriptors();
  doesNotWaitForBlockingEvents();
  keepsStandardDescriptorsFree();
  refusesBadNames();
  ignoresOtherControlData();
  pinsAndUnpins();
  puts("ok");
  return 0;
}
