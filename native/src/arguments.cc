#include "arguments.h"

#include <uv.h>

namespace virtio_pmd {

void throwTypeError(Napi::Env env, const std::string& message) {
  Napi::TypeError error = Napi::TypeError::New(env, message);
  error.Set("code", Napi::String::New(env, "ERR_INVALID_ARG_TYPE"));
  error.ThrowAsJavaScriptException();
}

void throwRangeError(Napi::Env env, const std::string& message) {
  Napi::RangeError error = Napi::RangeError::New(env, message);
  error.Set("code", Napi::String::New(env, "ERR_OUT_OF_RANGE"));
  error.ThrowAsJavaScriptException();
}

bool throwUnlessOk(Napi::Env env, const Outcome& outcome) {
  if (outcome.ok()) return true;
  if (outcome.message != nullptr) {
    throwRangeError(env, outcome.message);
    return false;
  }
  // libuv numbers and names system errors as Node does.
  const int number = -outcome.error;
  char name[64];
  char text[256];
  uv_err_name_r(number, name, sizeof(name));
  uv_strerror_r(number, text, sizeof(text));
  Napi::Error error = Napi::Error::New(env, std::string(name) + ": " + text + ", " + outcome.syscall);
  error.Set("errno", Napi::Number::New(env, number));
  error.Set("code", Napi::String::New(env, name));
  error.Set("syscall", Napi::String::New(env, outcome.syscall));
  error.ThrowAsJavaScriptException();
  return false;
}

bool readInteger(const Napi::Value& value, const char* name, uint64_t max, uint64_t* result) {
  if (!value.IsNumber()) {
    throwTypeError(value.Env(), std::string(name) + " must be a number");
    return false;
  }
  const double number = value.As<Napi::Number>().DoubleValue();
  // Written so that NaN fails it. `max` is at most 2^53 - 1, which a double holds exactly.
  const bool isInRange = number >= 0 && number <= static_cast<double>(max);
  if (!isInRange || number != static_cast<double>(static_cast<uint64_t>(number))) {
    throwRangeError(value.Env(), std::string(name) + " must be an integer from 0 to " + std::to_string(max));
    return false;
  }
  *result = static_cast<uint64_t>(number);
  return true;
}

bool readFd(const Napi::Value& value, const char* name, int* fd) {
  uint64_t number;
  if (!readInteger(value, name, INT32_MAX, &number)) return false;
  *fd = static_cast<int>(number);
  return true;
}

bool readU32(const Napi::Value& value, const char* name, uint32_t* result) {
  uint64_t number;
  if (!readInteger(value, name, UINT32_MAX, &number)) return false;
  *result = static_cast<uint32_t>(number);
  return true;
}

bool readAddress(const Napi::Value& value, const char* name, uint64_t* address) {
  if (!value.IsBigInt()) {
    throwTypeError(value.Env(), std::string(name) + " must be a bigint");
    return false;
  }
  bool lossless = false;
  *address = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (lossless) return true;
  throwRangeError(value.Env(), std::string(name) + " must be a 64-bit address");
  return false;
}

bool readSpan(const Napi::Value& value, const char* name, uint64_t* lastOffset) {
  if (!value.IsBigInt()) {
    throwTypeError(value.Env(), std::string(name) + " must be a bigint");
    return false;
  }
  int sign = 0;
  // In: how many there is room for. Out: how many the number has.
  size_t count = 2;
  uint64_t words[2] = {0, 0};
  value.As<Napi::BigInt>().ToWords(&sign, &count, words);
  const bool isWhole = count == 2 && words[0] == 0 && words[1] == 1;
  if (sign != 0 || !(isWhole || (count == 1 && words[0] != 0))) {
    throwRangeError(value.Env(), std::string(name) + " must be from 1 to 2^64");
    return false;
  }
  *lastOffset = words[0] - 1;
  return true;
}

bool readBoolean(const Napi::Value& value, const char* name, bool* result) {
  if (!value.IsBoolean()) {
    throwTypeError(value.Env(), std::string(name) + " must be a boolean");
    return false;
  }
  *result = value.As<Napi::Boolean>().Value();
  return true;
}

bool readFields(const Napi::Value& value, const char* name, std::initializer_list<const char*> fields,
                Napi::Value* values) {
  if (!value.IsObject()) {
    throwTypeError(value.Env(), std::string(name) + " must be an object");
    return false;
  }
  const Napi::Object object = value.As<Napi::Object>();
  for (const char* const field : fields) {
    *values++ = object.Get(field);
    if (value.Env().IsExceptionPending()) return false;
  }
  return true;
}

bool readString(const Napi::Value& value, const char* name, std::string* result) {
  if (!value.IsString()) {
    throwTypeError(value.Env(), std::string(name) + " must be a string");
    return false;
  }
  *result = value.As<Napi::String>().Utf8Value();
  return true;
}

bool readIntegers(const Napi::Value& value, const char* name, uint64_t max, size_t maxLength,
                  std::vector<uint64_t>* result) {
  const Napi::Env env = value.Env();
  if (!value.IsArray()) {
    throwTypeError(env, std::string(name) + " must be an array");
    return false;
  }
  const Napi::Array array = value.As<Napi::Array>();
  const size_t length = array.Length();
  if (env.IsExceptionPending()) return false;
  if (length > maxLength) {
    throwRangeError(env, std::string(name) + " must have at most " + std::to_string(maxLength) + " elements");
    return false;
  }
  result->reserve(length);
  for (uint32_t i = 0; i < length; i++) {
    const Napi::Value element = array.Get(i);
    if (env.IsExceptionPending()) return false;
    uint64_t number;
    if (!readInteger(element, name, max, &number)) return false;
    result->push_back(number);
  }
  return true;
}

}  // namespace virtio_pmd
