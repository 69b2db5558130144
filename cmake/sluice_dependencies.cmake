find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(nlohmann_json 3.10 REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(Boost 1.74 REQUIRED) # Boost.DLL, headers only
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
find_path(SLUICE_TOMLPLUSPLUS_INCLUDE toml++/toml.h REQUIRED)
find_package(CLI11 REQUIRED)
if(SLUICE_TESTS)
    find_path(SLUICE_DOCTEST_INCLUDE doctest/doctest.h REQUIRED)
endif()

# Optional: a missing one leaves out what needs it.
find_package(dnnl 2.6 QUIET)
pkg_check_modules(OPENBLAS QUIET IMPORTED_TARGET openblas)

# nvcc takes none of the sanitizers' flags.
if(NOT SLUICE_SANITIZE)
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
        enable_language(CUDA)
        find_package(CUDAToolkit 12.0 QUIET)
    endif()
endif()
