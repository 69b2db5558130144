// Malformed model folders, one line each: every one must end in an error of the right class that
// names the file and the field, and in nothing worse.
#include "model/checkpoint.hpp"
#include "model/gptq_layout.hpp"

#include "../base/error_check.hpp"
#include "../base/temporary_directory.hpp"

#include <doctest/doctest.h>

#include <utility>

using namespace sluice;
using test::check_error;

namespace {

struct hostile_case {
    const char* what;
    std::string content;
    sluice_status status;
    std::vector<std::string> says;
};

std::string length_field(uint64_t length) {
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes += char(length >> (8 * i));
    return bytes;
}

std::string repeated(const std::string& text, size_t count) {
    std::string all;
    for (size_t i = 0; i < count; ++i) all += text;
    return all;
}

std::string with_length(const std::string& header, size_t data_bytes = 0) {
    return length_field(header.size()) + header + std::string(data_bytes, 'x');
}

// A file with one tensor "w" of 8 bytes of data, described by `entry`.
std::string one(const std::string& entry) { return with_length("{\"w\":" + entry + "}", 8); }

std::string entry(const char* dtype, const char* shape, const char* offsets) {
    return std::string("{\"dtype\":") + dtype + ",\"shape\":" + shape
           + ",\"data_offsets\":" + offsets + "}";
}

// Two tensors of 4 bytes over 8 bytes of data.
std::string two(const char* first_offsets, const char* second_offsets) {
    return with_length("{\"a\":" + entry("\"F32\"", "[1]", first_offsets)
                           + ",\"b\":" + entry("\"F32\"", "[1]", second_offsets) + "}",
                       8);
}

const std::vector<hostile_case> safetensors_cases = {
    {"empty", "", SLUICE_INVALID, {"the file is empty"}},
    {"shorter than its length field", "abc", SLUICE_INVALID, {"only 3 bytes"}},
    {"a length and nothing else", length_field(2), SLUICE_INVALID, {"header length", "found 2"}},
    {"a length beyond the file",
     length_field(1000) + "{}",
     SLUICE_INVALID,
     {"header length", "expected 2 to 2 bytes, found 1000"}},
    {"a length near 2^64", length_field(UINT64_MAX) + "{}", SLUICE_INVALID, {"header length"}},
    {"a length that overflows with its field",
     length_field(UINT64_MAX - 7) + "{}",
     SLUICE_INVALID,
     {"header length"}},
    {"a length of zero", length_field(0) + "{}", SLUICE_INVALID, {"header length", "found 0"}},
    {"a header over the limit",
     length_field(100'000'001) + "{}",
     SLUICE_INVALID,
     {"header length"}},
    {"a zip file", "PK\x03\x04" + std::string(100, 'z'), SLUICE_INVALID, {"not safetensors"}},
    {"no object", with_length("[]"), SLUICE_INVALID, {"begin with '{'", "\"[\""}},
    {"a leading space", with_length(" {}"), SLUICE_INVALID, {"begin with '{'"}},
    {"cut JSON", with_length("{\"w\":{\"dtype\":\"F32\""), SLUICE_INVALID, {"line 1"}},
    {"two JSON values", with_length("{}{}"), SLUICE_INVALID, {"line 1"}},
    {"zero bytes at the end of the header",
     with_length(std::string("{}\0\0", 4)),
     SLUICE_INVALID,
     {"zero byte at offset 2"}},
    {"a header that is not UTF-8", with_length("{\"\xff\":1}"), SLUICE_INVALID, {"UTF-8"}},
    {"deep nesting",
     with_length("{\"w\":" + std::string(1'000'000, '[')),
     SLUICE_INVALID,
     {"nested"}},
    {"the same name twice", with_length("{\"w\":1,\"w\":2}"), SLUICE_INVALID, {"w is there twice"}},
    {"the same field twice",
     one(R"({"dtype":"F32","dtype":"I8","shape":[2],"data_offsets":[0,8]})"),
     SLUICE_INVALID,
     {"w.dtype is there twice"}},
    {"an entry that is no object", one("[1]"), SLUICE_INVALID, {"w: expected an object"}},
    {"no type", one(R"({"shape":[2],"data_offsets":[0,8]})"), SLUICE_INVALID, {"\"dtype\" in w"}},
    {"no shape",
     one(R"({"dtype":"F32","data_offsets":[0,8]})"),
     SLUICE_INVALID,
     {"\"shape\" in w"}},
    {"no offsets",
     one(R"({"dtype":"F32","shape":[2]})"),
     SLUICE_INVALID,
     {"\"data_offsets\" in w"}},
    {"an unknown field",
     one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"stride":[1]})"),
     SLUICE_INVALID,
     {"w.stride", "unknown key"}},
    {"an unknown type",
     one(entry("\"F33\"", "[2]", "[0,8]")),
     SLUICE_UNSUPPORTED,
     {"w.dtype", "BF16", "\"F33\""}},
    {"a type in the wrong case",
     one(entry("\"f32\"", "[2]", "[0,8]")),
     SLUICE_UNSUPPORTED,
     {"w.dtype", "\"f32\""}},
    {"a type that is a number",
     one(entry("32", "[2]", "[0,8]")),
     SLUICE_INVALID,
     {"w.dtype: expected a text, found 32"}},
    {"a shape that is a number",
     one(entry("\"F32\"", "2", "[0,8]")),
     SLUICE_INVALID,
     {"w.shape: expected an array, found 2"}},
    {"a negative dimension",
     one(entry("\"F32\"", "[-2]", "[0,8]")),
     SLUICE_INVALID,
     {"w.shape[0]", "found -2"}},
    {"a fractional dimension",
     one(entry("\"F32\"", "[2.0]", "[0,8]")),
     SLUICE_INVALID,
     {"w.shape[0]: expected an integer"}},
    {"a dimension beyond 63 bits",
     one(entry("\"F32\"", "[18446744073709551615]", "[0,8]")),
     SLUICE_INVALID,
     {"w.shape[0]"}},
    {"a shape whose product overflows",
     one(entry("\"F32\"", "[4294967296,4294967296,2]", "[0,8]")),
     SLUICE_INVALID,
     {"w.shape", "overflows"}},
    {"a shape whose size in bits overflows",
     one(entry("\"F64\"", "[1152921504606846976]", "[0,8]")),
     SLUICE_INVALID,
     {"w.shape", "overflows"}},
    {"too many dimensions",
     one(entry("\"F32\"", "[1,1,1,1,1,1,2]", "[0,8]")),
     SLUICE_UNSUPPORTED,
     {"w.shape", "at most 6 dimensions, found 7"}},
    {"a great many dimensions",
     one(entry("\"F32\"", ("[1" + repeated(",1", 100000) + "]").c_str(), "[0,8]")),
     SLUICE_UNSUPPORTED,
     {"w.shape", "found 100001"}},
    {"half a byte",
     one(entry("\"F4\"", "[15]", "[0,8]")),
     SLUICE_INVALID,
     {"w.shape", "whole bytes"}},
    {"offsets that are a text",
     one(entry("\"F32\"", "[2]", "\"0,8\"")),
     SLUICE_INVALID,
     {"w.data_offsets: expected an array"}},
    {"one offset",
     one(entry("\"F32\"", "[2]", "[8]")),
     SLUICE_INVALID,
     {"w.data_offsets", "two offsets"}},
    {"three offsets",
     one(entry("\"F32\"", "[2]", "[0,4,8]")),
     SLUICE_INVALID,
     {"w.data_offsets", "at most 2"}},
    {"negative offsets",
     one(entry("\"F32\"", "[2]", "[-8,0]")),
     SLUICE_INVALID,
     {"w.data_offsets[0]", "found -8"}},
    {"offsets in reverse",
     one(entry("\"F32\"", "[2]", "[8,0]")),
     SLUICE_INVALID,
     {"w.data_offsets", "begin <= end"}},
    {"offsets beyond the file",
     one(entry("\"F32\"", "[4]", "[0,16]")),
     SLUICE_INVALID,
     {"w.data_offsets", "end <= 8"}},
    {"offsets near 2^63",
     one(entry("\"F32\"", "[2]", "[9223372036854775799,9223372036854775807]")),
     SLUICE_INVALID,
     {"w.data_offsets", "end <= 8"}},
    {"fewer bytes than the shape needs",
     one(entry("\"F32\"", "[3]", "[0,8]")),
     SLUICE_INVALID,
     {"w.data_offsets", "expected 12 bytes for F32 [3], found 8"}},
    {"more bytes than the shape needs",
     one(entry("\"F16\"", "[3]", "[0,8]")),
     SLUICE_INVALID,
     {"w.data_offsets", "expected 6 bytes"}},
    {"bytes for an empty shape",
     one(entry("\"F32\"", "[0]", "[0,8]")),
     SLUICE_INVALID,
     {"w.data_offsets", "expected 0 bytes"}},
    {"the same bytes twice", two("[0,4]", "[0,4]"), SLUICE_INVALID, {"\"b\"", "overlapping"}},
    {"overlapping bytes", two("[0,4]", "[2,6]"), SLUICE_INVALID, {"\"b\"", "overlapping"}},
    {"a hole before the first", two("[1,5]", "[5,9]"), SLUICE_INVALID, {"b.data_offsets"}},
    {"a hole at the beginning",
     with_length("{\"a\":" + entry("\"F32\"", "[1]", "[4,8]") + "}", 8),
     SLUICE_INVALID,
     {"\"a\"", "a hole"}},
    {"bytes at the end that no tensor has",
     one(entry("\"F32\"", "[1]", "[0,4]")),
     SLUICE_INVALID,
     {"found 4 that no tensor covers"}},
    {"data without tensors", with_length("{}", 5), SLUICE_INVALID, {"no tensor covers"}},
    {"metadata that is no object",
     with_length("{\"__metadata__\":1}"),
     SLUICE_INVALID,
     {"__metadata__: expected an object"}},
    {"metadata that is not text",
     with_length("{\"__metadata__\":{\"a\":1}}"),
     SLUICE_INVALID,
     {"__metadata__.a: expected a text"}},
};

