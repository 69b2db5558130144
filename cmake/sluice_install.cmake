if(NOT TARGET sluice-cli OR NOT TARGET sluice)
    return()
endif()
include(CMakePackageConfigHelpers)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/sluice)

set_target_properties(sluice-plugin-check PROPERTIES EXPORT_NAME plugin-check)
install(TARGETS sluice sluice_abi sluice-plugin-check EXPORT sluice-targets)
install(TARGETS sluice-cli)
install(EXPORT sluice-targets NAMESPACE sluice:: DESTINATION ${package})
install(DIRECTORY abi/include/sluice runtime/include/sluice
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

foreach(plugin ${plugins})
    install(FILES ${SLUICE_PLUGIN_OUTPUT_DIRECTORY}/${plugin}.so
        ${SLUICE_PLUGIN_OUTPUT_DIRECTORY}/${plugin}.toml
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/${SLUICE_PLUGIN_FOLDER})
endforeach()

# Configurations name models relative to themselves, as in the source tree.
foreach(folder configs samples/models)
    if(EXISTS ${PROJECT_SOURCE_DIR}/${folder})
        install(DIRECTORY ${folder}/ DESTINATION ${CMAKE_INSTALL_DATADIR}/sluice/${folder})
    endif()
endforeach()

configure_package_config_file(cmake/sluice-config.cmake.in ${CMAKE_BINARY_DIR}/sluice-config.cmake
    INSTALL_DESTINATION ${package})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/sluice-config-version.cmake
    COMPATIBILITY ExactVersion)
install(FILES
    ${CMAKE_BINARY_DIR}/sluice-config.cmake ${CMAKE_BINARY_DIR}/sluice-config-version.cmake
    cmake/sluice_plugin.cmake cmake/plugin.exports
    DESTINATION ${package})

configure_file(cmake/sluice.pc.in ${CMAKE_BINARY_DIR}/sluice.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/sluice.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
