#include "plain_runner.hpp"

#include "base/element_type.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>

namespace sluice::test {

sluice_host one_worker_host() {
    auto table = SLUICE_INIT(sluice_host);
    table.allocate = [](void*, uint64_t size_bytes, uint64_t alignment) {
        return std::aligned_alloc(alignment, (size_bytes + alignment - 1) / alignment * alignment);
    };
    table.release = [](void*, void* memory, uint64_t) { std::free(memory); };
    table.worker_count = [](void*) { return 1u; };
    table.barrier_wait = [](sluice_barrier*) {};
    table.team_run = [](void*, sluice_team_task* task) {
        task->run(task->context, 0, 1, nullptr);
        if (task->finished != nullptr) task->finished(task->context);
    };
    table.cancelled = [](void*) { return 0u; };
    return table;
}

plain_runner::plain_runner(const program& source, const extent_sizes& extents, uint32_t block_count)
    : source_(source), parsed_(source.view()), host_table_(one_worker_host()), host_(&host_table_) {
    for (const program_value& value : source_.values()) {
        plugin::tensor tensor;
        const std::vector<int64_t> shape = evaluate(value.dimensions, extents);
        tensor.type = value.element_type;
        tensor.rank = static_cast<uint32_t>(shape.size());
        std::copy(shape.begin(), shape.end(), tensor.shape.begin());
        const bool has_bytes =
            value.kind == SLUICE_VALUE_INPUT || value.kind == SLUICE_VALUE_RESULT;
        // What an operation leaves unwritten must not look like a result.
        memory_.emplace_back(has_bytes ? *tensor_bytes(value.element_type, shape) : 0,
                             std::byte{0xcd});
        tensor.data = memory_.back().data();
        tensors_.push_back(tensor);
    }
    if (!parsed_.states.empty()) {
        cache_ =
            std::make_unique<plugin::host_cache>(host_, parsed_.states, std::span(&block_count, 1));
    }
}

size_t plain_runner::element_count(value_number number) const {
    return static_cast<size_t>(tensors_[number].element_count());
}

void plain_runner::set_bytes(value_number number, const void* values, size_t count,
                             sluice_element_type type) {
    REQUIRE(tensors_[number].type == type);
    REQUIRE(element_count(number) == count);
    std::memcpy(memory_[number].data(), values, memory_[number].size());
}

void plain_runner::set(const std::string& name, const floats& values) {
    set_bytes(source_.at(name), values.data(), values.size(), SLUICE_F32);
}

void plain_runner::set(const std::string& name, const integers& values) {
    set_bytes(source_.at(name), values.data(), values.size(), SLUICE_I32);
}

void plain_runner::set_weight(const std::string& name, const floats& values) {
    const value_number number = source_.at(name);
    const plugin::tensor& tensor = tensors_[number];
    REQUIRE(element_count(number) == values.size());
    auto weight = std::make_unique<plain::float_weight>();
    weight->values = plugin::memory(host_, values.size() * sizeof(float));
    std::memcpy(weight->values.as<float>(), values.data(), values.size() * sizeof(float));
    const uint32_t rank = tensor.rank;
    const bool is_stack =
        rank == 3 || (rank == 2 && source_.value(number).weight_role == SLUICE_ROLE_VECTOR);
    weight->matrix_count = is_stack ? tensor.shape[0] : 1;
    weight->row_count = is_stack ? tensor.shape[1] : tensor.shape[0];
    weight->column_count = rank == 3                ? tensor.shape[2]
                           : rank == 2 && !is_stack ? tensor.shape[1]
                                                    : 1;
    weights_[number] = std::move(weight);
}

void plain_runner::run(uint32_t worker_count) {
    std::vector<const plain::float_weight*> weights(source_.values().size(), nullptr);
    for (const auto& [number, weight] : weights_) weights[number] = weight.get();
    const auto tensor_of = [this](uint32_t number) -> const plugin::tensor& {
        return tensors_[number];
    };
    for (const plugin::operation& operation : parsed_.operations) {
        const plain::step step(parsed_, operation, cache_.get(), tensor_of, weights);
        for (uint32_t worker = 0; worker < worker_count; ++worker) {
            step.run({worker, worker_count, {host_table_, nullptr}});
        }
    }
}

floats plain_runner::float_values(value_number number) const {
    REQUIRE(tensors_[number].type == SLUICE_F32);
    const float* begin = tensors_[number].as<float>();
    return {begin, begin + element_count(number)};
}

integers plain_runner::integer_values(value_number number) const {
    REQUIRE(tensors_[number].type == SLUICE_I32);
    const int32_t* begin = tensors_[number].as<int32_t>();
    return {begin, begin + element_count(number)};
}

} // namespace sluice::test
