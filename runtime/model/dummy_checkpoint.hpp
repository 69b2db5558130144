// Made-up weights for measuring speed: any config.json runs without its weights.
#pragma once

#include "model/checkpoint.hpp"

#include <sluice/abi/tensor.h>

#include <filesystem>
#include <memory>

namespace sluice {

// A checkpoint that answers any tensor() with deterministic pseudo-random values (near normal, mean
// 0, standard deviation 0.02, of embeddings 128; rank-1 tensors whose name has "norm" in it: around
// 1), stored as `element_type` (f32, f16 or bf16). `path` is a folder with config.json, or
// config.json itself. Embeddings outweigh what layers add, so that different tokens choose
// different experts.
//
// Memory: all tensors are windows of one shared buffer, as large as the largest asked for, each at
// an offset that follows from its name. So a model of many gigabytes costs the source memory of its
// largest tensor, values repeat between tensors, and a backend that reads weights in place instead
// of preparing its own copy would measure a cache that no real model has.
//
// With a GPTQ `quantization_config` in config.json, the modules that it names are in that layout:
// random codes, zero points in the middle, and scales that give the same deviation. It must leave
// out routers itself ("dynamic": {"-:.*mlp.gate$": {}}); norms and embeddings never are quantized.
//
// contains() follows one rule, since there is no list of names to look in: true for names that end
// in ".weight", except lm_head.weight when config.json ties the embeddings, and for the parts of a
// quantized module; false for all others (".bias", fused experts, ...). A tensor that contains()
// denies is still made when asked for, such as biases that the configuration demands.
//
// Fails with EXHAUSTED for tensors over 16 GiB: such a config.json is a mistake or hostile.
std::shared_ptr<const checkpoint> make_dummy_checkpoint(const std::filesystem::path& path,
                                                        sluice_element_type element_type);

} // namespace sluice
