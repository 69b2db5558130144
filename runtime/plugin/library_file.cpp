#include "plugin/library_file.hpp"

#include "base/error.hpp"
#include "base/mapped_file.hpp"

#include <elf.h>

#include <bit>
#include <cstring>

namespace sluice {

namespace {

#if defined(__x86_64__)
constexpr uint16_t machine_expected = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t machine_expected = EM_AARCH64;
#else
constexpr uint16_t machine_expected = EM_NONE;
#endif

std::string machine_name(uint16_t machine) {
    switch (machine) {
    case EM_X86_64:
        return "x86-64";
    case EM_AARCH64:
        return "aarch64";
    case EM_386:
        return "32-bit x86";
    case EM_RISCV:
        return "RISC-V";
    default:
        return fmt::format("machine {}", machine);
    }
}

bool in_file(uint64_t offset, uint64_t size, uint64_t file_size) {
    return offset <= file_size && size <= file_size - offset;
}

std::string segments_fault(const std::byte* data, uint64_t size, const Elf64_Ehdr& header) {
    bool has_dynamic = false;
    for (uint32_t i = 0; i < header.e_phnum; ++i) {
        Elf64_Phdr segment;
        std::memcpy(&segment, data + header.e_phoff + uint64_t{i} * sizeof segment, sizeof segment);
        if (segment.p_type == PT_DYNAMIC) has_dynamic = true;
        if (segment.p_type != PT_LOAD && segment.p_type != PT_DYNAMIC) continue;
        if (!in_file(segment.p_offset, segment.p_filesz, size)) {
            return fmt::format(
                "the file is cut short: segment {} needs {} bytes from {}, the file has "
                "{}; copy or build it again",
                i, segment.p_filesz, segment.p_offset, size);
        }
    }
    return has_dynamic ? "" : "it is no shared library: it has no dynamic section";
}

} // namespace

std::string library_file_fault(const std::filesystem::path& path) {
    std::shared_ptr<const mapped_file> file;
    try {
        file = mapped_file::open(path);
    } catch (const error& failure) {
        return failure.what();
    }
    const std::byte* data = file->bytes().data();
    const uint64_t size = file->bytes().size();
    if (size < SELFMAG || std::memcmp(data, ELFMAG, SELFMAG) != 0) {
        return "the file is not a shared library: it does not begin with the ELF mark";
    }
    Elf64_Ehdr header;
    if (size < sizeof header) return "the file is cut short: the ELF header is not complete";
    std::memcpy(&header, data, sizeof header);
    if (header.e_ident[EI_CLASS] != ELFCLASS64) return "the library is not 64-bit";
    constexpr bool little = std::endian::native == std::endian::little;
    if (header.e_ident[EI_DATA] != (little ? ELFDATA2LSB : ELFDATA2MSB)) {
        return "the library has the other byte order";
    }
    if (machine_expected != EM_NONE && header.e_machine != machine_expected) {
        return fmt::format("the library is for {}, this host is {}", machine_name(header.e_machine),
                           machine_name(machine_expected));
    }
    if (header.e_type != ET_DYN) {
        return "the file is ELF, but not a shared library (link it with -shared)";
    }
    if (header.e_phentsize != sizeof(Elf64_Phdr)
        || !in_file(header.e_phoff, uint64_t{header.e_phnum} * sizeof(Elf64_Phdr), size)) {
        return "the file is cut short: its table of segments is not complete";
    }
    return segments_fault(data, size, header);
}

} // namespace sluice
