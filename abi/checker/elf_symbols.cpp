#include "elf_symbols.hpp"

#include "base/error.hpp"
#include "base/mapped_file.hpp"

#include <cstring>
#include <elf.h>
#include <span>

namespace sluice::checker {
namespace {

// Bounds-checked reading of a file's structs.
class elf_file {
  public:
    elf_file(std::span<const std::byte> bytes, const std::filesystem::path& path)
        : bytes_(bytes), path_(path) {}

    template <typename Struct>
    Struct read(uint64_t offset) const {
        if (offset > bytes_.size() || bytes_.size() - offset < sizeof(Struct))
            fail(SLUICE_INVALID, "{}: an ELF structure at byte {} lies beyond the file's {} bytes",
                 path_.string(), offset, bytes_.size());
        Struct found;
        std::memcpy(&found, bytes_.data() + offset, sizeof found);
        return found;
    }

    std::string text(uint64_t offset, uint64_t table_begin, uint64_t table_size) const {
        if (offset >= table_size || table_begin > bytes_.size()
            || table_size > bytes_.size() - table_begin)
            fail(SLUICE_INVALID, "{}: a symbol's name lies outside the string table",
                 path_.string());
        const auto* begin = reinterpret_cast<const char*>(bytes_.data() + table_begin + offset);
        return {begin, strnlen(begin, table_size - offset)};
    }

    const std::filesystem::path& path() const { return path_; }

  private:
    std::span<const std::byte> bytes_;
    const std::filesystem::path& path_;
};

Elf64_Ehdr checked_header(const elf_file& file) {
    const auto header = file.read<Elf64_Ehdr>(0);
    const bool is_elf = std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0;
    if (!is_elf || header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB
        || header.e_type != ET_DYN)
        fail(SLUICE_INVALID, "{}: expected a 64-bit little-endian ELF shared library, found {}",
             file.path().string(), is_elf ? "another kind of ELF file" : "no ELF file");
    if (header.e_shentsize != sizeof(Elf64_Shdr))
        fail(SLUICE_INVALID,
             "{}: section headers of {} bytes, expected {}; was it stripped of them?",
             file.path().string(), header.e_shentsize, sizeof(Elf64_Shdr));
    return header;
}

} // namespace

std::vector<elf_symbol> elf_dynamic_symbols(const std::filesystem::path& path) {
    const auto mapped = mapped_file::open(path);
    const elf_file file(mapped->bytes(), path);
    const Elf64_Ehdr header = checked_header(file);
    std::vector<elf_symbol> symbols;
    for (uint64_t i = 0; i < header.e_shnum; ++i) {
        const auto section = file.read<Elf64_Shdr>(header.e_shoff + i * sizeof(Elf64_Shdr));
        if (section.sh_type != SHT_DYNSYM) continue;
        const auto names =
            file.read<Elf64_Shdr>(header.e_shoff + section.sh_link * sizeof(Elf64_Shdr));
        const uint64_t count = section.sh_size / sizeof(Elf64_Sym);
        for (uint64_t j = 1; j < count; ++j) { // 0 is the null symbol
            const auto symbol = file.read<Elf64_Sym>(section.sh_offset + j * sizeof(Elf64_Sym));
            const unsigned binding = ELF64_ST_BIND(symbol.st_info);
            if (binding == STB_LOCAL) continue;
            symbols.push_back({file.text(symbol.st_name, names.sh_offset, names.sh_size),
                               symbol.st_shndx != SHN_UNDEF, binding == STB_GNU_UNIQUE});
        }
    }
    return symbols;
}

} // namespace sluice::checker
