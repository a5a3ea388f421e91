#include "views.h"

#include <algorithm>

#include "arguments.h"

namespace virtio_pmd {

// Regions that went while views of them were not collected yet.
static constexpr size_t kMaxBlank = 256;

Napi::Value Views::wrap(Napi::Env env, const std::shared_ptr<Mapping>& mapping, uint8_t* data, size_t bytes,
                        bool keep) {
  const auto known = byPlace_.find({data, bytes});
  if (known != byPlace_.end()) {
    napi_value buffer = nullptr;
    bool isDetached = true;
    if (napi_get_reference_value(env, known->second->reference, &buffer) == napi_ok && buffer != nullptr &&
        napi_is_detached_arraybuffer(env, buffer, &isDetached) == napi_ok && !isDetached) {
      return Napi::Value(env, buffer);
    }
  }

  View* const view = new View{shared_from_this(), mapping, data, bytes, nullptr, keep, false, true};
  napi_value buffer = nullptr;
  // SAFETY: the view holds the mapping, and is deleted only when the engine has let go of the memory.
  const napi_status status = napi_create_external_arraybuffer(env, data, bytes, finalize, view, &buffer);
  view->creating = false;
  if (status != napi_ok) {
    delete view;
    if (status == napi_no_external_buffers_allowed) {
      Napi::Error::New(env, "this JavaScript engine does not allow memory from outside of it")
          .ThrowAsJavaScriptException();
    } else if (!env.IsExceptionPending()) {
      throwRangeError(env, "the range is too large for an ArrayBuffer");
    }
    return Napi::Value();
  }
  byPlace_[{data, bytes}] = view;
  byMapping_[mapping.get()].insert(view);
  if (napi_create_reference(env, buffer, keep ? 1 : 0, &view->reference) != napi_ok) {
    // Without a reference it could not be found again, so it must not get out.
    napi_detach_arraybuffer(env, buffer);
    view->detached = true;
    if (!env.IsExceptionPending()) Napi::Error::New(env, "no reference to the view").ThrowAsJavaScriptException();
    return Napi::Value();
  }
  return Napi::Value(env, buffer);
}

std::shared_ptr<Mapping> Views::find(const void* data, size_t bytes) const {
  const auto known = byPlace_.find({data, bytes});
  return known == byPlace_.end() ? nullptr : known->second->mapping;
}

bool Views::isReadOnly(const void* data, size_t bytes) const {
  const auto known = byPlace_.find({data, bytes});
  return known != byPlace_.end() && known->second->mapping->readOnly();
}

void Views::retire(Napi::Env env, const std::shared_ptr<Mapping>& mapping) {
  const Napi::HandleScope scope(env);
  bool allDetached = true;
  size_t holders = 0;
  const auto views = byMapping_.find(mapping.get());
  const bool leaveAttached = views != byMapping_.end() && mayBlank(mapping);
  if (views != byMapping_.end()) {
    for (View* const view : views->second) {
      holders++;
      if (leaveAttached || !detach(env, *view)) allDetached = false;
      const auto place = byPlace_.find({view->data, view->bytes});
      if (place != byPlace_.end() && place->second == view) byPlace_.erase(place);
    }
  }
  // Besides the views and the caller, a copy engine may hold it as its pool.
  const bool isShared = static_cast<size_t>(mapping.use_count()) > holders + 1;
  if (allDetached && !isShared) {
    mapping->unmap();
  } else {
    mapping->blank();
  }
}

// Whether a guest's region may go blank; it is remembered then. Bounded, for each keeps its addresses.
bool Views::mayBlank(const std::shared_ptr<Mapping>& mapping) {
  if (!mapping->isForeign()) return false;
  blank_.erase(std::remove_if(blank_.begin(), blank_.end(), [](const auto& waiting) { return waiting.expired(); }),
               blank_.end());
  if (blank_.size() >= kMaxBlank) return false;
  blank_.push_back(mapping);
  return true;
}

bool Views::detach(Napi::Env env, View& view) {
  if (view.detached) return true;
  napi_value buffer = nullptr;
  if (view.reference == nullptr || napi_get_reference_value(env, view.reference, &buffer) != napi_ok ||
      buffer == nullptr)
    return false;
  bool isDetached = true;
  if (napi_is_detached_arraybuffer(env, buffer, &isDetached) != napi_ok || isDetached) return false;
  if (napi_detach_arraybuffer(env, buffer) != napi_ok) return false;
  view.detached = true;
  if (view.kept) {
    view.kept = false;
    napi_reference_unref(env, view.reference, nullptr);
  }
  return true;
}

// The engine has let go of the memory: after a collection, a detach, or at the end of the thread.
void Views::finalize(napi_env env, void*, void* hint) {
  View* const view = static_cast<View*>(hint);
  // A creation that failed may have called this already; wrap() knows.
  if (view->creating) return;
  if (view->reference != nullptr) napi_delete_reference(env, view->reference);
  view->owner->forget(*view);
  delete view;
}

void Views::forget(const View& view) {
  const auto place = byPlace_.find({view.data, view.bytes});
  if (place != byPlace_.end() && place->second == &view) byPlace_.erase(place);
  const auto views = byMapping_.find(view.mapping.get());
  if (views == byMapping_.end()) return;
  views->second.erase(const_cast<View*>(&view));
  if (views->second.empty()) byMapping_.erase(views);
}

}  // namespace virtio_pmd
