// A shared library's file, looked at before the system's loader is: the loader maps what the
// headers promise, and a file that was cut short would then end the process instead of giving an
// error.
#pragma once

#include <filesystem>
#include <string>

namespace sluice {

// What is wrong with the file as a shared library of this platform, as a sentence; empty if
// nothing.
std::string library_file_fault(const std::filesystem::path& path);

} // namespace sluice
