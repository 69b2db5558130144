#include "base/atomic_file.hpp"
#include "base/mapped_file.hpp"

#include "error_check.hpp"
#include "temporary_directory.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <iterator>

using namespace sluice;
using test::check_error;

namespace {

size_t entries_in(const std::filesystem::path& folder) {
    return size_t(std::distance(std::filesystem::directory_iterator(folder), {}));
}

} // namespace

TEST_CASE("a mapped file shows the file's bytes, and outlives its name") {
    test::temporary_directory folder;
    auto path = folder.write("data", "hello");
    auto file = mapped_file::open(path);
    std::filesystem::remove(path);
    auto bytes = file->bytes();
    CHECK(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == "hello");
    CHECK(file->path() == path);
    file->advise(file_access::sequential);
    file->advise(file_access::will_need, 3, 100);
    file->advise(file_access::random, 100, 100);
    CHECK(bytes[4] == std::byte('o'));
}

TEST_CASE("files that cannot be mapped are named with the reason") {
    test::temporary_directory folder;
    auto open = [](std::filesystem::path path) { return [=] { mapped_file::open(path); }; };
    check_error(open(folder.path() / "absent"), SLUICE_UNAVAILABLE, {"absent", "no such file"});
    check_error(open(folder.path()), SLUICE_INVALID, {"found a directory"});
    check_error(open(folder.write("empty", "")), SLUICE_INVALID, {"empty", "is empty"});
    auto plain = folder.write("plain", "x");
    check_error(open(plain / "below"), SLUICE_UNAVAILABLE, {"plain/below", "no such file"});
    REQUIRE(::mkfifo((folder.path() / "pipe").c_str(), 0600) == 0);
    check_error(open(folder.path() / "pipe"), SLUICE_INVALID, {"regular file", "pipe"});
    std::filesystem::create_symlink("loop", folder.path() / "loop");
    check_error(open(folder.path() / "loop"), SLUICE_UNAVAILABLE, {"loop", "symbolic link"});
    if (::geteuid() != 0) { // root may read everything
        std::filesystem::permissions(plain, std::filesystem::perms::none);
        check_error(open(plain), SLUICE_UNAVAILABLE, {"plain", "permission"});
    }
}

TEST_CASE("text files are read whole, up to a limit") {
    test::temporary_directory folder;
    CHECK(read_text_file(folder.write("a", "one\ntwo"), 7) == "one\ntwo");
    CHECK(read_text_file(folder.write("b", ""), 7).empty());
    check_error([&] { read_text_file(folder.write("c", "12345678"), 7); }, SLUICE_INVALID,
                {"at most 7 B", "found 8 B"});
    check_error([&] { read_text_file(folder.path(), 7); }, SLUICE_INVALID, {"directory"});
}

TEST_CASE("an atomic file appears whole at commit, or not at all") {
    test::temporary_directory folder;
    auto path = folder.write("target", "old");
    {
        atomic_file file(path);
        file.write(std::string_view("new "));
        file.write(std::string_view("content"));
        file.write_at(0, std::as_bytes(std::span("NEW", 3)));
        CHECK(read_text_file(path, 100) == "old");
        file.commit();
        CHECK(read_text_file(path, 100) == "NEW content");
        check_error([&] { file.write(std::string_view("x")); }, SLUICE_INTERNAL, {"after commit"});
        check_error([&] { file.commit(); }, SLUICE_INTERNAL, {"committed twice"});
    }
    {
        atomic_file file(path);
        file.write(std::string_view("abandoned"));
        CHECK(entries_in(folder.path()) == 2);
    }
    CHECK(read_text_file(path, 100) == "NEW content");
    CHECK(entries_in(folder.path()) == 1);
    write_file_atomically(folder.path() / "second", "2");
    CHECK(read_text_file(folder.path() / "second", 100) == "2");
    check_error([&] { atomic_file file(folder.path()); }, SLUICE_INVALID, {"directory"});
    check_error([&] { atomic_file file(folder.path() / "absent" / "x"); }, SLUICE_UNAVAILABLE,
                {"absent/x", "No such file"});
}

TEST_CASE("a full disk is told from other failures") {
    if (!std::filesystem::exists("/dev/full")) return;
    // The file's own limit stands in for a full disk: both end in EXHAUSTED.
    test::temporary_directory folder;
    atomic_file file(folder.path() / "huge");
    std::byte one{1};
    check_error(
        [&] {
            file.write_at(uint64_t(INT64_MAX) - 1, {&one, 1});
        },
        SLUICE_EXHAUSTED, {"huge", "cannot write"});
}
