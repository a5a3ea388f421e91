// openTap, setTapOffloads, readTap, writeTap.
#include "arguments.h"
#include "state.h"
#include "tap.h"

namespace virtio_pmd {
namespace {

// More than any burst.
constexpr uint32_t kMaxTapBuffers = (1 << 16) - 1;
// `TAP_REFUSED` of native/index.ts.
constexpr double kTapRefused = 1 << 16;

Napi::Value openTapFunction(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  TapOptions options;
  if (!readString(info[0], "name", &options.name) || !readU32(info[1], "headerBytes", &options.headerBytes) ||
      !readU32(info[2], "offloads", &options.offloads)) {
    return Napi::Value();
  }
  if (options.headerBytes < 10 || options.headerBytes > 64) {
    throwRangeError(env, "headerBytes must be an integer from 10 to 64");
    return Napi::Value();
  }
  Tap tap;
  if (!throwUnlessOk(env, openTap(options, &tap))) return Napi::Value();
  Napi::Object result = Napi::Object::New(env);
  result.Set("name", Napi::String::New(env, tap.name));
  result.Set("fd", Napi::Number::New(env, tap.fd.get()));
  if (env.IsExceptionPending()) return Napi::Value();
  tap.fd.release();
  return result;
}

Napi::Value setTapOffloadsFunction(const Napi::CallbackInfo& info) {
  int fd;
  uint32_t offloads;
  if (!readFd(info[0], "fd", &fd) || !readU32(info[1], "offloads", &offloads) ||
      !throwUnlessOk(info.Env(), setTapOffloads(fd, offloads))) {
    return Napi::Value();
  }
  return info.Env().Undefined();
}

// The pool, and the buffers in it: `needed` of them. Both pointers are good until JavaScript runs again.
struct BufferList {
  uint8_t* pool = nullptr;
  size_t poolBytes = 0;
  uint32_t* words = nullptr;
};

bool readBufferList(const Napi::Value& pool, const Napi::Value& buffers, size_t needed, BufferList* list) {
  const Napi::Env env = pool.Env();
  if (!pool.IsArrayBuffer()) {
    throwTypeError(env, "pool must be an ArrayBuffer");
    return false;
  }
  napi_typedarray_type type = napi_int8_array;
  size_t words = 0;
  void* start = nullptr;
  if (!buffers.IsTypedArray() ||
      napi_get_typedarray_info(env, buffers, &type, &words, &start, nullptr, nullptr) != napi_ok ||
      type != napi_uint32_array) {
    throwTypeError(env, "buffers must be a Uint32Array");
    return false;
  }
  if (start == nullptr || words / kTapBufferWords < needed) {
    throwRangeError(env, "buffers must have as many entries as are to be used");
    return false;
  }
  list->words = static_cast<uint32_t*>(start);
  void* data = nullptr;
  napi_get_arraybuffer_info(env, pool, &data, &list->poolBytes);
  list->pool = static_cast<uint8_t*>(data);
  // The engine's pointer for a detached buffer is not to be used.
  if (list->pool == nullptr) list->poolBytes = 0;
  return true;
}

Napi::Value readTapFunction(const Napi::CallbackInfo& info) {
  int fd;
  uint64_t count;
  uint64_t spares;
  BufferList list;
  if (!readFd(info[0], "fd", &fd) || !readInteger(info[3], "count", kMaxTapBuffers, &count) ||
      !readInteger(info[4], "spares", kMaxTapSegments, &spares) ||
      !readBufferList(info[1], info[2], count + spares, &list)) {
    return Napi::Value();
  }
  size_t frames;
  // SAFETY: readTap stays inside the pool and the list, whose sizes were read with them.
  const Outcome outcome = readTap(fd, list.pool, list.poolBytes, list.words, count, spares, &frames);
  if (!throwUnlessOk(info.Env(), outcome)) return Napi::Value();
  return Napi::Number::New(info.Env(), static_cast<double>(frames));
}

Napi::Value writeTapFunction(const Napi::CallbackInfo& info) {
  int fd;
  uint64_t count;
  BufferList list;
  if (!readFd(info[0], "fd", &fd) || !readInteger(info[3], "count", kMaxTapBuffers, &count) ||
      !readBufferList(info[1], info[2], count, &list)) {
    return Napi::Value();
  }
  size_t written;
  size_t refused;
  // SAFETY: writeTap stays inside the pool and the list, whose sizes were read with them.
  const Outcome outcome = writeTap(fd, list.pool, list.poolBytes, list.words, count, &written, &refused);
  if (!throwUnlessOk(info.Env(), outcome)) return Napi::Value();
  // Both in one number, for an object a burst is garbage.
  return Napi::Number::New(info.Env(), static_cast<double>(written) + static_cast<double>(refused) * kTapRefused);
}

}  // namespace

void exportTap(Napi::Env env, Napi::Object exports) {
  exportFunction(env, exports, "openTap", openTapFunction);
  exportFunction(env, exports, "setTapOffloads", setTapOffloadsFunction);
  exportFunction(env, exports, "readTap", readTapFunction);
  exportFunction(env, exports, "writeTap", writeTapFunction);
}

}  // namespace virtio_pmd
