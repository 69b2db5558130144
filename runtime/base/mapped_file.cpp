#include "base/mapped_file.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace sluice {
namespace {

std::string system_message(int code) { return std::generic_category().message(code); }

class file_descriptor {
  public:
    explicit file_descriptor(int number) : number_(number) {}
    file_descriptor(const file_descriptor&) = delete;
    file_descriptor& operator=(const file_descriptor&) = delete;
    ~file_descriptor() {
        if (number_ >= 0) ::close(number_);
    }
    int number() const { return number_; }

  private:
    int number_;
};

// Opens a regular file and returns its descriptor; `size_bytes` receives its size.
int open_regular(const std::filesystem::path& path, uint64_t& size_bytes) {
    // O_NONBLOCK: opening a named pipe must not wait for a writer. It does nothing on plain files.
    int number = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (number < 0) {
        int code = errno;
        if (code == ENOENT || code == ENOTDIR) {
            fail(SLUICE_UNAVAILABLE, "{}: no such file; check the path", path.string());
        }
        if (code == EACCES || code == EPERM) {
            fail(SLUICE_UNAVAILABLE, "{}: no permission to read this file", path.string());
        }
        fail(SLUICE_UNAVAILABLE, "{}: cannot open: {}", path.string(), system_message(code));
    }
    struct stat information {};
    if (::fstat(number, &information) != 0) {
        int code = errno;
        ::close(number);
        fail(SLUICE_UNAVAILABLE, "{}: cannot stat: {}", path.string(), system_message(code));
    }
    if (!S_ISREG(information.st_mode)) {
        ::close(number);
        fail(SLUICE_INVALID, "{}: expected a regular file, found {}", path.string(),
             S_ISDIR(information.st_mode) ? "a directory" : "a device, pipe or socket");
    }
    size_bytes = uint64_t(information.st_size);
    return number;
}

} // namespace

std::shared_ptr<const mapped_file> mapped_file::open(const std::filesystem::path& path) {
    uint64_t size_bytes = 0;
    file_descriptor file(open_regular(path, size_bytes));
    if (size_bytes == 0) fail(SLUICE_INVALID, "{}: the file is empty", path.string());
    // A mapping outlives its descriptor, so thousands of shards do not use up descriptors.
    void* data = ::mmap(nullptr, size_bytes, PROT_READ, MAP_PRIVATE, file.number(), 0);
    if (data == MAP_FAILED) {
        fail(SLUICE_EXHAUSTED, "{}: cannot map {} into memory: {}", path.string(),
             bytes_text(size_bytes), system_message(errno));
    }
    return std::shared_ptr<const mapped_file>(
        new mapped_file(path, static_cast<const std::byte*>(data), size_bytes));
}

mapped_file::~mapped_file() { ::munmap(const_cast<std::byte*>(data_), size_bytes_); }

void mapped_file::advise(file_access access, uint64_t offset_bytes, uint64_t size_bytes) const {
    if (offset_bytes >= size_bytes_) return;
    size_bytes = std::min<uint64_t>(size_bytes, size_bytes_ - offset_bytes);
    // madvise wants a page-aligned start.
    auto page_bytes = uint64_t(::sysconf(_SC_PAGESIZE));
    uint64_t excess = offset_bytes % page_bytes;
    int advice = access == file_access::sequential  ? MADV_SEQUENTIAL
                 : access == file_access::random    ? MADV_RANDOM
                 : access == file_access::will_need ? MADV_WILLNEED
                                                    : MADV_NORMAL;
    ::madvise(const_cast<std::byte*>(data_) + (offset_bytes - excess), size_bytes + excess, advice);
}

std::string read_text_file(const std::filesystem::path& path, uint64_t size_bytes_max) {
    uint64_t size_bytes = 0;
    file_descriptor file(open_regular(path, size_bytes));
    if (size_bytes > size_bytes_max) {
        fail(SLUICE_INVALID, "{}: expected a file of at most {}, found {}", path.string(),
             bytes_text(size_bytes_max), bytes_text(size_bytes));
    }
    std::string text(size_bytes, '\0');
    size_t filled = 0;
    while (filled < text.size()) {
        ssize_t count = ::read(file.number(), text.data() + filled, text.size() - filled);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) {
            fail(SLUICE_UNAVAILABLE, "{}: cannot read: {}", path.string(), system_message(errno));
        }
        if (count == 0) break; // shortened since fstat
        filled += size_t(count);
    }
    text.resize(filled);
    return text;
}

} // namespace sluice
