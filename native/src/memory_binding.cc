// createMemory, mapShared, unmapShared, addressOf.
#include "arguments.h"
#include "state.h"

namespace virtio_pmd {
namespace {

// `MapFlag` of native/index.ts.
constexpr uint32_t kMapReadOnly = 1;
constexpr uint32_t kMapLock = 2;
constexpr uint32_t kMapPopulate = 4;

constexpr uint64_t kHugePage2M = 2ull << 20;
constexpr uint64_t kHugePage1G = 1ull << 30;

struct BufferArgument {
  void* data = nullptr;
  size_t bytes = 0;
  bool isDetached = false;
};

bool readArrayBuffer(const Napi::Value& value, BufferArgument* buffer) {
  if (!value.IsArrayBuffer()) {
    throwTypeError(value.Env(), "buffer must be an ArrayBuffer");
    return false;
  }
  napi_is_detached_arraybuffer(value.Env(), value, &buffer->isDetached);
  napi_get_arraybuffer_info(value.Env(), value, &buffer->data, &buffer->bytes);
  return true;
}

Napi::Value createMemoryFunction(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::string name;
  uint64_t bytes;
  uint64_t hugePageBytes;
  if (!readString(info[0], "name", &name) || !readInteger(info[1], "bytes", kMaxSafeInteger, &bytes) ||
      !readInteger(info[2], "hugePageBytes", kMaxSafeInteger, &hugePageBytes)) {
    return Napi::Value();
  }
  if (name.find('\0') != std::string::npos) {
    throwRangeError(env, "name must not contain NUL");
    return Napi::Value();
  }
  if (hugePageBytes != 0 && hugePageBytes != kHugePage2M && hugePageBytes != kHugePage1G) {
    throwRangeError(env, "hugePageBytes must be 0, 2 MiB or 1 GiB");
    return Napi::Value();
  }
  if (bytes == 0 || (hugePageBytes != 0 && bytes % hugePageBytes != 0)) {
    throwRangeError(env, "bytes must be a positive multiple of the page size");
    return Napi::Value();
  }
  UniqueFd fd;
  if (!throwUnlessOk(env, createMemory(name.c_str(), bytes, hugePageBytes, &fd))) return Napi::Value();
  return Napi::Number::New(env, fd.release());
}

Napi::Value mapShared(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  MappingRequest request;
  uint32_t flags;
  if (!readFd(info[0], "fd", &request.fd) || !readInteger(info[1], "offset", kMaxSafeInteger, &request.fileOffset) ||
      !readInteger(info[2], "bytes", kMaxSafeInteger, &request.bytes) || !readU32(info[3], "flags", &flags)) {
    return Napi::Value();
  }
  if ((flags & ~(kMapReadOnly | kMapLock | kMapPopulate)) != 0) {
    throwRangeError(env, "flags has bits that are not in MapFlag");
    return Napi::Value();
  }
  request.readOnly = (flags & kMapReadOnly) != 0;
  request.lock = (flags & kMapLock) != 0;
  request.populate = (flags & kMapPopulate) != 0;
  std::shared_ptr<Mapping> mapping;
  if (!throwUnlessOk(env, Mapping::open(request, &mapping))) return Napi::Value();
  if (!mapping->startsAtPage()) {
    throwRangeError(env, "offset must be a multiple of the page size");
    return Napi::Value();
  }
  return State::of(env).views->wrap(env, mapping, mapping->data(), mapping->bytes(), true);
}

Napi::Value unmapShared(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  BufferArgument buffer;
  if (!readArrayBuffer(info[0], &buffer)) return Napi::Value();
  if (buffer.isDetached) return env.Undefined();
  const std::shared_ptr<Views> views = State::of(env).views;
  const std::shared_ptr<Mapping> mapping = views->find(buffer.data, buffer.bytes);
  // A view of a copy engine ends with its region.
  if (mapping == nullptr || mapping->isForeign()) {
    throwTypeError(env, "buffer must come from mapShared");
    return Napi::Value();
  }
  views->retire(env, mapping);
  return env.Undefined();
}

Napi::Value addressOf(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  BufferArgument buffer;
  if (!readArrayBuffer(info[0], &buffer)) return Napi::Value();
  if (State::of(env).views->find(buffer.data, buffer.bytes) == nullptr) {
    throwTypeError(env, "buffer must be mapped memory");
    return Napi::Value();
  }
  return Napi::BigInt::New(env, static_cast<uint64_t>(reinterpret_cast<uintptr_t>(buffer.data)));
}

}  // namespace

void exportMemory(Napi::Env env, Napi::Object exports) {
  exportFunction(env, exports, "createMemory", createMemoryFunction);
  exportFunction(env, exports, "mapShared", mapShared);
  exportFunction(env, exports, "unmapShared", unmapShared);
  exportFunction(env, exports, "addressOf", addressOf);
}

}  // namespace virtio_pmd
