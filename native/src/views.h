// The ArrayBuffers that show mapped memory to one thread's JavaScript, and how they are taken back.
//
// A view must be detached before its memory is unmapped: a typed array over unmapped memory is a SIGSEGV in compiled
// code, not an exception. But the first detach in a thread makes every typed array access there dearer for ever (V8
// gives up assuming that nothing is detached; measured: 19 % of a poll loop). So views of a guest's regions, which go
// while poll threads run, are not detached: their mapping is made blank, as below. Only where many such mappings are
// still waiting for the collector are the views detached after all. A view that cannot be detached any more (its buffer
// was transferred away, or was collected and has not been finalized yet) makes the mapping blank instead: its addresses
// stay, over zeroes, until the last view's memory is released. To another thread Node does not let these buffers go;
// `markAsUntransferable` must not be called on them, for from Node 22 on it makes detaching them a fatal error.
#pragma once

#include <napi.h>

#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "mapping.h"

namespace virtio_pmd {

class Views : public std::enable_shared_from_this<Views> {
 public:
  static std::shared_ptr<Views> create() { return std::shared_ptr<Views>(new Views()); }
  Views(const Views&) = delete;
  Views& operator=(const Views&) = delete;

  // An ArrayBuffer over [data, data + bytes) of `mapping`; the same one again while it is in use. A kept one is not
  // collected before it is detached. Empty, with an exception pending, when there can be none.
  Napi::Value wrap(Napi::Env env, const std::shared_ptr<Mapping>& mapping, uint8_t* data, size_t bytes, bool keep);
  // The mapping behind a buffer that wrap() made, or null.
  std::shared_ptr<Mapping> find(const void* data, size_t bytes) const;
  // Whether the buffer at [data, data + bytes) may not be written; false for memory that is not ours.
  bool isReadOnly(const void* data, size_t bytes) const;
  // Takes the memory away from all views of the mapping: detaches them and unmaps it, or makes it blank.
  void retire(Napi::Env env, const std::shared_ptr<Mapping>& mapping);

 private:
  struct View {
    std::shared_ptr<Views> owner;
    std::shared_ptr<Mapping> mapping;
    const uint8_t* data;
    size_t bytes;
    napi_ref reference;
    bool kept;
    bool detached;
    bool creating;
  };
  struct Place {
    const void* data;
    size_t bytes;
    bool operator==(const Place& other) const { return data == other.data && bytes == other.bytes; }
  };
  struct PlaceHash {
    size_t operator()(const Place& place) const { return reinterpret_cast<uintptr_t>(place.data) * 31 + place.bytes; }
  };

  Views() = default;
  static void finalize(napi_env env, void* data, void* hint);
  static bool detach(Napi::Env env, View& view);
  bool mayBlank(const std::shared_ptr<Mapping>& mapping);
  void forget(const View& view);

  // Blank mappings that still have views.
  std::vector<std::weak_ptr<Mapping>> blank_;
  std::unordered_map<Place, View*, PlaceHash> byPlace_;
  std::unordered_map<const Mapping*, std::unordered_set<View*>> byMapping_;
};

}  // namespace virtio_pmd
