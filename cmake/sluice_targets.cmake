# sluice_add_plugin(<id> KIND <kind> SOURCES <file>... [LIBRARIES <target>...])
#
# One shared library, <id>.so, that sees abi/ alone and exports the entry alone, with its manifest
# beside it.
function(sluice_add_plugin id)
    cmake_parse_arguments(PARSE_ARGV 1 plugin "" "KIND" "SOURCES;LIBRARIES")
    add_library(${id} MODULE ${plugin_SOURCES})
    target_link_libraries(${id} PRIVATE sluice_abi ${plugin_LIBRARIES})
    target_compile_options(${id} PRIVATE ${SLUICE_WARNINGS} ${SLUICE_COMPILE_OPTIONS})
    set_target_properties(${id} PROPERTIES
        PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${SLUICE_PLUGIN_OUTPUT_DIRECTORY})
    set(script ${PROJECT_SOURCE_DIR}/cmake/plugin.exports)
    target_link_options(${id} PRIVATE -Wl,--version-script=${script} -Wl,--exclude-libs,ALL)
    if(NOT SLUICE_SANITIZE)
        target_link_options(${id} PRIVATE -Wl,-z,defs)
    endif()
    set_property(TARGET ${id} APPEND PROPERTY LINK_DEPENDS ${script})
    set(manifest ${SLUICE_PLUGIN_OUTPUT_DIRECTORY}/${id}.toml)
    if(TARGET sluice-plugin-check)
    add_custom_command(TARGET ${id} POST_BUILD
        COMMAND sluice-plugin-check --manifest $<TARGET_FILE:${id}> > ${manifest}.new
        COMMAND ${CMAKE_COMMAND} -E rename ${manifest}.new ${manifest}
        COMMENT "Writing the manifest of plugin ${id}" VERBATIM)
    add_dependencies(${id} sluice-plugin-check)
    endif()
    install(TARGETS ${id} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/${SLUICE_PLUGIN_FOLDER})
    install(FILES ${manifest} DESTINATION ${CMAKE_INSTALL_LIBDIR}/${SLUICE_PLUGIN_FOLDER})
    set(SLUICE_BUILT ${SLUICE_BUILT} "${plugin_KIND} ${id}" CACHE INTERNAL "")
    set_property(GLOBAL APPEND PROPERTY SLUICE_PLUGIN_TARGETS ${id})
endfunction()

# sluice_leave_out(<what> <why>): a line in the configure summary.
function(sluice_leave_out what why)
    set(SLUICE_LEFT_OUT ${SLUICE_LEFT_OUT} "${what}: ${why}" CACHE INTERNAL "")
endfunction()

# sluice_add_test(<name> SOURCES <file>... [LIBRARIES <target>...] [LABELS <label>...]
#                 [DEPENDS <target>...] [TIMEOUT <seconds>])
#
# A doctest executable. DEPENDS names plugins that it loads at run time.
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
endfunction()

# sluice_add_fuzzer(<name> SOURCES <file>...)
#
# In the fuzz build a libFuzzer executable; in the others a test that replays the seed corpus
# tests/fuzz/corpus/<name> and fixed mutations of it.
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
