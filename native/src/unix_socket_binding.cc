// listenUnix, acceptUnix, connectUnix, socketPair, receive, send.
#include "arguments.h"
#include "state.h"
#include "unix_socket.h"

namespace virtio_pmd {
namespace {

Napi::Value listenUnixFunction(const Napi::CallbackInfo& info) {
  std::string path;
  uint64_t backlog;
  UniqueFd listener;
  if (!readString(info[0], "path", &path) || !readInteger(info[1], "backlog", INT32_MAX, &backlog) ||
      !throwUnlessOk(info.Env(), listenUnix(path, static_cast<int>(backlog), &listener))) {
    return Napi::Value();
  }
  return Napi::Number::New(info.Env(), listener.release());
}

Napi::Value acceptUnixFunction(const Napi::CallbackInfo& info) {
  int fd;
  UniqueFd connection;
  if (!readFd(info[0], "fd", &fd) || !throwUnlessOk(info.Env(), acceptUnix(fd, &connection))) return Napi::Value();
  return Napi::Number::New(info.Env(), connection.release());
}

Napi::Value connectUnixFunction(const Napi::CallbackInfo& info) {
  std::string path;
  UniqueFd connection;
  if (!readString(info[0], "path", &path) || !throwUnlessOk(info.Env(), connectUnix(path, &connection)))
    return Napi::Value();
  return Napi::Number::New(info.Env(), connection.release());
}

Napi::Value socketPairFunction(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  UniqueFd first;
  UniqueFd second;
  if (!throwUnlessOk(env, socketPair(&first, &second))) return Napi::Value();
  Napi::Array pair = Napi::Array::New(env, 2);
  pair.Set(0u, Napi::Number::New(env, first.release()));
  pair.Set(1u, Napi::Number::New(env, second.release()));
  return pair;
}

// The bytes of a Uint8Array (a Buffer is one). The pointer is good until JavaScript runs again.
bool readBytes(const Napi::Value& value, const char* name, uint8_t** data, size_t* bytes) {
  napi_typedarray_type type = napi_int8_array;
  void* start = nullptr;
  if (!value.IsTypedArray() ||
      napi_get_typedarray_info(value.Env(), value, &type, bytes, &start, nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array) {
    throwTypeError(value.Env(), std::string(name) + " must be a Uint8Array");
    return false;
  }
  *data = static_cast<uint8_t*>(start);
  // The engine's pointer for an empty or detached array is not to be used.
  if (*data == nullptr) *bytes = 0;
  return true;
}

Napi::Value receive(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  uint8_t* into;
  size_t capacity;
  if (!readFd(info[0], "fd", &fd) || !readBytes(info[1], "into", &into, &capacity)) return Napi::Value();
  ReceivedMessage message;
  // SAFETY: `into` is the array's memory, and no JavaScript runs before receiveMessage is done with it.
  if (!throwUnlessOk(env, receiveMessage(fd, into, capacity, &message))) return Napi::Value();
  if (!message.arrived) return env.Undefined();
  Napi::Object result = Napi::Object::New(env);
  Napi::Array fds = Napi::Array::New(env, message.fds.size());
  for (uint32_t i = 0; i < message.fds.size(); i++) fds.Set(i, Napi::Number::New(env, message.fds[i].get()));
  result.Set("bytes", Napi::Number::New(env, static_cast<double>(message.bytes)));
  result.Set("fds", fds);
  result.Set("truncated", Napi::Boolean::New(env, message.truncated));
  // Until here an exception (the thread is being stopped) still closes them all.
  if (env.IsExceptionPending()) return Napi::Value();
  for (UniqueFd& received : message.fds) received.release();
  return result;
}

Napi::Value send(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fd;
  if (!readFd(info[0], "fd", &fd)) return Napi::Value();
  // The descriptors first: reading an array may run JavaScript, which could take the bytes away.
  std::vector<uint64_t> numbers;
  if (!readIntegers(info[2], "fds", INT32_MAX, kMaxDescriptorsPerMessage, &numbers)) return Napi::Value();
  const std::vector<int> fds(numbers.begin(), numbers.end());
  uint8_t* bytes;
  size_t count;
  if (!readBytes(info[1], "bytes", &bytes, &count)) return Napi::Value();
  size_t sent;
  // SAFETY: `bytes` is the array's memory, and no JavaScript runs before sendMessage is done with it.
  if (!throwUnlessOk(env, sendMessage(fd, bytes, count, fds, &sent))) return Napi::Value();
  return Napi::Number::New(env, static_cast<double>(sent));
}

}  // namespace

void exportUnixSockets(Napi::Env env, Napi::Object exports) {
  exportFunction(env, exports, "listenUnix", listenUnixFunction);
  exportFunction(env, exports, "acceptUnix", acceptUnixFunction);
  exportFunction(env, exports, "connectUnix", connectUnixFunction);
  exportFunction(env, exports, "socketPair", socketPairFunction);
  exportFunction(env, exports, "receive", receive);
  exportFunction(env, exports, "send", send);
}

}  // namespace virtio_pmd