std::string index_of(const char* shard) {
    return std::string(R"({"weight_map":{"model.w":)") + shard + "}}";
}

const std::vector<hostile_case> index_cases = {
    {"empty", "", SLUICE_INVALID, {"found nothing"}},
    {"no object", "[]", SLUICE_INVALID, {"expected an object"}},
    {"no map", R"({"weightmap":{}})", SLUICE_INVALID, {"weight_map", "did you mean \"weightmap\""}},
    {"an empty map", R"({"weight_map":{}})", SLUICE_INVALID, {"weight_map", "at least one"}},
    {"a map that is a list", R"({"weight_map":["a"]})", SLUICE_INVALID, {"weight_map"}},
    {"a shard that is a number", index_of("1"), SLUICE_INVALID, {"weight_map[\"model.w\"]"}},
    {"a shard without a name", index_of("\"\""), SLUICE_INVALID, {"plain file name"}},
    {"a way out of the folder",
     index_of("\"../x.safetensors\""),
     SLUICE_INVALID,
     {"weight_map[\"model.w\"]", "plain file name", "../x"}},
    {"an absolute path",
     index_of("\"/etc/passwd.safetensors\""),
     SLUICE_INVALID,
     {"plain file name"}},
    {"a folder below", index_of("\"a/x.safetensors\""), SLUICE_INVALID, {"plain file name"}},
    {"a backslash", index_of("\"..\\\\x.safetensors\""), SLUICE_INVALID, {"plain file name"}},
    {"a zero byte", index_of("\"good\\u0000.safetensors\""), SLUICE_INVALID, {"plain file name"}},
    {"another kind of file", index_of("\"config.json\""), SLUICE_INVALID, {"plain file name"}},
    {"a shard that is not there",
     index_of("\"absent.safetensors\""),
     SLUICE_UNAVAILABLE,
     {"weight_map[\"model.w\"]", "absent.safetensors", "download"}},
    {"a shard that lacks the tensor",
     index_of("\"good.safetensors\""),
     SLUICE_INVALID,
     {"weight_map[\"model.w\"]", "good.safetensors"}},
    {"the same tensor twice",
     R"({"weight_map":{"w":"good.safetensors","w":"good.safetensors"}})",
     SLUICE_INVALID,
     {"weight_map.w is there twice"}},
};

