# sluice_add_plugin(<id> [KIND <kind>] SOURCES <file>... [LIBRARIES <target>...])
#
# One shared library, <id>.so, that sees the contract alone and exports the plugin's entry alone, with
# its manifest, <id>.toml, beside it. The same for the plugins of this tree and for those of others,
# who get it from find_package(sluice).
set(SLUICE_PLUGIN_EXPORTS ${CMAKE_CURRENT_LIST_DIR}/plugin.exports)

function(sluice_add_plugin id)
    cmake_parse_arguments(PARSE_ARGV 1 plugin "" "KIND" "SOURCES;LIBRARIES")
    add_library(${id} MODULE ${plugin_SOURCES})
    target_link_libraries(${id} PRIVATE sluice::abi ${plugin_LIBRARIES})
    target_compile_options(${id} PRIVATE "$<$<COMPILE_LANGUAGE:C,CXX>:${SLUICE_WARNINGS}>"
        $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-fno-gnu-unique>)
    target_link_options(${id} PRIVATE
        -Wl,--version-script=${SLUICE_PLUGIN_EXPORTS} -Wl,--exclude-libs,ALL)
    if(NOT SLUICE_SANITIZE) # clang leaves the sanitizer's functions to the executable
        target_link_options(${id} PRIVATE -Wl,-z,defs)
    endif()
    set_target_properties(${id} PROPERTIES
        PREFIX "" SUFFIX .so
        CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF
        C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
        POSITION_INDEPENDENT_CODE ON
        LINK_DEPENDS ${SLUICE_PLUGIN_EXPORTS})
    if(SLUICE_PLUGIN_OUTPUT_DIRECTORY)
        set_target_properties(${id} PROPERTIES
            LIBRARY_OUTPUT_DIRECTORY ${SLUICE_PLUGIN_OUTPUT_DIRECTORY})
    endif()
    set(manifest $<TARGET_FILE_DIR:${id}>/${id}.toml)
    add_custom_command(TARGET ${id} POST_BUILD
        COMMAND sluice::plugin-check --manifest $<TARGET_FILE:${id}> > ${manifest}.new
        COMMAND ${CMAKE_COMMAND} -E rename ${manifest}.new ${manifest}
        COMMENT "Writing the manifest of plugin ${id}" VERBATIM)
    set_property(GLOBAL APPEND PROPERTY SLUICE_PLUGIN_TARGETS ${id})
    set_property(GLOBAL APPEND PROPERTY SLUICE_PLUGIN_SUMMARY "${plugin_KIND} ${id}")
endfunction()
