// What the addon keeps for each thread that loaded it.
#pragma once

#include <napi.h>

#include <memory>

#include "copy_engine_calls.h"
#include "views.h"

namespace virtio_pmd {

struct State {
  std::shared_ptr<Views> views = Views::create();
  Napi::FunctionReference fdPollClass;
  Engines engines;

  static State& of(Napi::Env env) { return *env.GetInstanceData<State>(); }
};

// Each adds its functions or classes to the exports.
void exportMemory(Napi::Env env, Napi::Object exports);
void exportDescriptors(Napi::Env env, Napi::Object exports);
void exportUnixSockets(Napi::Env env, Napi::Object exports);
void exportFdPoll(Napi::Env env, Napi::Object exports);
void exportMmio(Napi::Env env, Napi::Object exports);
void exportThreads(Napi::Env env, Napi::Object exports);
void exportCopyEngine(Napi::Env env, Napi::Object exports);
void exportTap(Napi::Env env, Napi::Object exports);
void exportWaitReadable(Napi::Env env, Napi::Object exports);

inline void exportFunction(Napi::Env env, Napi::Object exports, const char* name,
                           Napi::Value (*function)(const Napi::CallbackInfo&)) {
  exports.Set(name, Napi::Function::New(env, function, name));
}

}  // namespace virtio_pmd
