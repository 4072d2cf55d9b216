#!/bin/sh
# Installs what only `./dev test clients` needs, beside tests/setup.sh:
#   .tools/clients        Debian's gRPC for Java, Ruby and C++, Tomcat, Rack and Ruby itself (tests/packages-clients.txt), unpacked and not installed
#   .tools/clients-built  what tests/clients/build.py makes of them, by content
# The compiler of C++ is the machine's. A JDK is the one that is installed if there is none: Debian's, which is renewed too often to be pinned.
# A second run does nothing. A tool that cannot be had is a failure.
set -eu
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

command -v g++ >/dev/null || { echo "g++ is needed: Debian's package g++" >&2; exit 1; }
if ! command -v javac >/dev/null; then
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends openjdk-17-jdk-headless >/dev/null
fi

list=tests/packages-clients.txt
if ! [ -d .tools/clients ] || ! cmp -s "$list" .tools/tests-packages-clients.txt.installed; then
    tests/unpack.sh "$list" .tools/clients
    cp "$list" .tools/tests-packages-clients.txt.installed
fi
