if(NOT TARGET sluice-cli OR NOT TARGET sluice OR NOT TARGET sluice-plugin-check)
    return()
endif()
include(CMakePackageConfigHelpers)

install(DIRECTORY abi/include/sluice DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY runtime/include/sluice DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY configs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/sluice/configs)
install(TARGETS sluice sluice-cli sluice-plugin-check)
install(TARGETS sluice_abi sluice EXPORT sluice-targets)
install(EXPORT sluice-targets NAMESPACE sluice:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/sluice)

configure_package_config_file(cmake/sluice-config.cmake.in ${CMAKE_BINARY_DIR}/sluice-config.cmake
    INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/sluice)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/sluice-config-version.cmake
    COMPATIBILITY ExactVersion)
install(FILES ${CMAKE_BINARY_DIR}/sluice-config.cmake ${CMAKE_BINARY_DIR}/sluice-config-version.cmake
    cmake/plugin.exports
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/sluice)
