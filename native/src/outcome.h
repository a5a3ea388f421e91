// How a call of the Node-free parts ended: well, with a failed system call, or with a value out of range.
#pragma once

#include <cerrno>

namespace virtio_pmd {

struct Outcome {
  // errno of the failed system call, 0 when none failed.
  int error = 0;
  const char* syscall = nullptr;
  // What is wrong with the values, when no system call was to blame.
  const char* message = nullptr;

  bool ok() const { return error == 0 && message == nullptr; }

  static Outcome success() { return {}; }
  static Outcome system(const char* syscall, int error = errno) { return {error, syscall, nullptr}; }
  static Outcome range(const char* message) { return {0, nullptr, message}; }
};

}  // namespace virtio_pmd
