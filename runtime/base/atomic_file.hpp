// Files that appear whole or not at all: written under a temporary name beside the target, then
// synced and renamed over it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace sluice {

// One file being written. The target keeps its old content until commit(); without commit() the
// destructor removes the temporary file. Errors: UNAVAILABLE (cannot create, write or rename) or
// EXHAUSTED (disk full), naming the target. Not for several threads at once.
class atomic_file {
  public:
    explicit atomic_file(std::filesystem::path path);
    atomic_file(const atomic_file&) = delete;
    atomic_file& operator=(const atomic_file&) = delete;
    ~atomic_file();

    void write(std::span<const std::byte> bytes); // after what write() wrote before
    void write(std::string_view text);
    void write_at(uint64_t offset_bytes, std::span<const std::byte> bytes); // moves no position
    void commit(); // flush to the disk, rename, flush the folder; nothing may follow

    const std::filesystem::path& path() const { return path_; }

  private:
    [[noreturn]] void fail_with(const char* action, int code) const;
    void close_and_remove();

    std::filesystem::path path_;
    std::filesystem::path temporary_path_;
    int number_ = -1; // file descriptor, -1 when closed
    uint64_t position_bytes_ = 0;
};

void write_file_atomically(const std::filesystem::path& path, std::string_view text);

} // namespace sluice
