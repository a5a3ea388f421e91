// The CopyEngine class.
#include <napi.h>

#include <string>
#include <vector>

#include "arguments.h"
#include "copy_engine_calls.h"
#include "state.h"

namespace virtio_pmd {
namespace {

// More would not fit a Uint32Array that every supported engine can make.
constexpr uint64_t kMaxJobs = 1u << 20;

void releaseRunState(napi_env, void* data, void*) {
  delete static_cast<std::shared_ptr<RunState>*>(data);
}
void releaseJobList(napi_env, void*, void* hint) {
  delete static_cast<std::shared_ptr<JobList>*>(hint);
}

class CopyEngineClass : public Napi::ObjectWrap<CopyEngineClass> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "CopyEngine",
        {InstanceMethod<&CopyEngineClass::addRegion>("addRegion"),
         InstanceMethod<&CopyEngineClass::removeRegion>("removeRegion"), InstanceMethod<&CopyEngineClass::view>("view"),
         InstanceMethod<&CopyEngineClass::setTranslated>("setTranslated"),
         InstanceMethod<&CopyEngineClass::addWindow>("addWindow"),
         InstanceMethod<&CopyEngineClass::removeWindows>("removeWindows"),
         InstanceMethod<&CopyEngineClass::missing>("missing"), InstanceMethod<&CopyEngineClass::setLog>("setLog"),
         InstanceMethod<&CopyEngineClass::clearLog>("clearLog"),
         InstanceMethod<&CopyEngineClass::skippedPages>("skippedPages"),
         InstanceMethod<&CopyEngineClass::setPool>("setPool"), InstanceMethod<&CopyEngineClass::setHeader>("setHeader"),
         InstanceMethod<&CopyEngineClass::faults>("faults"), InstanceMethod<&CopyEngineClass::close>("close")});
  }

  explicit CopyEngineClass(const Napi::CallbackInfo& info) : Napi::ObjectWrap<CopyEngineClass>(info) {
    const Napi::Env env = info.Env();
    uint64_t capacity;
    if (!readInteger(info[0], "jobs", kMaxJobs, &capacity)) return;
    if (capacity == 0) {
      throwRangeError(env, "jobs must be at least 1");
      return;
    }
    std::shared_ptr<JobList> list = JobList::create(static_cast<uint32_t>(capacity));
    if (list == nullptr) {
      throwUnlessOk(env, Outcome::system("mmap", ENOMEM));
      return;
    }
    Napi::Object self = info.This().As<Napi::Object>();
    const Napi::Value jobs = makeJobs(env, list);
    if (env.IsExceptionPending()) return;
    state_ = std::make_shared<RunState>(env, std::move(list));
    const Napi::Value number = Napi::Number::New(env, State::of(env).engines.add(state_));
    std::vector<Napi::PropertyDescriptor> properties = {
        Napi::PropertyDescriptor::Value("jobs", jobs, napi_enumerable),
        Napi::PropertyDescriptor::Value("number", number, napi_enumerable)};
    for (const EngineCall& call : kEngineCalls) {
      const Napi::Value function = makeFunction(env, call.name, call.callback);
      if (env.IsExceptionPending()) return;
      properties.push_back(Napi::PropertyDescriptor::Value(call.name, function, napi_enumerable));
    }
    self.DefineProperties(properties);
  }

 private:
  static Napi::Value makeJobs(Napi::Env env, const std::shared_ptr<JobList>& list) {
    const size_t words = static_cast<size_t>(list->capacity()) * (sizeof(CopyJob) / sizeof(uint32_t));
    auto* const share = new std::shared_ptr<JobList>(list);
    napi_value buffer = nullptr;
    // SAFETY: the buffer's share keeps the list until the buffer is gone. Creation calls the finalizer itself when it
    // throws for a size out of bounds, which kMaxJobs rules out, so the share is still ours on failure.
    const napi_status status =
        napi_create_external_arraybuffer(env, list->jobs(), words * sizeof(uint32_t), releaseJobList, share, &buffer);
    if (status != napi_ok) {
      delete share;
      if (!env.IsExceptionPending()) {
        Napi::Error::New(env, "this JavaScript engine does not allow memory from outside of it")
            .ThrowAsJavaScriptException();
      }
      return Napi::Value();
    }
    napi_value array = nullptr;
    if (napi_create_typedarray(env, napi_uint32_array, words, buffer, 0, &array) != napi_ok) return Napi::Value();
    return Napi::Value(env, array);
  }

  // A function that gets a share of the state as its data.
  Napi::Value makeFunction(Napi::Env env, const char* name, napi_callback callback) {
    auto* const share = new std::shared_ptr<RunState>(state_);
    napi_value function = nullptr;
    if (napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, share, &function) != napi_ok ||
        napi_add_finalizer(env, function, share, releaseRunState, nullptr, nullptr) != napi_ok) {
      delete share;
      if (!env.IsExceptionPending())
        Napi::Error::New(env, std::string("no function for ") + name).ThrowAsJavaScriptException();
      return Napi::Value();
    }
    return Napi::Value(env, function);
  }

  bool requireOpen(Napi::Env env) const {
    if (state_ != nullptr && !isClosed_) return true;
    Napi::Error::New(env, "the copy engine is closed").ThrowAsJavaScriptException();
    return false;
  }

  bool requireTranslated(Napi::Env env) const {
    if (!requireOpen(env)) return false;
    if (state_->engine.isTranslated()) return true;
    Napi::Error::New(env, "addresses are not translated").ThrowAsJavaScriptException();
    return false;
  }

  Napi::Value addRegion(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    Napi::Value values[5];
    if (!readFields(info[0], "region", {"fd", "fileOffset", "guestAddress", "bytes", "readOnly"}, values)) {
      return Napi::Value();
    }
    MappingRequest request;
    request.foreign = true;
    uint64_t guestAddress;
    if (!readFd(values[0], "fd", &request.fd) ||
        !readInteger(values[1], "fileOffset", kMaxSafeInteger, &request.fileOffset) ||
        !readAddress(values[2], "guestAddress", &guestAddress) ||
        !readInteger(values[3], "bytes", kMaxSafeInteger, &request.bytes)) {
      return Napi::Value();
    }
    if (!values[4].IsUndefined() && !readBoolean(values[4], "readOnly", &request.readOnly)) return Napi::Value();
    uint32_t number;
    if (!requireOpen(env) || !throwUnlessOk(env, state_->engine.addRegion(request, guestAddress, &number)))
      return Napi::Value();
    return Napi::Number::New(env, number);
  }

  Napi::Value removeRegion(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    uint32_t number;
    if (!readU32(info[0], "number", &number) || !requireOpen(env)) return Napi::Value();
    const std::shared_ptr<Mapping> mapping = state_->engine.removeRegion(number);
    if (mapping == nullptr) {
      throwRangeError(env, "there is no region of this number");
      return Napi::Value();
    }
    State::of(env).views->retire(env, mapping);
    return env.Undefined();
  }

  Napi::Value view(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    uint64_t guestAddress;
    uint64_t bytes;
    if (!readAddress(info[0], "guestAddress", &guestAddress) ||
        !readInteger(info[1], "bytes", kMaxSafeInteger, &bytes) || !requireOpen(env)) {
      return Napi::Value();
    }
    uint64_t offset;
    const Region* const region = state_->engine.inOneRegion(guestAddress, bytes, &offset);
    if (region == nullptr) {
      throwRangeError(env, state_->engine.isTranslated()
                               ? "the range must be translated for both ways, into one piece of one region"
                               : "the range must be inside one region");
      return Napi::Value();
    }
    // SAFETY: [offset, offset + bytes) is inside the region, says inOneRegion().
    return State::of(env).views->wrap(env, region->mapping, region->host + offset, bytes, false);
  }

  Napi::Value setTranslated(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    bool isTranslated;
    if (!readBoolean(info[0], "isTranslated", &isTranslated) || !requireOpen(env)) return Napi::Value();
    state_->engine.setTranslated(isTranslated);
    return env.Undefined();
  }

  Napi::Value addWindow(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    Napi::Value values[5];
    if (!readFields(info[0], "window", {"iova", "bytes", "guestAddress", "readable", "writable"}, values)) {
      return Napi::Value();
    }
    Window window;
    bool readable;
    bool writable;
    if (!readAddress(values[0], "iova", &window.iova) || !readSpan(values[1], "bytes", &window.lastOffset) ||
        !readAddress(values[2], "guestAddress", &window.guestAddress) ||
        !readBoolean(values[3], "readable", &readable) || !readBoolean(values[4], "writable", &writable) ||
        !requireTranslated(env)) {
      return Napi::Value();
    }
    window.access = (readable ? kWindowReadable : 0) | (writable ? kWindowWritable : 0);
    throwUnlessOk(env, state_->engine.windows().add(window));
    return env.Undefined();
  }

  Napi::Value removeWindows(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    uint64_t iova;
    uint64_t lastOffset;
    if (!readAddress(info[0], "iova", &iova) || !readSpan(info[1], "bytes", &lastOffset) || !requireOpen(env)) {
      return Napi::Value();
    }
    state_->engine.windows().remove(iova, lastOffset);
    return env.Undefined();
  }

  Napi::Value missing(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    uint32_t low;
    uint32_t high;
    uint64_t bytes;
    uint64_t direction;
    if (!readU32(info[0], "low", &low) || !readU32(info[1], "high", &high) ||
        !readInteger(info[2], "bytes", kMaxSafeInteger, &bytes) ||
        !readInteger(info[3], "direction", kToGuest, &direction) || !requireOpen(env)) {
      return Napi::Value();
    }
    const uint64_t iova = low | static_cast<uint64_t>(high) << 32;
    uint64_t first;
    if (!state_->engine.missing(iova, bytes, static_cast<uint32_t>(direction), &first)) {
      return Napi::BigInt::New(env, int64_t{-1});
    }
    return Napi::BigInt::New(env, first);
  }

  Napi::Value setLog(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    Napi::Value values[3];
    if (!readFields(info[0], "log", {"fd", "fileOffset", "bytes"}, values)) return Napi::Value();
    int fd;
    uint64_t fileOffset;
    uint64_t bytes;
    if (!readFd(values[0], "fd", &fd) || !readInteger(values[1], "fileOffset", kMaxSafeInteger, &fileOffset) ||
        !readInteger(values[2], "bytes", kMaxSafeInteger, &bytes) || !requireOpen(env)) {
      return Napi::Value();
    }
    throwUnlessOk(env, state_->engine.setLog(fd, fileOffset, bytes));
    return env.Undefined();
  }

  Napi::Value clearLog(const Napi::CallbackInfo& info) {
    if (state_ != nullptr) state_->engine.clearLog();
    return info.Env().Undefined();
  }

  Napi::Value skippedPages(const Napi::CallbackInfo& info) {
    const double count = state_ == nullptr ? 0 : static_cast<double>(state_->engine.log().skipped());
    return Napi::Number::New(info.Env(), count);
  }

  Napi::Value setHeader(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    std::vector<uint64_t> values;
    if (!readIntegers(info[0], "header", UINT8_MAX, CopyEngine::kHeaderMax, &values) || !requireOpen(env)) {
      return Napi::Value();
    }
    const std::vector<uint8_t> header(values.begin(), values.end());
    state_->engine.setHeader(header.data(), static_cast<uint32_t>(header.size()));
    return env.Undefined();
  }

  Napi::Value setPool(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!info[0].IsArrayBuffer()) {
      throwTypeError(env, "pool must be an ArrayBuffer");
      return Napi::Value();
    }
    if (!requireOpen(env)) return Napi::Value();
    void* data = nullptr;
    size_t bytes = 0;
    napi_get_arraybuffer_info(env, info[0], &data, &bytes);
    const std::shared_ptr<Mapping> mapping = State::of(env).views->find(data, bytes);
    if (mapping != nullptr && mapping->readOnly()) {
      throwRangeError(env, "the pool must be writable");
      return Napi::Value();
    }
    state_->dropPool();
    if (mapping != nullptr) {
      state_->poolMapping = mapping;
      state_->engine.setPool(static_cast<uint8_t*>(data), bytes);
    } else {
      napi_create_reference(env, info[0], 1, &state_->plainPool);
    }
    return env.Undefined();
  }

  Napi::Value faults(const Napi::CallbackInfo& info) {
    const double count = state_ == nullptr ? 0 : static_cast<double>(state_->engine.faults());
    return Napi::Number::New(info.Env(), count);
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (state_ == nullptr || isClosed_) return env.Undefined();
    isClosed_ = true;
    State::of(env).engines.remove(state_);
    const std::vector<std::shared_ptr<Mapping>> mappings = state_->engine.removeAllRegions();
    for (const std::shared_ptr<Mapping>& mapping : mappings) State::of(env).views->retire(env, mapping);
    state_->engine.setTranslated(false);
    state_->engine.clearLog();
    state_->dropPool();
    return env.Undefined();
  }

  std::shared_ptr<RunState> state_;
  bool isClosed_ = false;
};

}  // namespace

void exportCopyEngine(Napi::Env env, Napi::Object exports) {
  exports.Set("CopyEngine", CopyEngineClass::define(env));
}

}  // namespace virtio_pmd
