// Register access at exactly the register's width: one load or one store, which a typed array does not promise.
#include "arguments.h"
#include "state.h"

namespace virtio_pmd {
namespace {

// Memory writes before a register write must reach the device first, and register reads must be done before what
// follows them. x86 keeps that order by itself for its kinds of memory, so there only the compiler must be held.
inline void orderBeforeWrite() {
#if defined(__aarch64__)
  asm volatile("dmb oshst" ::: "memory");
#elif defined(__x86_64__)
  asm volatile("" ::: "memory");
#else
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

inline void orderAfterRead() {
#if defined(__aarch64__)
  asm volatile("dmb oshld" ::: "memory");
#elif defined(__x86_64__)
  asm volatile("" ::: "memory");
#else
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

// The address of the register, or null with an exception pending.
uint8_t* readRegister(const Napi::CallbackInfo& info, size_t width, bool isWrite) {
  const Napi::Env env = info.Env();
  if (!info[0].IsArrayBuffer()) {
    throwTypeError(env, "map must be an ArrayBuffer");
    return nullptr;
  }
  uint64_t offset;
  if (!readInteger(info[1], "offset", kMaxSafeInteger, &offset)) return nullptr;
  void* data = nullptr;
  size_t bytes = 0;
  napi_get_arraybuffer_info(env, info[0], &data, &bytes);
  if (data == nullptr || offset > bytes || bytes - offset < width) {
    throwRangeError(env, "offset must be inside the mapping");
    return nullptr;
  }
  // SAFETY: [offset, offset + width) is inside the buffer, checked above.
  uint8_t* const address = static_cast<uint8_t*>(data) + offset;
  if (reinterpret_cast<uintptr_t>(address) % width != 0) {
    throwRangeError(env, "offset must be a multiple of the register's width");
    return nullptr;
  }
  if (isWrite && State::of(env).views->isReadOnly(data, bytes)) {
    throwUnlessOk(env, Outcome::system("write", EACCES));
    return nullptr;
  }
  return address;
}

template <typename Word>
Napi::Value readWord(const Napi::CallbackInfo& info) {
  const uint8_t* const address = readRegister(info, sizeof(Word), false);
  if (address == nullptr) return Napi::Value();
  // SAFETY: checked and aligned by readRegister; volatile, so that it is one load of this width.
  const Word value = *reinterpret_cast<const volatile Word*>(address);
  orderAfterRead();
  return Napi::Number::New(info.Env(), value);
}

template <typename Word>
Napi::Value writeWord(const Napi::CallbackInfo& info) {
  uint64_t value;
  if (!readInteger(info[2], "value", static_cast<Word>(~0u), &value)) return Napi::Value();
  uint8_t* const address = readRegister(info, sizeof(Word), true);
  if (address == nullptr) return Napi::Value();
  orderBeforeWrite();
  // SAFETY: checked and aligned by readRegister; volatile, so that it is one store of this width.
  *reinterpret_cast<volatile Word*>(address) = static_cast<Word>(value);
  return info.Env().Undefined();
}

}  // namespace

void exportMmio(Napi::Env env, Napi::Object exports) {
  exportFunction(env, exports, "read8", readWord<uint8_t>);
  exportFunction(env, exports, "read16", readWord<uint16_t>);
  exportFunction(env, exports, "read32", readWord<uint32_t>);
  exportFunction(env, exports, "write8", writeWord<uint8_t>);
  exportFunction(env, exports, "write16", writeWord<uint16_t>);
  exportFunction(env, exports, "write32", writeWord<uint32_t>);
}

}  // namespace virtio_pmd
