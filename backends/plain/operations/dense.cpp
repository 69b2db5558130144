#include "operations.hpp"

#include <numbers>

namespace sluice::plain {

using plugin::tensor;

float dot(const float* a, const float* b, int64_t count) {
    float sums[16] = {};
    int64_t i = 0;
    for (; i + 16 <= count; i += 16)
        for (int lane = 0; lane < 16; ++lane) sums[lane] += a[i + lane] * b[i + lane];
    for (int lane = 0; i < count; ++i, ++lane) sums[lane] += a[i] * b[i];
    for (int width = 8; width > 0; width /= 2)
        for (int lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
    return sums[0];
}

namespace {

int64_t rows_of_output(const call& c) { return c.out(0).row_count(); }
int64_t elements_of_output(const call& c) { return c.out(0).element_count(); }

void embed(const call& c, int64_t begin, int64_t end) {
    const auto& w = c.weight(1);
    const float given = c.attributes<sluice_embed_attributes>().scale;
    const float scale = given == 0.0f ? 1.0f : given;
    for (int64_t t = begin; t < end; ++t) {
        const int32_t id = c.in(0).as<int32_t>()[t];
        const bool known = id >= 0 && id < w.row_count;
        for (int64_t d = 0; d < w.column_count; ++d)
            put(c.out(0), t * w.column_count + d,
                known ? scale * w.matrix(0)[id * w.column_count + d] : 0.0f);
    }
}

void rms_norm(const call& c, int64_t begin, int64_t end) {
    const auto& a = c.attributes<sluice_rms_norm_attributes>();
    const int64_t width = c.in(0).width();
    const int64_t group = a.group_width == 0 ? width : a.group_width;
    std::vector<float> u(static_cast<size_t>(width));
    for (int64_t row = begin; row < end; ++row) {
        for (int64_t d = 0; d < width; ++d) {
            const int64_t i = row * width + d;
            float value = get(c.in(0), i);
            if (c.has_in(2)) value += get(c.in(2), i);
            if (c.has_out(1)) {
                put(c.out(1), i, value);
                value = get(c.out(1), i);
            }
            u[static_cast<size_t>(d)] = value;
        }
        for (int64_t first = 0; first < width; first += group) {
            double squares = 0;
            for (int64_t d = first; d < first + group; ++d) {
                const double value = u[static_cast<size_t>(d)];
                squares += value * value;
            }
            const auto factor = static_cast<float>(
                1.0
                / std::sqrt(squares / static_cast<double>(group) + static_cast<double>(a.epsilon)));
            for (int64_t d = 0; d < group; ++d)
                put(c.out(0), row * width + first + d,
                    u[static_cast<size_t>(first + d)] * factor
                        * (get(c.in(1), d) + a.weight_offset));
        }
    }
}

void layer_norm(const call& c, int64_t begin, int64_t end) {
    const float epsilon = c.attributes<sluice_layer_norm_attributes>().epsilon;
    const int64_t width = c.in(0).width();
    for (int64_t row = begin; row < end; ++row) {
        double mean = 0;
        for (int64_t d = 0; d < width; ++d) mean += get(c.in(0), row * width + d);
        mean /= static_cast<double>(width);
        double variance = 0;
        for (int64_t d = 0; d < width; ++d) {
            const double distance = get(c.in(0), row * width + d) - mean;
            variance += distance * distance;
        }
        const double factor =
            1.0 / std::sqrt(variance / static_cast<double>(width) + static_cast<double>(epsilon));
        for (int64_t d = 0; d < width; ++d) {
            const auto normal = static_cast<float>((get(c.in(0), row * width + d) - mean) * factor);
            put(c.out(0), row * width + d,
                normal * get(c.in(1), d) + (c.has_in(2) ? get(c.in(2), d) : 0.0f));
        }
    }
}

void linear(const call& c, int64_t begin, int64_t end) {
    const auto& w = c.weight(1);
    const int64_t n_count = w.row_count;
    const int64_t k_count = w.column_count;
    std::vector<float> x(static_cast<size_t>(k_count));
    int64_t row_held = -1;
    for (int64_t i = begin; i < end; ++i) {
        const int64_t m = i / n_count;
        const int64_t n = i % n_count;
        if (m != row_held) get_row(c.in(0), m * k_count, k_count, x.data());
        row_held = m;
        const float bias = c.has_in(2) ? get(c.in(2), n) : 0.0f;
        put(c.out(0), i, dot(x.data(), w.matrix(0) + n * k_count, k_count) + bias);
    }
}

void rope(const call& c, int64_t begin, int64_t end) {
    const auto& a = c.attributes<sluice_rope_attributes>();
    const auto frequencies = rope_frequencies(a, c.operation().table);
    const double magnitude = a.magnitude == 0.0f ? 1.0 : static_cast<double>(a.magnitude);
    const int64_t heads = c.in(0).shape[1];
    const int64_t width = c.in(0).shape[2];
    const int64_t half = a.dimension / 2;
    for (int64_t t = begin; t < end; ++t) {
        const double position = c.in(1).as<int32_t>()[t];
        for (int64_t h = 0; h < heads; ++h) {
            const int64_t first = (t * heads + h) * width;
            for (int64_t d = a.dimension; d < width; ++d)
                put(c.out(0), first + d, get(c.in(0), first + d));
            for (int64_t i = 0; i < half; ++i) {
                const double angle =
                    (a.inverse != 0 ? -1.0 : 1.0) * position * frequencies[static_cast<size_t>(i)];
                const double cosine = std::cos(angle) * magnitude;
                const double sine = std::sin(angle) * magnitude;
                const int64_t at_u = first + (a.interleaved != 0 ? 2 * i : i);
                const int64_t at_v = first + (a.interleaved != 0 ? 2 * i + 1 : i + half);
                const double u = get(c.in(0), at_u);
                const double v = get(c.in(0), at_v);
                put(c.out(0), at_u, static_cast<float>(u * cosine - v * sine));
                put(c.out(0), at_v, static_cast<float>(v * cosine + u * sine));
            }
        }
    }
}

float activate(uint32_t function, float x) {
    const double v = x;
    switch (function) {
    case SLUICE_ACTIVATION_SILU:
        return static_cast<float>(v / (1.0 + std::exp(-v)));
    case SLUICE_ACTIVATION_GELU_ERF:
        return static_cast<float>(0.5 * v * (1.0 + std::erf(v / std::numbers::sqrt2)));
    case SLUICE_ACTIVATION_GELU_TANH:
        return static_cast<float>(
            0.5 * v
            * (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (v + 0.044715 * v * v * v))));
    case SLUICE_ACTIVATION_RELU:
        return std::max(x, 0.0f);
    case SLUICE_ACTIVATION_RELU_SQUARED:
        return std::max(x, 0.0f) * std::max(x, 0.0f);
    default:
        plugin::fail(SLUICE_UNSUPPORTED, "activation ", function, " is not known here");
    }
}

void activation(const call& c, int64_t begin, int64_t end) {
    const auto& a = c.attributes<sluice_activation_attributes>();
    for (int64_t i = begin; i < end; ++i) put(c.out(0), i, activate(a.activation, get(c.in(0), i)));
}

void gated_activation(const call& c, int64_t begin, int64_t end) {
    const auto& a = c.attributes<sluice_activation_attributes>();
    const int64_t width = c.out(0).width();
    for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i / width;
        const int64_t f = i % width;
        float gate = 0;
        float up = 0;
        if (a.gate_layout == SLUICE_GATE_SPLIT) {
            gate = get(c.in(0), i);
            up = get(c.in(1), i);
        } else if (a.gate_layout == SLUICE_GATE_CONCAT) {
            gate = get(c.in(0), row * 2 * width + f);
            up = get(c.in(0), row * 2 * width + width + f);
        } else {
            gate = get(c.in(0), 2 * i);
            up = get(c.in(0), 2 * i + 1);
        }
        if (a.activation != SLUICE_ACTIVATION_SWIGLU_OAI) {
            put(c.out(0), i, activate(a.activation, gate) * up);
            continue;
        }
        if (a.clamp > 0.0f) {
            gate = std::min(gate, a.clamp);
            up = std::clamp(up, -a.clamp, a.clamp);
        }
        const double g = gate;
        put(c.out(0), i,
            static_cast<float>(g / (1.0 + std::exp(-static_cast<double>(a.alpha) * g))
                               * (static_cast<double>(up) + 1.0)));
    }
}

} // namespace

kernel find_dense_kernel(uint32_t kind) {
    switch (kind) {
    case SLUICE_OP_EMBED:
        return {rows_of_output, embed};
    case SLUICE_OP_RMS_NORM:
        return {rows_of_output, rms_norm};
    case SLUICE_OP_LAYER_NORM:
        return {rows_of_output, layer_norm};
    case SLUICE_OP_LINEAR:
        return {elements_of_output, linear};
    case SLUICE_OP_ROPE:
        return {[](const call& c) { return c.out(0).shape[0]; }, rope};
    case SLUICE_OP_ACTIVATION:
        return {elements_of_output, activation};
    case SLUICE_OP_GATED_ACTIVATION:
        return {elements_of_output, gated_activation};
    default:
        return {};
    }
}

} // namespace sluice::plain
