#include "base/atomic_file.hpp"

#include "base/error.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <random>
#include <system_error>

namespace sluice {

atomic_file::atomic_file(std::filesystem::path path) : path_(std::move(path)) {
    std::error_code ignored;
    if (path_.filename().empty() || std::filesystem::is_directory(path_, ignored)) {
        fail(SLUICE_INVALID, "{}: cannot write a file here: this is a directory", path_.string());
    }
    std::random_device random;
    for (int attempt = 0; attempt < 16 && number_ < 0; ++attempt) {
        temporary_path_ = path_;
        temporary_path_.replace_filename(
            fmt::format(".{}.{:08x}.partial", path_.filename().string(), random()));
        // Not mkstemp: this honours the umask, so the result has the permissions of a plain file.
        number_ = ::open(temporary_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (number_ < 0 && errno != EEXIST) break;
    }
    if (number_ < 0) fail_with("create a file in this folder", errno);
}

atomic_file::~atomic_file() { close_and_remove(); }

void atomic_file::close_and_remove() {
    if (number_ < 0) return;
    ::close(number_);
    number_ = -1;
    ::unlink(temporary_path_.c_str());
}

void atomic_file::fail_with(const char* action, int code) const {
    sluice_status status =
        code == ENOSPC || code == EDQUOT || code == EFBIG ? SLUICE_EXHAUSTED : SLUICE_UNAVAILABLE;
    fail(status, "{}: cannot {}: {}", path_.string(), action,
         std::generic_category().message(code));
}

void atomic_file::write(std::span<const std::byte> bytes) {
    write_at(position_bytes_, bytes);
    position_bytes_ += bytes.size();
}

void atomic_file::write(std::string_view text) {
    write(std::as_bytes(std::span<const char>(text.data(), text.size())));
}

void atomic_file::write_at(uint64_t offset_bytes, std::span<const std::byte> bytes) {
    if (number_ < 0) fail(SLUICE_INTERNAL, "{}: written after commit", path_.string());
    while (!bytes.empty()) {
        ssize_t count = ::pwrite(number_, bytes.data(), bytes.size(), off_t(offset_bytes));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail_with("write", errno);
        offset_bytes += uint64_t(count);
        bytes = bytes.subspan(size_t(count));
    }
}

void atomic_file::commit() {
    if (number_ < 0) fail(SLUICE_INTERNAL, "{}: committed twice", path_.string());
    if (::fsync(number_) != 0) fail_with("write to the disk", errno);
    if (::rename(temporary_path_.c_str(), path_.c_str()) != 0) {
        fail_with("move the finished file here", errno);
    }
    ::close(number_);
    number_ = -1;
    // The rename itself is durable only once the folder is. Some file systems cannot sync folders:
    // the file is whole either way, so that is no error.
    std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
    int folder_number = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_number >= 0) {
        ::fsync(folder_number);
        ::close(folder_number);
    }
}

void write_file_atomically(const std::filesystem::path& path, std::string_view text) {
    atomic_file file(path);
    file.write(text);
    file.commit();
}

} // namespace sluice
