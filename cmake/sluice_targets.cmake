include(${CMAKE_CURRENT_LIST_DIR}/sluice_plugin.cmake) # sluice_add_plugin

# sluice_leave_out(<what> <why>): a line in the configure summary.
function(sluice_leave_out what why)
    set_property(GLOBAL APPEND PROPERTY SLUICE_LEFT_OUT "${what}: ${why}")
endfunction()

# sluice_add_test(<name> SOURCES <file>... [LIBRARIES <target>...] [LABELS <label>...]
#                 [DEPENDS <target>...] [TIMEOUT <seconds>])
#
# A doctest executable. DEPENDS names plugins that it loads at run time. A test with the label
# "timing" runs alone.
function(sluice_add_test name)
    cmake_parse_arguments(PARSE_ARGV 1 test "" "TIMEOUT" "SOURCES;LIBRARIES;LABELS;DEPENDS")
    add_executable(test-${name} ${test_SOURCES})
    target_link_libraries(test-${name} PRIVATE sluice_test_main ${test_LIBRARIES})
    target_compile_options(test-${name} PRIVATE ${SLUICE_WARNINGS})
    set_target_properties(test-${name} PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    if(test_DEPENDS)
        add_dependencies(test-${name} ${test_DEPENDS})
    endif()
    if(NOT test_TIMEOUT)
        set(test_TIMEOUT 300)
    endif()
    add_test(NAME ${name} COMMAND test-${name})
    set_tests_properties(${name} PROPERTIES LABELS "${test_LABELS}" TIMEOUT ${test_TIMEOUT})
    if(timing IN_LIST test_LABELS)
        set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
    endif()
endfunction()

# sluice_add_fuzzer(<name> SOURCES <file>...)
#
# In the fuzz build a libFuzzer executable; in the others a test that replays the seed corpus
# tests/fuzz/corpus/<name> and fixed mutations of it.
#     build/fuzz/fuzz/fuzz-<name> -max_total_time=600 tests/fuzz/corpus/<name>
function(sluice_add_fuzzer name)
    cmake_parse_arguments(PARSE_ARGV 1 fuzz "" "" "SOURCES;LIBRARIES")
    set(corpus ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
    add_executable(fuzz-${name} ${fuzz_SOURCES})
    target_link_libraries(fuzz-${name} PRIVATE sluice_runtime ${fuzz_LIBRARIES})
    target_compile_options(fuzz-${name} PRIVATE ${SLUICE_WARNINGS})
    set_target_properties(fuzz-${name} PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
    if(SLUICE_FUZZ)
        target_link_options(fuzz-${name} PRIVATE -fsanitize=fuzzer)
    else()
        target_sources(fuzz-${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.cpp)
        add_test(NAME fuzz-${name} COMMAND fuzz-${name} ${corpus})
        set_tests_properties(fuzz-${name} PROPERTIES LABELS fuzz TIMEOUT 300)
    endif()
endfunction()

# add_subdirectory for the folders of a list that are there.
function(sluice_add_folders)
    foreach(folder ${ARGV})
        if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/CMakeLists.txt)
            add_subdirectory(${folder})
        endif()
    endforeach()
endfunction()
