# Sources of the matrix kernels and the flags of the files that need an instruction set. Include it
# and add SLUICE_KERNEL_SOURCES to the target; SLUICE_KERNEL_DEFINITIONS are its compile definitions.
# Which set runs is chosen at run time, so the target itself must not be built with -march flags.
# Source properties reach only targets of the folder that includes this file.
set(SLUICE_KERNEL_SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/cpu_features.cpp
    ${CMAKE_CURRENT_LIST_DIR}/integer_matmul.cpp
    ${CMAKE_CURRENT_LIST_DIR}/integer_tile_plain.cpp
    ${CMAKE_CURRENT_LIST_DIR}/matmul.cpp
    ${CMAKE_CURRENT_LIST_DIR}/measure.cpp
    ${CMAKE_CURRENT_LIST_DIR}/packed_matrix.cpp
    ${CMAKE_CURRENT_LIST_DIR}/packed_rows.cpp
    ${CMAKE_CURRENT_LIST_DIR}/row_kernels.cpp
    ${CMAKE_CURRENT_LIST_DIR}/row_kernels_plain.cpp
    ${CMAKE_CURRENT_LIST_DIR}/tile_plain.cpp)
set(SLUICE_KERNEL_DEFINITIONS)

# Kernels are optimised in debug builds too: a model is unusable without.
set(sluice_kernel_flags -O3)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 warns about its own AVX-512 header (GCC bug 105593).
    list(APPEND sluice_kernel_flags -Wno-maybe-uninitialized -Wno-uninitialized)
endif()
# Without these the compiler may not turn choices and exponentials into vectors.
set(sluice_row_flags -fno-trapping-math -fno-math-errno)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Vectors wider than the registers are passed between functions of one file alone.
    list(APPEND sluice_row_flags -Wno-psabi)
endif()
set_source_files_properties(
    ${CMAKE_CURRENT_LIST_DIR}/integer_matmul.cpp ${CMAKE_CURRENT_LIST_DIR}/integer_tile_plain.cpp
    ${CMAKE_CURRENT_LIST_DIR}/tile_plain.cpp
    PROPERTIES COMPILE_OPTIONS "${sluice_kernel_flags}")
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/row_kernels_plain.cpp
    PROPERTIES COMPILE_OPTIONS "${sluice_kernel_flags};${sluice_row_flags}")

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
    set(SLUICE_KERNEL_DEFINITIONS SLUICE_KERNELS_X86=1)
    list(APPEND SLUICE_KERNEL_SOURCES
        ${CMAKE_CURRENT_LIST_DIR}/integer_tile_avx2.cpp
        ${CMAKE_CURRENT_LIST_DIR}/integer_tile_vnni.cpp
        ${CMAKE_CURRENT_LIST_DIR}/measure_avx2.cpp
        ${CMAKE_CURRENT_LIST_DIR}/measure_avx512.cpp
        ${CMAKE_CURRENT_LIST_DIR}/row_kernels_avx2.cpp
        ${CMAKE_CURRENT_LIST_DIR}/row_kernels_avx512.cpp
        ${CMAKE_CURRENT_LIST_DIR}/tile_avx2.cpp
        ${CMAKE_CURRENT_LIST_DIR}/tile_avx512.cpp
        ${CMAKE_CURRENT_LIST_DIR}/tile_avx512_bf16.cpp)
    set(sluice_avx2_flags ${sluice_kernel_flags} -mavx2 -mfma -mf16c)
    set(sluice_avx512_flags
        ${sluice_avx2_flags} -mavx512f -mavx512bw -mavx512vl -mavx512dq)
    set_source_files_properties(
        ${CMAKE_CURRENT_LIST_DIR}/integer_tile_avx2.cpp
        ${CMAKE_CURRENT_LIST_DIR}/measure_avx2.cpp ${CMAKE_CURRENT_LIST_DIR}/tile_avx2.cpp
        PROPERTIES COMPILE_OPTIONS "${sluice_avx2_flags}")
    set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/row_kernels_avx2.cpp
        PROPERTIES COMPILE_OPTIONS "${sluice_avx2_flags};${sluice_row_flags}")
    set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/row_kernels_avx512.cpp
        PROPERTIES COMPILE_OPTIONS
        "${sluice_avx512_flags};${sluice_row_flags};-mprefer-vector-width=512")
    set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/tile_avx512.cpp
        PROPERTIES COMPILE_OPTIONS "${sluice_avx512_flags}")
    set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/integer_tile_vnni.cpp
        PROPERTIES COMPILE_OPTIONS "${sluice_avx512_flags};-mavx512vnni")
    set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/tile_avx512_bf16.cpp
        PROPERTIES COMPILE_OPTIONS "${sluice_avx512_flags};-mavx512bf16")
    set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/measure_avx512.cpp
        PROPERTIES COMPILE_OPTIONS "${sluice_avx512_flags};-mavx512bf16;-mavx512vnni")
endif()
