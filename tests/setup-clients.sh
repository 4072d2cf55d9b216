#!/bin/sh
# Installs what the tests of the Java, Ruby and C++ clients need, beside tests/setup.sh. `tests/setup-clients.sh ruby` is for Ruby alone: all
# that `./dev test` has a smoke of.
#   .tools/clients        Debian's gRPC for Java, Ruby and C++, Tomcat, Rack and Ruby itself (tests/packages-clients.txt), unpacked and not installed
#   .tools/clients-built  what tests/clients/build.py makes of them, by content
# The compiler of C++ is the machine's. A JDK is the one that is installed if there is none: Debian's, which is renewed too often to be pinned.
# A second run does nothing. A tool that cannot be had is a failure.
set -eu
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

list=tests/packages-clients.txt installed=.tools/tests-packages-clients.txt.installed
case "${1:-all}" in
    all)
        wanted=$(cat "$list")
        command -v g++ >/dev/null || { echo "g++ is needed: Debian's package g++" >&2; exit 1; }
        if ! command -v javac >/dev/null; then
            as_root apt-get update -qq
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends openjdk-17-jdk-headless >/dev/null
        fi
        ;;
    # What all of them need, and its own.
    ruby) wanted=$(sed -e '/^# C++$/,/^# Ruby$/d' -e '/^# Java\./,$d' "$list") ;;
    *) echo "usage: $0 [ruby]" >&2; exit 64 ;;
esac

# All of it has Ruby's part too.
if ! [ -d .tools/clients ] || ! { cmp -s "$list" "$installed" || [ "$wanted" = "$(cat "$installed")" ]; }; then
    rm -f "$installed"
    printf '%s\n' "$wanted" >.tools/clients.list
    tests/unpack.sh .tools/clients.list .tools/clients
    mv .tools/clients.list "$installed"
fi
