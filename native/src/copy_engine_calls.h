// What of a CopyEngine object is called once a burst: functions that cost one call and no unwrapping.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "copy_engine.h"

namespace virtio_pmd {

// What the calls work on. Shared by the object and its functions, any of which may outlive the others.
struct RunState {
  RunState(Napi::Env runEnv, std::shared_ptr<JobList> list) : env(runEnv), engine(std::move(list)) {}
  RunState(const RunState&) = delete;
  RunState& operator=(const RunState&) = delete;
  ~RunState() { dropPool(); }

  void dropPool();
  // A pool that is an ordinary ArrayBuffer may be detached at any time, so it is looked up again for each run.
  void refreshPool() {
    if (plainPool != nullptr) refreshPlainPool();
  }

  napi_env env;
  CopyEngine engine;
  // Keeps a mapped pool where it is.
  std::shared_ptr<Mapping> poolMapping;
  napi_ref plainPool = nullptr;
  // In `Engines`.
  uint32_t number = 0;

 private:
  void refreshPlainPool();
};

// The engines of a thread, by numbers: no two open ones have the same.
class Engines {
 public:
  uint32_t add(const std::shared_ptr<RunState>& state);
  void remove(const std::shared_ptr<RunState>& state) { states_.erase(state->number); }
  // Null when there is no open engine of that number.
  std::shared_ptr<RunState> find(uint32_t number) const;

 private:
  std::unordered_map<uint32_t, std::weak_ptr<RunState>> states_;
  uint32_t nextNumber_ = 1;
};

struct EngineCall {
  const char* name;
  // Its data is a share of the state.
  napi_callback callback;
};

napi_value runJobs(napi_env env, napi_callback_info info);
napi_value peekJobs(napi_env env, napi_callback_info info);
napi_value fetchJobs(napi_env env, napi_callback_info info);
napi_value deliverJobs(napi_env env, napi_callback_info info);
napi_value relayJobs(napi_env env, napi_callback_info info);
napi_value markDirty(napi_env env, napi_callback_info info);

constexpr EngineCall kEngineCalls[] = {{"run", runJobs},         {"peek", peekJobs},   {"fetch", fetchJobs},
                                       {"deliver", deliverJobs}, {"relay", relayJobs}, {"markDirty", markDirty}};

}  // namespace virtio_pmd
