#include "mapping.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <new>

// Newer than the C libraries we build with.
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

namespace virtio_pmd {
namespace {

// Unmaps on every path that does not hand the mapping on.
class UniquePages {
 public:
  UniquePages(void* base, size_t bytes) : base_(base), bytes_(bytes) {}
  UniquePages(const UniquePages&) = delete;
  UniquePages& operator=(const UniquePages&) = delete;
  ~UniquePages() {
    if (base_ == nullptr) return;
    unguardRange(range);
    munmap(base_, bytes_);
  }
  void release() { base_ = nullptr; }
  GuardedRange* range = nullptr;

 private:
  void* base_;
  size_t bytes_;
};

uint64_t roundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// The unit in which the file can be mapped: hugetlbfs has its own.
size_t pageBytesOf(int fd) {
  struct statfs fileSystem;
  if (fstatfs(fd, &fileSystem) == 0 && static_cast<uint32_t>(fileSystem.f_type) == HUGETLBFS_MAGIC) {
    return static_cast<size_t>(fileSystem.f_bsize);
  }
  return static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

// Touches every page by hand, for kernels before 5.14. A page that cannot be had shows as a repaired fault.
bool touchPages(void* base, size_t bytes, size_t pageBytes, const GuardedRange& range) {
  const uint64_t before = range.faults.load(std::memory_order_relaxed);
  // SAFETY: [base, base + bytes) was mapped a moment ago and is guarded.
  const volatile uint8_t* const data = static_cast<const volatile uint8_t*>(base);
  for (size_t offset = 0; offset < bytes; offset += pageBytes) static_cast<void>(data[offset]);
  return range.faults.load(std::memory_order_relaxed) == before;
}

Outcome populate(void* base, size_t bytes, size_t pageBytes, bool readOnly, const GuardedRange& range) {
  int result;
  do {
    result = madvise(base, bytes, readOnly ? MADV_POPULATE_READ : MADV_POPULATE_WRITE);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return Outcome::success();
  // A page that would raise SIGBUS is reported as EFAULT.
  if (errno != EINVAL) return Outcome::system("madvise", errno == EFAULT ? ENOMEM : errno);
  if (!touchPages(base, bytes, pageBytes, range)) return Outcome::system("mmap", ENOMEM);
  return Outcome::success();
}

}  // namespace

Outcome Mapping::open(const MappingRequest& request, std::shared_ptr<Mapping>* mapping) {
  if (request.bytes == 0) return Outcome::range("an empty range cannot be mapped");
  struct stat status;
  if (fstat(request.fd, &status) != 0) return Outcome::system("fstat");
  const size_t pageBytes = pageBytesOf(request.fd);

  uint64_t fileEnd;
  if (__builtin_add_overflow(request.fileOffset, request.bytes, &fileEnd) ||
      fileEnd > static_cast<uint64_t>(INT64_MAX) - pageBytes) {
    return Outcome::range("the range leaves the 64-bit file offsets");
  }
  if (S_ISREG(status.st_mode)) {
    // What follows the end of the file up to the next page can be mapped, and small PCI BARs are mapped so; memory of a
    // peer must be there to the last byte.
    const uint64_t size = static_cast<uint64_t>(status.st_size);
    if (fileEnd > (request.foreign ? size : roundUp(size, pageBytes))) return Outcome::range("the file is too short");
  } else if (request.foreign) {
    return Outcome::system("mmap", ENODEV);
  }

  const uint64_t begin = request.fileOffset / pageBytes * pageBytes;
  const uint64_t mappedBytes = roundUp(fileEnd - begin, pageBytes);
  const int protection = request.readOnly ? PROT_READ : PROT_READ | PROT_WRITE;
  const int flags = MAP_SHARED | (request.foreign ? MAP_NORESERVE : 0);
  void* const base = mmap(nullptr, mappedBytes, protection, flags, request.fd, static_cast<off_t>(begin));
  if (base == MAP_FAILED) return Outcome::system("mmap");
  UniquePages pages(base, mappedBytes);
  pages.range = guardRange(base, mappedBytes, pageBytes, !request.readOnly);
  if (pages.range == nullptr) return Outcome::system("sigaction", ENOMEM);

  // Guest memory stays out of core dumps. Advice may be refused (device memory never is dumped); nothing hangs on it.
  if (request.foreign) madvise(base, mappedBytes, MADV_DONTDUMP);
  if (request.populate) {
    const Outcome outcome = populate(base, mappedBytes, pageBytes, request.readOnly, *pages.range);
    if (!outcome.ok()) return outcome;
  }
  if (request.lock && mlock(base, mappedBytes) != 0) return Outcome::system("mlock");

  // SAFETY: fileOffset - begin is less than a page and the mapping covers both it and `bytes` after it.
  uint8_t* const data = static_cast<uint8_t*>(base) + (request.fileOffset - begin);
  mapping->reset(new (std::nothrow) Mapping(base, mappedBytes, data, request, pages.range));
  if (*mapping == nullptr) return Outcome::system("mmap", ENOMEM);
  pages.release();
  return Outcome::success();
}

void Mapping::unguard() {
  if (range_ == nullptr) return;
  faultsAtEnd_ = range_->faults.load(std::memory_order_relaxed);
  unguardRange(range_);
  range_ = nullptr;
}

void Mapping::unmap() {
  if (base_ == nullptr) return;
  unguard();
  // SAFETY: the caller vouches that no view of the range is left; base_ and mappedBytes_ are what mmap returned.
  munmap(base_, mappedBytes_);
  base_ = nullptr;
  data_ = nullptr;
  bytes_ = 0;
}

void Mapping::blank() {
  if (base_ == nullptr) return;
  // SAFETY: the range is ours from mmap to munmap, so what is mapped there may be replaced. If that fails the file
  // stays mapped, and guarded, until the last owner is gone.
  void* const page =
      mmap(base_, mappedBytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
  static_cast<void>(page);
}

Outcome createMemory(const char* name, uint64_t bytes, uint64_t hugePageBytes, UniqueFd* memory) {
  unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (hugePageBytes != 0) {
    const unsigned int sizeBits = static_cast<unsigned int>(__builtin_ctzll(hugePageBytes));
    flags |= MFD_HUGETLB | (sizeBits << MFD_HUGE_SHIFT);
  }
  UniqueFd fd(memfd_create(name, flags));
  // Without hugetlbfs for this size, memfd_create says ENODEV or ENOENT: no such pages, which is a shortage to the
  // caller.
  if (!fd.valid()) {
    const bool noSuchPages = hugePageBytes != 0 && (errno == ENODEV || errno == ENOENT);
    return Outcome::system("memfd_create", noSuchPages ? ENOMEM : errno);
  }
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) return Outcome::system("ftruncate");
  if (hugePageBytes != 0) {
    int result;
    do {
      result = fallocate(fd.get(), 0, 0, static_cast<off_t>(bytes));
    } while (result != 0 && errno == EINTR);
    if (result != 0) return Outcome::system("fallocate");
  }
  // F_SEAL_SEAL: a peer that gets the descriptor must not add seals against writing.
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) return Outcome::system("fcntl");
  *memory = std::move(fd);
  return Outcome::success();
}

}  // namespace virtio_pmd
