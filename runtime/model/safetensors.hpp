// The safetensors file format (https://github.com/huggingface/safetensors): an 8-byte little-endian
// header length, a JSON header that gives each tensor's type, shape and byte range, then the bytes.
// Read from a mapping without copying, written as a stream.
#pragma once

#include "base/atomic_file.hpp"
#include "base/mapped_file.hpp"

#include <sluice/abi/tensor.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sluice {

// One tensor's bytes in memory, with where they came from. Copies are cheap and keep the memory
// alive through `owner`; the bytes never change and are aligned to their element's size.
struct tensor_view {
    std::string name;
    sluice_element_type element_type = SLUICE_ELEMENT_UNKNOWN;
    std::vector<int64_t> shape; // row-major; empty for a scalar
    std::span<const std::byte> bytes;
    std::string file;          // path, or what else made the values
    uint64_t offset_bytes = 0; // in the file
    std::shared_ptr<const void> owner;

    uint64_t elements() const;
    sluice_tensor to_abi() const; // borrowed from this view
    // All elements converted, [elements()].
    std::vector<float> to_f32() const;
};

// What the header says of one tensor.
struct safetensors_entry {
    std::string name;
    std::string dtype;                // as written: "BF16"
    sluice_element_type element_type; // UNKNOWN for a type that sluice cannot hold (U16, U32, ...)
    std::vector<int64_t> shape;
    uint64_t offset_bytes; // from the start of the file
    uint64_t size_bytes;
};

struct safetensors_header {
    std::vector<safetensors_entry> entries;      // in order of their offsets
    std::map<std::string, std::string> metadata; // "__metadata__"
};

// Checks everything the format promises: lengths, JSON, known types, shapes without overflow, byte
// ranges that match type and shape and cover the file without hole or overlap, unique names. Fails
// with INVALID (UNSUPPORTED for types and ranks of no known use), naming `source` and the tensor.
safetensors_header parse_safetensors_header(std::span<const std::byte> file,
                                            const std::string& source);

// An open file. Safe to use from several threads.
class safetensors_file : public std::enable_shared_from_this<safetensors_file> {
  public:
    static std::shared_ptr<const safetensors_file> open(const std::filesystem::path& path);

    const std::filesystem::path& path() const { return file_->path(); }
    const safetensors_header& header() const { return header_; }
    const mapped_file& file() const { return *file_; }
    const safetensors_entry* find_entry(std::string_view name) const; // null when absent

    // The tensor's bytes, from the mapping. A tensor that the file does not align to its element
    // size (old writers did not pad the header) is copied once, and the copy kept with this file.
    tensor_view tensor(const safetensors_entry& entry) const;

  private:
    explicit safetensors_file(std::shared_ptr<const mapped_file> file);

    std::span<const std::byte> aligned_copy(const safetensors_entry& entry) const;

    std::shared_ptr<const mapped_file> file_;
    safetensors_header header_;
    std::unordered_map<std::string_view, const safetensors_entry*> by_name_; // into header_
    mutable std::mutex copies_mutex_;
    mutable std::unordered_map<const safetensors_entry*, std::vector<std::max_align_t>> copies_;
};

// "BF16" for SLUICE_BF16 and so on; "" for types that safetensors has no name for.
std::string_view safetensors_dtype(sluice_element_type type);

// Writes a file in three steps: declare every tensor, append the bytes, finish. Bytes of one tensor
// come in order, in as many pieces as the caller likes; tensors may come in any order and
// interleaved. The target appears only at finish(). Misuse fails with INTERNAL.
class safetensors_writer {
  public:
    explicit safetensors_writer(const std::filesystem::path& path,
                                std::map<std::string, std::string> metadata = {{"format", "pt"}});

    void declare(std::string name, sluice_element_type type, std::vector<int64_t> shape);
    void append(std::string_view name, std::span<const std::byte> bytes);
    void finish(); // fails unless every declared tensor is whole

    uint64_t size_bytes() const { return data_bytes_; } // of the tensors declared so far

  private:
    struct pending_tensor {
        std::string name;
        sluice_element_type type;
        std::vector<int64_t> shape;
        uint64_t size_bytes;
        uint64_t offset_bytes = 0; // in the data, once laid out
        uint64_t written_bytes = 0;
    };

    void write_header(); // lays the tensors out and ends declaring

    atomic_file file_;
    std::map<std::string, std::string> metadata_;
    std::vector<pending_tensor> tensors_;
    std::map<std::string, size_t, std::less<>> by_name_;
    uint64_t data_bytes_ = 0;
    uint64_t data_start_bytes_ = 0; // 0 until the header is written
};

} // namespace sluice
