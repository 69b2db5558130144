# Installs the build, moves the installed folder, and uses it from there as a stranger would: a plugin
# and an embedding program build against it, the checker passes the plugin, and the command finds the
# plugins that were installed.
#     cmake -D BUILD=DIR -D SOURCES=DIR -D WORK=DIR -D C=cc -D CXX=c++ -P install.cmake
set(prefix ${WORK}/moved)
set(outside ${WORK}/outside)

function(run_step what)
    execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE text ERROR_VARIABLE text RESULT_VARIABLE status)
    if(NOT status EQUAL 0)
        message(FATAL_ERROR "${what} failed (${status}):\n${text}")
    endif()
    set(text "${text}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${WORK})
run_step("installing" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/first)
file(RENAME ${WORK}/first ${prefix})

foreach(file bin/sluice bin/sluice-plugin-check lib/libsluice.so include/sluice/abi/plugin.h
        include/sluice/plugin/backend.hpp include/sluice/sluice.h include/sluice/sluice.hpp
        lib/cmake/sluice/sluice-config.cmake lib/pkgconfig/sluice.pc)
    if(NOT EXISTS ${prefix}/${file})
        message(FATAL_ERROR "expected the installed file ${file}, found none")
    endif()
endforeach()
file(GLOB plugins RELATIVE ${prefix}/lib/sluice/plugins ${prefix}/lib/sluice/plugins/*.so)
if(NOT plugins)
    message(FATAL_ERROR "expected plugins in lib/sluice/plugins, found none")
endif()

run_step("listing the installed plugins" ${prefix}/bin/sluice plugins --explain)
foreach(plugin ${plugins})
    string(REGEX REPLACE "\\.so$" "" id ${plugin})
    if(NOT EXISTS ${prefix}/lib/sluice/plugins/${id}.toml)
        message(FATAL_ERROR "expected the manifest ${id}.toml beside ${plugin}, found none")
    endif()
    if(NOT text MATCHES "${prefix}/lib/sluice/plugins/${plugin}" AND NOT text MATCHES "${id}")
        message(FATAL_ERROR "`sluice plugins` does not name ${id}:\n${text}")
    endif()
endforeach()

set(ENV{PKG_CONFIG_PATH} ${prefix}/lib/pkgconfig)
run_step("configuring against the installed package"
    ${CMAKE_COMMAND} -S ${SOURCES}/tests/install/outside -B ${outside} -G Ninja
    -D CMAKE_PREFIX_PATH=${prefix} -D SLUICE_SOURCES=${SOURCES}
    -D CMAKE_C_COMPILER=${C} -D CMAKE_CXX_COMPILER=${CXX})
run_step("building against the installed package" ${CMAKE_COMMAND} --build ${outside})
foreach(id specification temperature)
    if(NOT EXISTS ${outside}/${id}.toml)
        message(FATAL_ERROR "the plugin ${id} built outside has no manifest")
    endif()
    run_step("checking the plugin ${id} that was built outside"
        ${prefix}/bin/sluice-plugin-check ${outside}/${id}.so)
endforeach()
