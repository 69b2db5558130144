// A folder of its own for one test, removed with everything in it at the end.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace sluice::test {

class temporary_directory {
  public:
    temporary_directory() {
        std::string pattern =
            (std::filesystem::temp_directory_path() / "sluice-test-XXXXXX").string();
        if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
        path_ = pattern;
    }
    temporary_directory(const temporary_directory&) = delete;
    temporary_directory& operator=(const temporary_directory&) = delete;
    ~temporary_directory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    const std::filesystem::path& path() const { return path_; }

    // Writes a file and returns its path.
    std::filesystem::path write(const std::string& name, std::string_view bytes) const {
        std::ofstream stream(path_ / name, std::ios::binary);
        stream.write(bytes.data(), std::streamsize(bytes.size()));
        if (!stream.flush()) throw std::runtime_error("cannot write " + name);
        return path_ / name;
    }

  private:
    std::filesystem::path path_;
};

} // namespace sluice::test
