#!/usr/bin/env python3
"""Writes the GPTQ fixtures beside this file: a packer that shares no code with sluice.

Needs numpy and Hugging Face's safetensors. Each folder is a checkpoint of one checkpoint_format with
eight modules: 4 and 8 bits, symmetric and asymmetric, with and without activation order, expressed
through the `dynamic` map of quantization_config. expected.safetensors holds, for each module, the
values before packing (q [N, K], zeros [N, groups]) and the weight they stand for (weight [N, K]).
"""
import json
import pathlib

import numpy
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
N, K = 8, 40  # output and input features; 40 is no multiple of the group size: the last is short
GROUP_SIZE = 16
GROUPS = -(-K // GROUP_SIZE)


def pack(values, bits):
    """uint8 [rows, columns], packed along the rows into int32 [rows * bits / 32, columns]."""
    shifts = numpy.arange(bits)[None, :, None]
    single_bits = (values[:, None, :].astype(numpy.uint8) >> shifts) & 1  # [rows, bits, columns]
    stream = single_bits.reshape(-1, 32, values.shape[1])
    packed = numpy.packbits(stream.astype(numpy.uint8), axis=1, bitorder="little")
    packed = numpy.ascontiguousarray(packed.transpose(0, 2, 1))  # [words, columns, 4 bytes]
    return packed.view("<i4")[:, :, 0]


def quantize(weight, g_idx, bits, symmetric):
    levels = 2**bits - 1
    scales = numpy.zeros((N, GROUPS), numpy.float32)
    zeros = numpy.zeros((N, GROUPS), numpy.int64)
    for group in range(GROUPS):
        part = weight[:, g_idx == group]
        if symmetric:
            scales[:, group] = 2 * numpy.abs(part).max(axis=1) / levels
            zeros[:, group] = (levels + 1) // 2
        else:
            low = numpy.minimum(part.min(axis=1), -1e-3)
            high = numpy.maximum(part.max(axis=1), 1e-3)
            scales[:, group] = (high - low) / levels
            zeros[:, group] = numpy.clip(numpy.round(-low / scales[:, group]), 1, levels)
    # Values that float16, bfloat16 and float32 all hold exactly.
    scales = (scales.view(numpy.uint32) & numpy.uint32(0xFFFF0000)).view(numpy.float32)
    q = numpy.clip(numpy.round(weight / scales[:, g_idx]) + zeros[:, g_idx], 0, levels)
    return q.astype(numpy.uint8), zeros.astype(numpy.uint8), scales


def main():
    random = numpy.random.default_rng(20240607)
    for form in ("gptq", "gptq_v2"):
        tensors, expected, dynamic = {}, {}, {"-:.*gate$": {}}
        for bits in (4, 8):
            for symmetric in (True, False):
                for ordered in (False, True):
                    name = "model.layers.0.bits{}_{}_{}".format(
                        bits, "symmetric" if symmetric else "asymmetric",
                        "ordered" if ordered else "plain")
                    weight = random.normal(0.01, 0.05, (N, K)).astype(numpy.float32)
                    g_idx = numpy.arange(K) // GROUP_SIZE
                    if ordered:
                        g_idx = g_idx[random.permutation(K)]
                    q, zeros, scales = quantize(weight, g_idx, bits, symmetric)
                    if form == "gptq_v2" and not symmetric:
                        zeros[0, 0] = 0  # only this form can store it
                    stored_zeros = zeros.astype(numpy.int64) - (1 if form == "gptq" else 0)
                    tensors[name + ".qweight"] = pack(q.T, bits)
                    tensors[name + ".qzeros"] = numpy.ascontiguousarray(pack(stored_zeros, bits).T)
                    kind = numpy.float16 if bits == 4 else numpy.float32
                    tensors[name + ".scales"] = numpy.ascontiguousarray(scales.T.astype(kind))
                    tensors[name + ".g_idx"] = g_idx.astype(numpy.int32)
                    stored = scales.astype(kind).astype(numpy.float32)
                    expected[name + ".q"] = q
                    expected[name + ".zeros"] = zeros
                    expected[name + ".weight"] = stored[:, g_idx] * (
                        q.astype(numpy.float32) - zeros[:, g_idx].astype(numpy.float32))
                    override = {}
                    if bits != 4:
                        override["bits"] = bits
                    if not symmetric:
                        override["sym"] = False
                    if ordered:
                        override["desc_act"] = True
                    if override:
                        dynamic["+:" + name.replace(".", "\\.") + "$"] = override
        tensors["model.layers.0.gate.weight"] = numpy.arange(12, dtype=numpy.float16).reshape(3, 4)
        folder = HERE / form
        folder.mkdir(exist_ok=True)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        save_file(expected, folder / "expected.safetensors")
        config = {
            "model_type": "llama",
            "quantization_config": {
                "bits": 4, "group_size": GROUP_SIZE, "desc_act": False, "sym": True,
                "lm_head": False, "quant_method": "gptq", "checkpoint_format": form,
                "pack_dtype": "int32", "dynamic": dynamic,
            },
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


main()
