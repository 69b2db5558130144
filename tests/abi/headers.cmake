# Compiles every public header alone: the contract as C99, C11, C++17 and C++20, the C++ layers as
# C++20, without a warning, with every compiler given.
#     cmake -D SOURCE_DIR=... -D "COMPILERS=cc=c++;..." -P headers.cmake
set(include -I${SOURCE_DIR}/abi/include -I${SOURCE_DIR}/runtime/include)
set(warnings -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wundef -Werror)
set(failures 0)
set(compiled 0)

function(compile compiler language standard header)
    set(strict ${warnings})
    if(standard STREQUAL c++20)
        list(APPEND strict -Wno-sign-conversion) # as the whole tree, see cmake/sluice_settings.cmake
    endif()
    if(language STREQUAL c)
        list(APPEND strict -Wstrict-prototypes -Wc++-compat)
    endif()
    file(RELATIVE_PATH name ${SOURCE_DIR} ${header})
    execute_process(
        COMMAND ${compiler} -x ${language} -std=${standard} ${strict} ${include}
            -fsyntax-only -include ${header} /dev/null
        ERROR_VARIABLE messages RESULT_VARIABLE status)
    math(EXPR compiled "${compiled} + 1")
    set(compiled ${compiled} PARENT_SCOPE)
    if(NOT status EQUAL 0)
        message("${name} does not compile alone as ${standard} with ${compiler}:\n${messages}")
        math(EXPR failures "${failures} + 1")
        set(failures ${failures} PARENT_SCOPE)
    endif()
endfunction()

file(GLOB_RECURSE c_headers ${SOURCE_DIR}/abi/include/*.h ${SOURCE_DIR}/runtime/include/*.h)
file(GLOB_RECURSE cpp_headers ${SOURCE_DIR}/abi/include/*.hpp ${SOURCE_DIR}/runtime/include/*.hpp)
if(NOT c_headers OR NOT cpp_headers)
    message(FATAL_ERROR "expected headers in ${SOURCE_DIR}/abi/include, found none")
endif()

foreach(pair ${COMPILERS})
    string(REPLACE "=" ";" pair ${pair})
    list(GET pair 0 c_compiler)
    list(GET pair 1 cpp_compiler)
    foreach(header ${c_headers})
        compile(${c_compiler} c c99 ${header})
        compile(${c_compiler} c c11 ${header})
        compile(${cpp_compiler} c++ c++17 ${header})
        compile(${cpp_compiler} c++ c++20 ${header})
    endforeach()
    foreach(header ${cpp_headers})
        compile(${cpp_compiler} c++ c++20 ${header})
    endforeach()
endforeach()

if(failures)
    message(FATAL_ERROR "${failures} of ${compiled} compilations failed")
endif()
message("${compiled} compilations without a warning")
