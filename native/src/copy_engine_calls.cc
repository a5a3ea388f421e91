#include "copy_engine_calls.h"

#include "state.h"

namespace virtio_pmd {

void RunState::dropPool() {
  engine.setPool(nullptr, 0);
  poolMapping = nullptr;
  if (plainPool != nullptr) napi_delete_reference(env, plainPool);
  plainPool = nullptr;
}

void RunState::refreshPlainPool() {
  napi_value buffer = nullptr;
  void* data = nullptr;
  size_t bytes = 0;
  napi_get_reference_value(env, plainPool, &buffer);
  if (buffer != nullptr) napi_get_arraybuffer_info(env, buffer, &data, &bytes);
  engine.setPool(static_cast<uint8_t*>(data), data == nullptr ? 0 : bytes);
}

uint32_t Engines::add(const std::shared_ptr<RunState>& state) {
  // Those that were collected without being closed.
  for (auto entry = states_.begin(); entry != states_.end();) {
    entry = entry->second.expired() ? states_.erase(entry) : std::next(entry);
  }
  // A guest can have any number of engines made: one that is in use keeps its number.
  while (nextNumber_ == 0 || states_.count(nextNumber_) != 0) nextNumber_++;
  state->number = nextNumber_++;
  states_[state->number] = state;
  return state->number;
}

std::shared_ptr<RunState> Engines::find(uint32_t number) const {
  const auto found = states_.find(number);
  return found == states_.end() ? nullptr : found->second.lock();
}

namespace {

// The arguments of a call, up to four numbers, and the state that comes as the function's own data, which is cheaper
// than unwrapping `this`.
struct Call {
  Call(napi_env env, napi_callback_info info) {
    size_t count = 4;
    void* data = nullptr;
    napi_get_cb_info(env, info, &count, arguments, nullptr, &data);
    // SAFETY: the function holds a share of its state until it is collected.
    state = static_cast<std::shared_ptr<RunState>*>(data)->get();
  }

  // A word of a 64-bit number, modulo 2^32; 0 for what is no number.
  uint32_t word(napi_env env, size_t index) const {
    uint32_t value = 0;
    napi_get_value_uint32(env, arguments[index], &value);
    return value;
  }

  // A count, 0 for one below 0; false, with an exception, for what is no number.
  bool count(napi_env env, size_t index, uint32_t* value) const {
    int32_t number = 0;
    if (napi_get_value_int32(env, arguments[index], &number) != napi_ok) {
      napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "a count must be a number");
      return false;
    }
    *value = number < 0 ? 0 : static_cast<uint32_t>(number);
    return true;
  }

  napi_value arguments[4] = {};
  RunState* state = nullptr;
};

napi_value resultOf(napi_env env, uint32_t jobs) {
  napi_value result = nullptr;
  napi_create_uint32(env, jobs, &result);
  return result;
}

// A call that runs jobs and is told how many.
template <uint32_t (CopyEngine::*kRun)(uint32_t) noexcept>
napi_value callWithCount(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  uint32_t count;
  if (!call.count(env, 0, &count)) return nullptr;
  call.state->refreshPool();
  return resultOf(env, (call.state->engine.*kRun)(count));
}

// The same with a number of bytes beside it.
template <uint32_t (CopyEngine::*kRun)(uint32_t, uint32_t) noexcept>
napi_value callWithBytes(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  uint32_t count;
  uint32_t bytes;
  if (!call.count(env, 0, &count) || !call.count(env, 1, &bytes)) return nullptr;
  call.state->refreshPool();
  return resultOf(env, (call.state->engine.*kRun)(count, bytes));
}

}  // namespace

napi_value runJobs(napi_env env, napi_callback_info info) {
  return callWithCount<&CopyEngine::run>(env, info);
}

napi_value peekJobs(napi_env env, napi_callback_info info) {
  return callWithBytes<&CopyEngine::peek>(env, info);
}

napi_value fetchJobs(napi_env env, napi_callback_info info) {
  return callWithBytes<&CopyEngine::fetch>(env, info);
}

napi_value deliverJobs(napi_env env, napi_callback_info info) {
  return callWithCount<&CopyEngine::deliver>(env, info);
}

napi_value relayJobs(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  uint32_t count;
  uint32_t skip;
  uint32_t peeked;
  if (!call.count(env, 1, &count) || !call.count(env, 2, &skip) || !call.count(env, 3, &peeked)) return nullptr;
  const std::shared_ptr<RunState> to = State::of(env).engines.find(call.word(env, 0));
  if (to == nullptr || to.get() == call.state) {
    napi_throw_range_error(env, nullptr, "there is no other engine of this number");
    return nullptr;
  }
  call.state->refreshPool();
  return resultOf(env, call.state->engine.relay(to->engine, count, skip, peeked));
}

napi_value markDirty(napi_env env, napi_callback_info info) {
  const Call call(env, info);
  int64_t bytes = 0;
  napi_get_value_int64(env, call.arguments[2], &bytes);
  if (bytes <= 0) return nullptr;
  const uint64_t address = call.word(env, 0) | static_cast<uint64_t>(call.word(env, 1)) << 32;
  call.state->engine.log().mark(address, static_cast<uint64_t>(bytes));
  return nullptr;
}

}  // namespace virtio_pmd
