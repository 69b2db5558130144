// Read-only files: memory-mapped for weights, read whole for text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace sluice {

enum class file_access { normal, sequential, random, will_need };

// A regular file mapped read-only for the lifetime of the object. Errors: UNAVAILABLE when the file
// is missing or may not be read, INVALID when it is empty or not a regular file. A file that
// another process shortens while it is mapped raises SIGBUS on access, as with every mapping:
// replace model files by rename, never in place. All members are safe to call from several threads.
class mapped_file {
  public:
    static std::shared_ptr<const mapped_file> open(const std::filesystem::path& path);

    mapped_file(const mapped_file&) = delete;
    mapped_file& operator=(const mapped_file&) = delete;
    ~mapped_file();

    // Borrowed from the mapping; page-aligned at the start.
    std::span<const std::byte> bytes() const { return {data_, size_bytes_}; }
    const std::filesystem::path& path() const { return path_; }

    // Tells the kernel how the range will be read. A hint: failures are ignored, and a range past
    // the end is cut.
    void advise(file_access access, uint64_t offset_bytes = 0,
                uint64_t size_bytes = UINT64_MAX) const;

  private:
    mapped_file(std::filesystem::path path, const std::byte* data, size_t size_bytes)
        : path_(std::move(path)), data_(data), size_bytes_(size_bytes) {}

    std::filesystem::path path_;
    const std::byte* data_;
    size_t size_bytes_;
};

// The whole file as text (bytes, not checked as UTF-8). An empty file gives "". Errors as
// mapped_file's, and INVALID when the file is larger than `size_bytes_max`.
std::string read_text_file(const std::filesystem::path& path, uint64_t size_bytes_max);

} // namespace sluice
