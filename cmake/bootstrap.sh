# Sourced by ./quickstart and ./check: the packages, then the build. Works from a bare Debian 12.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
build=build/release

say() { printf "== %s\n" "$*" >&2; }
stop() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# quietly LOG COMMAND...: on a terminal the command's output is its progress; in a pipe it goes to LOG
# and is shown when the command fails.
quietly() {
    local log=$1
    shift
    if [ -t 1 ]; then
        "$@" </dev/null
    else
        "$@" </dev/null >"$log" 2>&1 || { cat "$log" >&2; return 1; }
    fi
}

packages_missing() {
    local package status
    while read -r package; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || printf '%s\n' "$package"
    done < <(grep -v -e '^#' -e '^$' cmake/debian-packages.txt)
}

install_packages() {
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || return 0 # not Debian
    local -a missing as_root=()
    mapfile -t missing < <(packages_missing)
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${#missing[@]} packages: ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null ||
            stop "these packages are missing, and installing them takes root or sudo. As root, run:
    apt-get update && apt-get install --no-install-recommends ${missing[*]}"
        as_root=(sudo)
    fi
    mkdir -p build
    local -a apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    quietly build/apt-update.log "${apt[@]}" update || stop "apt-get update failed (see above)"
    quietly build/apt-install.log "${apt[@]}" install --no-install-recommends "${missing[@]}" ||
        stop "apt-get install failed (see above)"
    rm -f "$build/build.ninja" # what was left out for want of a package is looked for again
}

configure() {
    [ -e "$build/build.ninja" ] && return 0
    say "configuring in $build"
    mkdir -p "$build"
    cmake --preset release </dev/null >"$build/configure.log" 2>&1 ||
        { cat "$build/configure.log" >&2; stop "configuring failed (see above)"; }
    grep -e '^-- sluice ' -e '^-- left out' -e '^CMake Warning' "$build/configure.log" || true
}

# build_targets TARGET...: ninja's own progress line on a terminal, nothing but warnings in a pipe.
build_targets() {
    say "building"
    local -a ninja=(ninja -C "$build" -j "$(nproc)")
    [ -t 1 ] || ninja+=(--quiet)
    "${ninja[@]}" "$@" </dev/null || stop "the build failed (see above)"
}