const std::vector<hostile_case> config_cases = {
    {"empty", "", SLUICE_INVALID, {"found nothing"}},
    {"a list", "[1]", SLUICE_INVALID, {"expected an object"}},
    {"cut", "{\"hidden_size\": 4", SLUICE_INVALID, {"line 1"}},
    {"a web page", "<!DOCTYPE html>", SLUICE_INVALID, {"line 1"}},
    {"Python's NaN", "{\"a\": NaN}", SLUICE_INVALID, {"line 1"}},
    {"a key twice", "{\"a\": 1, \"a\": 2}", SLUICE_INVALID, {"a is there twice"}},
    {"deep nesting", "{\"a\":" + std::string(100000, '['), SLUICE_INVALID, {"nested"}},
};

// quantization_config of a config.json; the model has the module "m" of 8 by 8 features.
const std::vector<hostile_case> gptq_cases = {
    {"no object", "[]", SLUICE_INVALID, {"quantization_config: expected an object"}},
    {"no method", R"({"bits":4})", SLUICE_INVALID, {"\"quant_method\" in quantization_config"}},
    {"another method",
     R"({"bits":4,"quant_method":"awq"})",
     SLUICE_UNSUPPORTED,
     {"quantization_config.quant_method", "expected gptq", "awq"}},
    {"no bits", R"({"quant_method":"gptq"})", SLUICE_INVALID, {"\"bits\" in quantization_config"}},
    {"two bits",
     R"({"bits":2,"quant_method":"gptq"})",
     SLUICE_UNSUPPORTED,
     {"quantization_config.bits", "4 or 8", "2"}},
    {"three bits", R"({"bits":3,"quant_method":"gptq"})", SLUICE_UNSUPPORTED, {"bits", "3"}},
    {"five bits", R"({"bits":5,"quant_method":"gptq"})", SLUICE_INVALID, {"bits", "4 or 8"}},
    {"no bits at all", R"({"bits":0,"quant_method":"gptq"})", SLUICE_INVALID, {"bits"}},
    {"bits as text",
     R"({"bits":"4","quant_method":"gptq"})",
     SLUICE_INVALID,
     {"quantization_config.bits: expected an integer"}},
    {"groups of zero",
     R"({"bits":4,"group_size":0,"quant_method":"gptq"})",
     SLUICE_INVALID,
     {"quantization_config.group_size", "-1"}},
    {"groups below -1",
     R"({"bits":4,"group_size":-2,"quant_method":"gptq"})",
     SLUICE_INVALID,
     {"group_size", "-2"}},
    {"huge groups",
     R"({"bits":4,"group_size":9223372036854775807,"quant_method":"gptq"})",
     SLUICE_INVALID,
     {"group_size"}},
    {"an unknown format",
     R"({"bits":4,"quant_method":"gptq","checkpoint_format":"marlin"})",
     SLUICE_UNSUPPORTED,
     {"quantization_config.checkpoint_format", "marlin"}},
    {"an older key of marlin",
     R"({"bits":4,"quant_method":"gptq","is_marlin_format":true})",
     SLUICE_UNSUPPORTED,
     {"is_marlin_format"}},
    {"another packing",
     R"({"bits":4,"quant_method":"gptq","pack_dtype":"int64"})",
     SLUICE_UNSUPPORTED,
     {"pack_dtype", "int32", "int64"}},
    {"sym as a number",
     R"({"bits":4,"quant_method":"gptq","sym":1})",
     SLUICE_INVALID,
     {"quantization_config.sym: expected true or false"}},
    {"dynamic as a list",
     R"({"bits":4,"quant_method":"gptq","dynamic":["a"]})",
     SLUICE_INVALID,
     {"quantization_config.dynamic: expected an object"}},
    {"a broken pattern",
     R"({"bits":4,"quant_method":"gptq","dynamic":{"+:(":{}}})",
     SLUICE_INVALID,
     {"quantization_config", "dynamic[\"(\"]", "regular expression"}},
    {"a pattern over the limit",
     R"({"bits":4,"quant_method":"gptq","dynamic":{")" + std::string(5000, 'a') + R"(":{}}})",
     SLUICE_INVALID,
     {"at most 4096 bytes"}},
    {"a pattern that explodes when compiled",
     R"({"bits":4,"quant_method":"gptq","dynamic":{"((((a{99}){99}){99}){99}){99}":{}}})",
     SLUICE_INVALID,
     {"regular expression", "too large"}},
    {"three bits by pattern",
     R"({"bits":4,"quant_method":"gptq","dynamic":{"m":{"bits":3}}})",
     SLUICE_UNSUPPORTED,
     {"quantization_config.dynamic.m.bits", "3"}},
    {"an override that is a number",
     R"({"bits":4,"quant_method":"gptq","dynamic":{"m":4}})",
     SLUICE_INVALID,
     {"dynamic.m: expected an object"}},
    {"modules as a text",
     R"({"bits":4,"quant_method":"gptq","modules_in_block_to_quantize":"q_proj"})",
     SLUICE_INVALID,
     {"modules_in_block_to_quantize: expected an array"}},
    {"modules as numbers",
     R"({"bits":4,"quant_method":"gptq","modules_in_block_to_quantize":[[1]]})",
     SLUICE_INVALID,
     {"modules_in_block_to_quantize[0][0]: expected a text"}},
    {"a quantized module that is excluded",
     R"({"bits":4,"quant_method":"gptq","dynamic":{"-:m":{}}})",
     SLUICE_INVALID,
     {"m.qweight", "not quantized", "dynamic"}},
    {"other bits than the tensors have",
     R"({"bits":8,"group_size":-1,"quant_method":"gptq"})",
     SLUICE_INVALID,
     {"model.safetensors", "\"m.qweight\"", "[2, 8]", "found [1, 8]"}},
    {"other groups than the tensors have",
     R"({"bits":4,"group_size":4,"quant_method":"gptq"})",
     SLUICE_INVALID,
     {"model.safetensors", "\"m.qzeros\"", "[2, 1]", "found [1, 1]"}},
};

void check_cases(const std::vector<hostile_case>& cases, const std::string& file_name,
                 const std::function<void(const test::temporary_directory&)>& action) {
    for (const hostile_case& item : cases) {
        INFO(std::string(item.what));
        test::temporary_directory folder;
        folder.write("config.json", "{}");
        folder.write("good.safetensors", one(entry("\"F32\"", "[2]", "[0,8]")));
        folder.write(file_name, item.content);
        std::vector<std::string> says = item.says;
        says.push_back(folder.path().string());
        says.push_back(file_name);
        check_error([&] { action(folder); }, item.status, says);
    }
}

struct gptq_tensor {
    std::string name;
    sluice_element_type type;
    std::vector<int64_t> shape;
};

void write_gptq_model(const std::filesystem::path& path, const std::vector<gptq_tensor>& tensors,
                      int32_t value = 0) {
    safetensors_writer writer(path);
    for (const gptq_tensor& tensor : tensors) {
        writer.declare(tensor.name, tensor.type, tensor.shape);
    }
    for (const gptq_tensor& tensor : tensors) {
        std::vector<int32_t> values(64, value);
        int64_t bytes = tensor.type == SLUICE_F16 ? 2 : 4;
        for (int64_t dimension : tensor.shape) bytes *= dimension;
        writer.append(tensor.name, std::as_bytes(std::span(values)).first(size_t(bytes)));
    }
    writer.finish();
}

const std::vector<gptq_tensor> good_module = {{"m.qweight", SLUICE_I32, {1, 8}},
                                              {"m.qzeros", SLUICE_I32, {1, 1}},
                                              {"m.scales", SLUICE_F16, {1, 8}},
                                              {"m.g_idx", SLUICE_I32, {8}}};

std::string config_with(const std::string& quantization_config) {
    return "{\"quantization_config\":" + quantization_config + "}";
}

} // namespace

