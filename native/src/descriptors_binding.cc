// closeFd, duplicateFd, inspectFd, and the eventfd calls.
#include "arguments.h"
#include "descriptors.h"
#include "state.h"

namespace virtio_pmd {
namespace {

Napi::Value closeFd(const Napi::CallbackInfo& info) {
  int fd;
  if (!readFd(info[0], "fd", &fd) || !throwUnlessOk(info.Env(), closeDescriptor(fd))) return Napi::Value();
  return info.Env().Undefined();
}

Napi::Value duplicateFd(const Napi::CallbackInfo& info) {
  int fd;
  UniqueFd copy;
  if (!readFd(info[0], "fd", &fd) || !throwUnlessOk(info.Env(), duplicateDescriptor(fd, &copy))) return Napi::Value();
  return Napi::Number::New(info.Env(), copy.release());
}

Napi::Value inspectFd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  DescriptorKind kind;
  if (!readFd(info[0], "fd", &fd) || !throwUnlessOk(env, inspectDescriptor(fd, &kind))) return Napi::Value();
  Napi::Object result = Napi::Object::New(env);
  result.Set("kind", Napi::String::New(env, kind.kind));
  result.Set("bytes", Napi::Number::New(env, static_cast<double>(kind.bytes)));
  result.Set("seals", Napi::Number::New(env, kind.seals));
  return result;
}

Napi::Value createEventFdFunction(const Napi::CallbackInfo& info) {
  uint32_t initial;
  UniqueFd event;
  if (!readU32(info[0], "initial", &initial) || !throwUnlessOk(info.Env(), createEventFd(initial, &event)))
    return Napi::Value();
  return Napi::Number::New(info.Env(), event.release());
}

// Never throws: what is not a descriptor cannot be signalled, and that is the answer.
Napi::Value signalEventFdFunction(const Napi::CallbackInfo& info) {
  int32_t fd = -1;
  if (napi_get_value_int32(info.Env(), info[0], &fd) != napi_ok || fd < 0) return Napi::Boolean::New(info.Env(), false);
  return Napi::Boolean::New(info.Env(), signalEventFd(fd));
}

Napi::Value drainEventFdFunction(const Napi::CallbackInfo& info) {
  int fd;
  uint64_t count;
  if (!readFd(info[0], "fd", &fd) || !throwUnlessOk(info.Env(), drainEventFd(fd, &count))) return Napi::Value();
  return Napi::BigInt::New(info.Env(), count);
}

}  // namespace

void exportDescriptors(Napi::Env env, Napi::Object exports) {
  exportFunction(env, exports, "closeFd", closeFd);
  exportFunction(env, exports, "duplicateFd", duplicateFd);
  exportFunction(env, exports, "inspectFd", inspectFd);
  exportFunction(env, exports, "createEventFd", createEventFdFunction);
  exportFunction(env, exports, "signalEventFd", signalEventFdFunction);
  exportFunction(env, exports, "drainEventFd", drainEventFdFunction);
}

}  // namespace virtio_pmd
