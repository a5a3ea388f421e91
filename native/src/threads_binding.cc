// setAffinity, affinity, yieldThread, memlockLimit.
#include <limits>

#include "arguments.h"
#include "state.h"
#include "threads.h"

namespace virtio_pmd {
namespace {

// A millisecond, in nanoseconds: who waits longer is to sleep.
constexpr uint64_t kMaxPause = 1000 * 1000;

Napi::Value setAffinityFunction(const Napi::CallbackInfo& info) {
  std::vector<uint64_t> numbers;
  if (!readIntegers(info[0], "cpus", INT32_MAX, kMaxProcessors, &numbers)) return Napi::Value();
  const std::vector<uint32_t> processors(numbers.begin(), numbers.end());
  if (!throwUnlessOk(info.Env(), setAffinity(processors))) return Napi::Value();
  return info.Env().Undefined();
}

Napi::Value affinityFunction(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::vector<uint32_t> processors;
  if (!throwUnlessOk(env, affinity(&processors))) return Napi::Value();
  Napi::Array result = Napi::Array::New(env, processors.size());
  for (uint32_t i = 0; i < processors.size(); i++) result.Set(i, Napi::Number::New(env, processors[i]));
  return result;
}

Napi::Value yieldThreadFunction(const Napi::CallbackInfo& info) {
  yieldThread();
  return info.Env().Undefined();
}

Napi::Value pauseThreadFunction(const Napi::CallbackInfo& info) {
  uint64_t nanoseconds;
  if (!readInteger(info[0], "nanoseconds", kMaxPause, &nanoseconds)) return Napi::Value();
  pauseThread(nanoseconds);
  return info.Env().Undefined();
}

Napi::Value memlockLimitFunction(const Napi::CallbackInfo& info) {
  uint64_t bytes;
  if (!throwUnlessOk(info.Env(), memlockLimit(&bytes))) return Napi::Value();
  const bool isUnlimited = bytes == UINT64_MAX;
  return Napi::Number::New(info.Env(),
                           isUnlimited ? std::numeric_limits<double>::infinity() : static_cast<double>(bytes));
}

}  // namespace

void exportThreads(Napi::Env env, Napi::Object exports) {
  exportFunction(env, exports, "setAffinity", setAffinityFunction);
  exportFunction(env, exports, "affinity", affinityFunction);
  exportFunction(env, exports, "yieldThread", yieldThreadFunction);
  exportFunction(env, exports, "pauseThread", pauseThreadFunction);
  exportFunction(env, exports, "memlockLimit", memlockLimitFunction);
}

}  // namespace virtio_pmd
