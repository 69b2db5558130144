// The dynamic symbols of an ELF shared library, read without loading it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace sluice::checker {

struct elf_symbol {
    std::string name;
    bool defined;
    bool unique; // STB_GNU_UNIQUE: merged with every other library's, even under RTLD_LOCAL
};

// The global, weak and unique symbols of the dynamic table. Fails with SLUICE_INVALID where the
// file is not a 64-bit little-endian ELF shared library or contradicts itself.
std::vector<elf_symbol> elf_dynamic_symbols(const std::filesystem::path& path);

} // namespace sluice::checker
