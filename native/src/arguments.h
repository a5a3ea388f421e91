// Checked ways from JavaScript values to C++ ones, and from an Outcome to a JavaScript error.
//
// Each returns false after it has thrown into JavaScript: a TypeError for the wrong type, a RangeError for a value that
// can never work. The caller returns at once.
#pragma once

#include <napi.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "outcome.h"

namespace virtio_pmd {

// The largest integer a JavaScript number holds exactly.
constexpr uint64_t kMaxSafeInteger = (1ull << 53) - 1;

// Throws what `outcome` says when it is not ok; returns whether it is.
bool throwUnlessOk(Napi::Env env, const Outcome& outcome);
void throwTypeError(Napi::Env env, const std::string& message);
void throwRangeError(Napi::Env env, const std::string& message);

bool readInteger(const Napi::Value& value, const char* name, uint64_t max, uint64_t* result);
bool readFd(const Napi::Value& value, const char* name, int* fd);
bool readU32(const Napi::Value& value, const char* name, uint32_t* result);
bool readAddress(const Napi::Value& value, const char* name, uint64_t* address);
// A count of bytes from 1 to 2^64; the result is the offset of the last one.
bool readSpan(const Napi::Value& value, const char* name, uint64_t* lastOffset);
bool readBoolean(const Napi::Value& value, const char* name, bool* result);
// The named properties of an object, into `values`. Getters may run JavaScript, which may do anything to whoever asks:
// read first, and look at one's own state after.
bool readFields(const Napi::Value& value, const char* name, std::initializer_list<const char*> fields,
                Napi::Value* values);
bool readString(const Napi::Value& value, const char* name, std::string* result);
// An array of integers of at most `maxLength` elements. May run JavaScript (getters), so read it before taking
// pointers.
bool readIntegers(const Napi::Value& value, const char* name, uint64_t max, size_t maxLength,
                  std::vector<uint64_t>* result);

}  // namespace virtio_pmd
