// Runs a fuzz target without libFuzzer: over every seed of the folders or files that it is given,
// and over mutations of each seed that are the same in every run.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using bytes = std::vector<std::uint8_t>;

constexpr int mutations_per_seed = 400;
constexpr std::size_t seed_bytes_max = 1 << 20;

bytes read_seed(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<std::filesystem::path> seeds_of(int count, char** arguments) {
    std::vector<std::filesystem::path> seeds;
    for (int index = 1; index < count; ++index) {
        const std::filesystem::path path = arguments[index];
        if (!std::filesystem::is_directory(path)) {
            seeds.push_back(path);
            continue;
        }
        for (const auto& entry : std::filesystem::directory_iterator(path)) {
            if (entry.is_regular_file()) seeds.push_back(entry.path());
        }
    }
    std::sort(seeds.begin(), seeds.end());
    return seeds;
}

// Uniform over [0, limit). std::uniform_int_distribution differs between standard libraries.
std::size_t below(std::mt19937_64& random, std::size_t limit) {
    return static_cast<std::size_t>(random() % limit);
}

// The damage that finds most parser defects: cut short, a bit flipped, a boundary value in place of
// one to eight bytes, a stretch removed or doubled, or two seeds spliced.
void mutate(bytes& input, const bytes& other, std::mt19937_64& random) {
    static constexpr std::uint8_t boundary[] = {0x00, 0xff, 0x7f, 0x80, '"',
                                                '{',  '[',  '\n', '9',  '-'};
    if (input.empty()) input.push_back(0);
    const std::size_t at = below(random, input.size());
    const std::size_t length = 1 + below(random, std::min<std::size_t>(input.size() - at, 64));
    const auto first = input.begin() + static_cast<std::ptrdiff_t>(at);
    const auto last = first + static_cast<std::ptrdiff_t>(length);
    switch (below(random, 6)) {
    case 0:
        input.resize(at);
        break;
    case 1:
        input[at] ^= static_cast<std::uint8_t>(1u << below(random, 8));
        break;
    case 2: {
        const std::uint8_t value = boundary[below(random, std::size(boundary))];
        std::fill(first, first + static_cast<std::ptrdiff_t>(std::min<std::size_t>(length, 8)),
                  value);
        break;
    }
    case 3:
        input.erase(first, last);
        break;
    case 4: {
        const bytes stretch(first, last);
        input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), stretch.begin(),
                     stretch.end());
        break;
    }
    default: {
        input.resize(at);
        const std::size_t from = below(random, other.size() + 1);
        input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
    }
    }
}

} // namespace

int main(int count, char** arguments) {
    const std::vector<std::filesystem::path> paths = seeds_of(count, arguments);
    std::vector<bytes> seeds;
    for (const auto& path : paths) seeds.push_back(read_seed(path));
    if (seeds.empty()) {
        std::fprintf(stderr, "expected at least one seed file in the folders given, found none\n");
        return 1;
    }

    std::mt19937_64 random(20240229);
    std::size_t inputs = 0;
    for (std::size_t index = 0; index < seeds.size(); ++index) {
        LLVMFuzzerTestOneInput(seeds[index].data(), seeds[index].size());
        ++inputs;
        if (seeds[index].size() > seed_bytes_max) continue;
        for (int round = 0; round < mutations_per_seed; ++round) {
            bytes input = seeds[index];
            const std::size_t steps = 1 + below(random, 4);
            for (std::size_t step = 0; step < steps; ++step) {
                mutate(input, seeds[below(random, seeds.size())], random);
            }
            LLVMFuzzerTestOneInput(input.data(), input.size());
            ++inputs;
        }
    }
    std::printf("%zu seeds, %zu inputs\n", seeds.size(), inputs);
    return 0;
}
