// Entry point: loaded once by each thread, nothing shared between them but the SIGBUS guard.
#include <napi.h>

#include "state.h"

namespace virtio_pmd {
namespace {

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new State());
  exportMemory(env, exports);
  exportDescriptors(env, exports);
  exportUnixSockets(env, exports);
  exportFdPoll(env, exports);
  exportMmio(env, exports);
  exportThreads(env, exports);
  exportCopyEngine(env, exports);
  exportTap(env, exports);
  exportWaitReadable(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(virtio_pmd, initialize)

}  // namespace virtio_pmd
