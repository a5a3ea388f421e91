// Entry point: loaded once by each thread, nothing shared between them but the SIGBUS guard.
#include <napi.h>

#include "state.h"

namespace virtio_pmd {
namespace {

// Empty where there is none, with no exception pending.
Napi::FunctionReference findMarkAsUntransferable(Napi::Env env) {
  Napi::FunctionReference mark;
  const Napi::Value process = env.Global().Get("process");
  if (process.IsObject()) {
    const Napi::Value builtin = process.As<Napi::Object>().Get("getBuiltinModule");
    if (builtin.IsFunction()) {
      const Napi::Value threads = builtin.As<Napi::Function>().Call(process, {Napi::String::New(env, "node:worker_threads")});
      if (threads.IsObject()) {
        const Napi::Value found = threads.As<Napi::Object>().Get("markAsUntransferable");
        if (found.IsFunction()) mark = Napi::Persistent(found.As<Napi::Function>());
      }
    }
  }
  if (env.IsExceptionPending()) env.GetAndClearPendingException();
  return mark;
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  State* const state = new State();
  env.SetInstanceData(state);
  state->markAsUntransferable = findMarkAsUntransferable(env);
  exportMemory(env, exports);
  exportDescriptors(env, exports);
  exportUnixSockets(env, exports);
  exportFdPoll(env, exports);
  exportMmio(env, exports);
  exportThreads(env, exports);
  exportCopyEngine(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(virtio_pmd, initialize)

}  // namespace virtio_pmd
