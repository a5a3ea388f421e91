// What the tests of the copy engine share.
#pragma once

#include <cstdint>
#include <memory>

#include "check.h"
#include "copy_engine.h"

namespace virtio_pmd {

inline UniqueFd memory(uint64_t bytes) {
  UniqueFd fd;
  CHECK(createMemory("test", bytes, 0, &fd).ok());
  return fd;
}

inline MappingRequest foreign(int fd, uint64_t offset, uint64_t bytes, bool readOnly = false) {
  MappingRequest request;
  request.fd = fd;
  request.fileOffset = offset;
  request.bytes = bytes;
  request.readOnly = readOnly;
  request.foreign = true;
  return request;
}

inline CopyJob job(uint64_t guest, uint32_t pool, uint32_t length, uint32_t direction) {
  return {static_cast<uint32_t>(guest), static_cast<uint32_t>(guest >> 32), pool, length, direction, 99, 0, 0};
}

inline uint32_t runOne(CopyEngine& engine, const CopyJob& one) {
  engine.list()->jobs()[0] = one;
  const uint32_t failed = engine.run(1);
  const uint32_t status = engine.list()->jobs()[0].status;
  CHECK(failed == (status == kCopyOk ? 0 : 1));
  return status;
}

// The whole file, as the guest sees it.
inline std::shared_ptr<Mapping> wholeOf(const UniqueFd& fd, uint64_t bytes) {
  MappingRequest request;
  request.fd = fd.get();
  request.bytes = bytes;
  std::shared_ptr<Mapping> mapping;
  CHECK(Mapping::open(request, &mapping).ok());
  return mapping;
}

}  // namespace virtio_pmd