TEST_CASE("malformed safetensors files") {
    check_cases(safetensors_cases, "model.safetensors",
                [](const auto& folder) { open_checkpoint(folder.path()); });
}

TEST_CASE("malformed indexes of sharded checkpoints") {
    check_cases(index_cases, "model.safetensors.index.json",
                [](const auto& folder) { open_checkpoint(folder.path()); });
}

TEST_CASE("malformed configurations") {
    for (const char* name : {"config.json", "generation_config.json"}) {
        check_cases(config_cases, name, [](const auto& folder) { open_checkpoint(folder.path()); });
    }
}

TEST_CASE("malformed shards are named, not the index") {
    test::temporary_directory folder;
    folder.write("config.json", "{}");
    folder.write("model.safetensors.index.json", index_of("\"bad.safetensors\""));
    folder.write("bad.safetensors", with_length("{}", 5));
    check_error([&] { open_checkpoint(folder.path()); }, SLUICE_INVALID, {"bad.safetensors"});
}

TEST_CASE("folders that are no model") {
    test::temporary_directory folder;
    auto open = [](std::filesystem::path path) { return [=] { open_checkpoint(path); }; };
    check_error(open(folder.path() / "absent"), SLUICE_UNAVAILABLE, {"absent", "no such folder"});
    check_error(open(folder.path()), SLUICE_UNAVAILABLE, {"config.json", "no such file"});
    check_error(open(folder.write("model.gguf", "x")), SLUICE_INVALID,
                {"model.gguf", "found a file"});
    folder.write("config.json", "{}");
    check_error(open(folder.path()), SLUICE_UNAVAILABLE,
                {"model.safetensors", "Hugging Face layout"});
    folder.write("pytorch_model.bin", "x");
    check_error(open(folder.path()), SLUICE_UNAVAILABLE, {"pytorch_model.bin is there"});
    std::filesystem::create_directory(folder.path() / "model.safetensors");
    check_error(open(folder.path()), SLUICE_INVALID, {"model.safetensors", "directory"});
}

