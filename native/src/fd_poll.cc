// pollFd: a descriptor watched on this thread's event loop.
#include <napi.h>
#include <uv.h>

#include "arguments.h"
#include "state.h"

namespace virtio_pmd {
namespace {

// `PollEvent` of native/index.ts, which takes libuv's numbers.
constexpr uint32_t kPollEvents = UV_READABLE | UV_WRITABLE | UV_DISCONNECT;
static_assert(kPollEvents == 7, "PollEvent");

// The libuv handle and what it calls. Deleted by libuv's close callback, so it outlives the JavaScript object by a turn
// of the loop.
class PollHandle {
 public:
  // Starts to watch. Null with an exception pending when that fails.
  static PollHandle* open(Napi::Env env, int fd, int events, Napi::Function onReady, Napi::Object owner) {
    uv_loop_t* loop = nullptr;
    if (napi_get_uv_event_loop(env, &loop) != napi_ok) {
      Napi::Error::New(env, "this thread has no event loop").ThrowAsJavaScriptException();
      return nullptr;
    }
    PollHandle* const poll = new PollHandle(env);
    int result = uv_poll_init(loop, &poll->handle_, fd);
    if (result != 0) {
      delete poll;
      throwUnlessOk(env, Outcome::system("uv_poll_init", -result));
      return nullptr;
    }
    poll->handle_.data = poll;
    // libuv owns the handle from here: it may go only through uv_close, which the thread's end waits for.
    napi_add_async_cleanup_hook(env, onThreadEnd, poll, &poll->cleanup_);
    poll->context_ = new Napi::AsyncContext(env, "virtio-pmd:FdPoll");
    poll->onReady_ = Napi::Persistent(onReady);
    poll->owner_ = Napi::Persistent(owner);
    result = uv_poll_start(&poll->handle_, events, onEvents);
    if (result != 0) {
      poll->close();
      throwUnlessOk(env, Outcome::system("uv_poll_start", -result));
      return nullptr;
    }
    return poll;
  }

  int update(int events) { return uv_poll_start(&handle_, events, onEvents); }
  void ref() { uv_ref(reinterpret_cast<uv_handle_t*>(&handle_)); }
  void unref() { uv_unref(reinterpret_cast<uv_handle_t*>(&handle_)); }

  // No call of onReady follows. The object deletes itself later and must not be used any more.
  void close() {
    if (isClosing_) return;
    isClosing_ = true;
    uv_poll_stop(&handle_);
    onReady_.Reset();
    owner_.Reset();
    delete context_;
    context_ = nullptr;
    uv_close(reinterpret_cast<uv_handle_t*>(&handle_), onClosed);
  }

 private:
  explicit PollHandle(Napi::Env env) : env_(env) {}

  static void onEvents(uv_poll_t* handle, int status, int events) {
    PollHandle* const poll = static_cast<PollHandle*>(handle->data);
    const Napi::Env env(poll->env_);
    const Napi::HandleScope scope(env);
    const Napi::Function onReady = poll->onReady_.Value();
    const napi_value arguments[] = {Napi::Number::New(env, events), Napi::Number::New(env, status)};
    // The callback may close this poll: nothing of it is used after the call.
    napi_value result = nullptr;
    const napi_status outcome =
        napi_make_callback(env, *poll->context_, poll->owner_.Value(), onReady, 2, arguments, &result);
    if (outcome == napi_pending_exception) reportException(env);
  }

  // What a callback throws is an uncaught exception, as with any other callback of the event loop.
  static void reportException(napi_env env) {
    napi_value error = nullptr;
    if (napi_get_and_clear_last_exception(env, &error) == napi_ok && error != nullptr) napi_fatal_exception(env, error);
  }

  static void onThreadEnd(napi_async_cleanup_hook_handle, void* argument) {
    static_cast<PollHandle*>(argument)->close();
  }

  static void onClosed(uv_handle_t* handle) {
    PollHandle* const poll = static_cast<PollHandle*>(handle->data);
    if (poll->cleanup_ != nullptr) napi_remove_async_cleanup_hook(poll->cleanup_);
    delete poll;
  }

  uv_poll_t handle_ = {};
  napi_env env_;
  napi_async_cleanup_hook_handle cleanup_ = nullptr;
  Napi::AsyncContext* context_ = nullptr;
  Napi::FunctionReference onReady_;
  // Keeps the JavaScript object while the poll is open: it is what can close it.
  Napi::ObjectReference owner_;
  bool isClosing_ = false;
};

bool readEvents(const Napi::Value& value, int* events) {
  uint32_t bits;
  if (!readU32(value, "events", &bits)) return false;
  if (bits == 0 || (bits & ~kPollEvents) != 0) {
    throwRangeError(value.Env(), "events must be one or more of PollEvent");
    return false;
  }
  *events = static_cast<int>(bits);
  return true;
}

class FdPoll : public Napi::ObjectWrap<FdPoll> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "FdPoll",
                       {InstanceMethod<&FdPoll::update>("update"), InstanceMethod<&FdPoll::ref>("ref"),
                        InstanceMethod<&FdPoll::unref>("unref"), InstanceMethod<&FdPoll::close>("close")});
  }

  explicit FdPoll(const Napi::CallbackInfo& info) : Napi::ObjectWrap<FdPoll>(info) {
    const Napi::Env env = info.Env();
    int fd;
    int events;
    if (!readFd(info[0], "fd", &fd) || !readEvents(info[1], &events)) return;
    if (!info[2].IsFunction()) {
      throwTypeError(env, "onReady must be a function");
      return;
    }
    poll_ = PollHandle::open(env, fd, events, info[2].As<Napi::Function>(), info.This().As<Napi::Object>());
  }

 private:
  Napi::Value update(const Napi::CallbackInfo& info) {
    int events;
    if (!readEvents(info[0], &events)) return Napi::Value();
    if (poll_ == nullptr) {
      Napi::Error::New(info.Env(), "the poll is closed").ThrowAsJavaScriptException();
      return Napi::Value();
    }
    const int result = poll_->update(events);
    if (result != 0) throwUnlessOk(info.Env(), Outcome::system("uv_poll_start", -result));
    return info.Env().Undefined();
  }

  Napi::Value ref(const Napi::CallbackInfo& info) {
    if (poll_ != nullptr) poll_->ref();
    return info.Env().Undefined();
  }

  Napi::Value unref(const Napi::CallbackInfo& info) {
    if (poll_ != nullptr) poll_->unref();
    return info.Env().Undefined();
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    if (poll_ != nullptr) poll_->close();
    poll_ = nullptr;
    return info.Env().Undefined();
  }

  PollHandle* poll_ = nullptr;
};

Napi::Value pollFd(const Napi::CallbackInfo& info) {
  const Napi::Object poll = State::of(info.Env()).fdPollClass.New({info[0], info[1], info[2]});
  if (info.Env().IsExceptionPending()) return Napi::Value();
  return poll;
}

}  // namespace

void exportFdPoll(Napi::Env env, Napi::Object exports) {
  State::of(env).fdPollClass = Napi::Persistent(FdPoll::define(env));
  exportFunction(env, exports, "pollFd", pollFd);
}

}  // namespace virtio_pmd
