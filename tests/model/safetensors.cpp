#include "model/safetensors.hpp"

#include "../base/error_check.hpp"
#include "../base/temporary_directory.hpp"

#include <doctest/doctest.h>

#include <cstring>

using namespace sluice;
using test::check_error;

namespace {

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
    return std::as_bytes(std::span(values));
}

std::string with_length(std::string header) {
    std::string file;
    for (int i = 0; i < 8; ++i) file += char(header.size() >> (8 * i));
    return file + header;
}

} // namespace

TEST_CASE("what is written is read back") {
    test::temporary_directory folder;
    auto path = folder.path() / "model.safetensors";
    safetensors_writer writer(path, {{"format", "pt"}, {"by", "a \"test\""}});
    writer.declare("bytes", SLUICE_U8, {3});
    writer.declare("matrix", SLUICE_F32, {2, 3});
    writer.declare("scalar", SLUICE_I64, {});
    writer.declare("empty", SLUICE_BF16, {0, 7});
    writer.declare("odd \"name\" \xc3\xa9", SLUICE_BF16, {1});
    CHECK(writer.size_bytes() == 3 + 24 + 8 + 0 + 2);
    std::vector<uint8_t> small = {1, 2, 3};
    std::vector<float> matrix = {1, 2, 3, 4, 5, 6};
    writer.append("scalar", bytes_of(std::vector<int64_t>{-7}));
    writer.append("matrix", bytes_of(matrix).first(5)); // in pieces, interleaved
    writer.append("bytes", bytes_of(small));
    writer.append("matrix", bytes_of(matrix).subspan(5));
    writer.append("odd \"name\" \xc3\xa9", bytes_of(std::vector<uint16_t>{0x3f80}));
    CHECK(!std::filesystem::exists(path));
    writer.finish();

    auto file = safetensors_file::open(path);
    CHECK(file->header().metadata.at("by") == "a \"test\"");
    REQUIRE(file->header().entries.size() == 5);
    auto tensor = [&](const char* name) { return file->tensor(*file->find_entry(name)); };
    CHECK(tensor("matrix").to_f32() == matrix);
    CHECK(tensor("matrix").shape == std::vector<int64_t>{2, 3});
    CHECK(tensor("scalar").to_f32() == std::vector<float>{-7});
    CHECK(tensor("scalar").shape.empty());
    CHECK(tensor("bytes").to_f32() == std::vector<float>{1, 2, 3});
    CHECK(tensor("empty").bytes.empty());
    CHECK(tensor("odd \"name\" \xc3\xa9").to_f32() == std::vector<float>{1});
    CHECK(file->find_entry("absent") == nullptr);
    for (const safetensors_entry& entry : file->header().entries) {
        if (entry.size_bytes > 0) CHECK(entry.offset_bytes % (entry.dtype == "U8" ? 1 : 2) == 0);
    }
    CHECK(tensor("scalar").offset_bytes % 64 == 0); // the widest is first
    tensor_view view = tensor("matrix");
    file.reset();
    CHECK(view.to_f32() == matrix); // the view keeps the mapping
    sluice_tensor abi = view.to_abi();
    CHECK(abi.rank == 2);
    CHECK(abi.shape[1] == 3);
    CHECK(abi.size_bytes == 24);
}

TEST_CASE("misuse of the writer is told, and leaves no file") {
    test::temporary_directory folder;
    auto path = folder.path() / "x.safetensors";
    {
        safetensors_writer writer(path);
        writer.declare("a", SLUICE_F32, {2});
        check_error([&] { writer.declare("a", SLUICE_F32, {2}); }, SLUICE_INTERNAL,
                    {"x.safetensors", "\"a\"", "twice"});
        check_error([&] { writer.declare("b", SLUICE_U4, {2}); }, SLUICE_INTERNAL, {"u4"});
        check_error([&] { writer.declare("b", SLUICE_F32, {-2}); }, SLUICE_INTERNAL, {"[-2]"});
        check_error([&] { writer.declare("\xff", SLUICE_F32, {2}); }, SLUICE_INTERNAL, {"UTF-8"});
        check_error([&] { writer.declare("__metadata__", SLUICE_F32, {2}); }, SLUICE_INTERNAL, {});
        std::vector<float> three = {1, 2, 3};
        check_error([&] { writer.append("b", bytes_of(three)); }, SLUICE_INTERNAL, {"\"b\""});
        check_error([&] { writer.append("a", bytes_of(three)); }, SLUICE_INTERNAL, {"4 more"});
        check_error([&] { writer.declare("c", SLUICE_F32, {2}); }, SLUICE_INTERNAL, {"after"});
        writer.append("a", bytes_of(three).first(4));
        check_error([&] { writer.finish(); }, SLUICE_INTERNAL, {"expected 8 bytes, only 4"});
    }
    CHECK(std::filesystem::is_empty(folder.path()));
    safetensors_writer empty(path, {});
    empty.finish();
    CHECK(safetensors_file::open(path)->header().entries.empty());
}

TEST_CASE("a tensor that the file misaligns is given aligned") {
    test::temporary_directory folder;
    std::vector<float> values = {1.5f, -2, 3};
    std::string header = R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})";
    while ((8 + header.size()) % 4 != 1) header += ' ';
    std::string file = with_length(header);
    file.append(reinterpret_cast<const char*>(values.data()), 12);
    auto opened = safetensors_file::open(folder.write("old.safetensors", file));
    const safetensors_entry& entry = *opened->find_entry("a");
    CHECK(entry.offset_bytes % 4 == 1);
    tensor_view first = opened->tensor(entry), second = opened->tensor(entry);
    CHECK(reinterpret_cast<uintptr_t>(first.bytes.data()) % 4 == 0);
    CHECK(first.bytes.data() == second.bytes.data());
    CHECK(first.to_f32() == values);
}

TEST_CASE("types without a use are listed but not given") {
    test::temporary_directory folder;
    auto file = safetensors_file::open(folder.write(
        "u.safetensors", with_length(R"({"a":{"dtype":"U32","shape":[1],"data_offsets":[0,4]},)"
                                     R"("f4":{"dtype":"F4","shape":[4],"data_offsets":[4,6]}})")
                             + "abcdef"));
    CHECK(file->find_entry("a")->dtype == "U32");
    check_error([&] { file->tensor(*file->find_entry("a")); }, SLUICE_UNSUPPORTED,
                {"u.safetensors", "\"a\"", "U32"});
    CHECK(file->tensor(*file->find_entry("f4")).elements() == 4);
}

TEST_CASE("a file made by Hugging Face's own library is read") {
    auto file = safetensors_file::open(SLUICE_TEST_DATA_DIR "/gptq/gptq/model.safetensors");
    CHECK(file->header().entries.size() == 33);
    CHECK(file->header().metadata.at("format") == "pt");
    tensor_view gate = file->tensor(*file->find_entry("model.layers.0.gate.weight"));
    CHECK(gate.shape == std::vector<int64_t>{3, 4});
    CHECK(gate.to_f32() == std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
}