TEST_CASE("malformed GPTQ configurations") {
    for (const hostile_case& item : gptq_cases) {
        INFO(std::string(item.what));
        test::temporary_directory folder;
        write_gptq_model(folder.path() / "model.safetensors", good_module);
        folder.write("config.json", config_with(item.content));
        std::vector<std::string> says = item.says;
        says.push_back(folder.path().string());
        auto open = [&] {
            auto model = open_checkpoint(folder.path());
            open_gptq_module(*model, *gptq_config::of(*model), "m", 8, 8);
        };
        check_error(open, item.status, says);
    }
}

TEST_CASE("malformed GPTQ tensors") {
    struct {
        const char* what;
        size_t changed; // of good_module
        gptq_tensor tensor;
        std::vector<std::string> says;
    } cases[] = {
        {"words as floats", 0, {"m.qweight", SLUICE_F32, {1, 8}}, {"\"m.qweight\"", "i32", "f32"}},
        {"a transposed weight", 0, {"m.qweight", SLUICE_I32, {8, 1}}, {"m.qweight", "[8, 1]"}},
        {"no zero points", 1, {"m.zeros", SLUICE_I32, {1, 1}}, {"m.qzeros", "did you mean"}},
        {"zero points as floats", 1, {"m.qzeros", SLUICE_F32, {1, 1}}, {"\"m.qzeros\"", "i32"}},
        {"scales as integers",
         2,
         {"m.scales", SLUICE_I32, {1, 8}},
         {"\"m.scales\"", "f16 or bf16"}},
        {"no scales", 2, {"m.scale", SLUICE_F16, {1, 8}}, {"m.scales"}},
        {"too few groups in g_idx", 3, {"m.g_idx", SLUICE_I32, {4}}, {"m.g_idx", "[8]", "[4]"}},
        {"g_idx as floats", 3, {"m.g_idx", SLUICE_F32, {8}}, {"\"m.g_idx\"", "i32"}},
    };
    for (auto& item : cases) {
        INFO(std::string(item.what));
        test::temporary_directory folder;
        std::vector<gptq_tensor> tensors = good_module;
        tensors[item.changed] = item.tensor;
        write_gptq_model(folder.path() / "model.safetensors", tensors);
        folder.write("config.json", config_with(R"({"bits":4,"quant_method":"gptq"})"));
        auto model = open_checkpoint(folder.path());
        gptq_config config = *gptq_config::of(*model);
        item.says.push_back(folder.path().string());
        check_error([&] { open_gptq_module(*model, config, "m", 8, 8); }, SLUICE_INVALID,
                    item.says);
    }
}

TEST_CASE("GPTQ group numbers out of range, and features that do not pack") {
    for (int32_t group : {1, -1, INT32_MAX}) {
        test::temporary_directory folder;
        write_gptq_model(folder.path() / "model.safetensors", good_module, group);
        folder.write("config.json", config_with(R"({"bits":4,"quant_method":"gptq"})"));
        auto model = open_checkpoint(folder.path());
        gptq_config config = *gptq_config::of(*model);
        check_error([&] { open_gptq_module(*model, config, "m", 8, 8); }, SLUICE_INVALID,
                    {"model.safetensors", "\"m.g_idx\"[0]", "0 to 0", std::to_string(group)});
        check_error([&] { open_gptq_module(*model, config, "m", 8, 12); }, SLUICE_INVALID,
                    {"\"m\"", "multiples of 8", "12"});
        check_error([&] { open_gptq_module(*model, config, "m", 0, 8); }, SLUICE_INVALID,
                    {"\"m\""});
    }
}
