// waitReadable: has a thread without an event loop sleep until a descriptor can be read.
#include <napi.h>
#include <poll.h>

#include "arguments.h"
#include "state.h"

namespace virtio_pmd {
namespace {

// A poll thread waits for its queues and its control plane: far fewer.
constexpr size_t kMaxDescriptors = 256;

Napi::Value waitReadable(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) {
    throwTypeError(env, "fds must be an Int32Array");
    return Napi::Value();
  }
  uint32_t timeoutMs;
  if (!readU32(info[1], "timeoutMs", &timeoutMs)) return Napi::Value();
  const Napi::Int32Array fds = info[0].As<Napi::Int32Array>();
  const size_t count = fds.ElementLength();
  if (count > kMaxDescriptors || timeoutMs > INT32_MAX) {
    throwRangeError(env, "there are at most 256 descriptors and 2^31 - 1 milliseconds to wait for");
    return Napi::Value();
  }
  pollfd waited[kMaxDescriptors];
  for (size_t index = 0; index < count; index++) {
    // A negative number is passed over by poll itself.
    waited[index] = {fds[index], POLLIN, 0};
  }
  const int ready = poll(waited, count, static_cast<int>(timeoutMs));
  // A signal ends the wait as a timeout does: whoever waits looks again anyway.
  if (ready < 0 && errno != EINTR) {
    throwUnlessOk(env, Outcome::system("poll"));
    return Napi::Value();
  }
  return Napi::Boolean::New(env, ready > 0);
}

}  // namespace

void exportWaitReadable(Napi::Env env, Napi::Object exports) {
  exportFunction(env, exports, "waitReadable", waitReadable);
}

}  // namespace virtio_pmd
