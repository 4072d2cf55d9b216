#!/bin/sh
# Installs what the tests need beside cargo, pinned by version and hash, into ignored folders of this repository:
#   .tools/venv                     grpcio, buf, pytest         (tests/requirements.txt)
#   .tools/bin/promtool             Debian's prometheus package, unpacked and not installed: no daemon starts
#   tests/conformance/node_modules  grpc-js, proto-loader       (tests/conformance/package-lock.json)
# A second run does nothing. A tool that cannot be had is a failure.
set -eu
cd "$(dirname "$0")/.."

# Whether $1 was installed from exactly the file $2; `record` says that it was.
installed() { [ -e "$1" ] && cmp -s "$2" ".tools/$(basename "$2").installed"; }
record() { cp "$1" ".tools/$(basename "$1").installed"; }

mkdir -p .tools/bin

if ! installed .tools/venv tests/requirements.txt; then
    "${PYTHON:-python3}" -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
    rm -rf .tools/venv
    "${PYTHON:-python3}" -m venv .tools/venv
    .tools/venv/bin/pip install --quiet --require-hashes --only-binary :all: -r tests/requirements.txt
    record tests/requirements.txt
fi

if ! installed tests/conformance/node_modules tests/conformance/package-lock.json; then
    (cd tests/conformance && npm ci --silent)
    record tests/conformance/package-lock.json
fi

if ! command -v promtool >/dev/null && ! [ -x .tools/bin/promtool ]; then
    # Updating the package lists is the one step that needs root.
    if [ "$(id -u)" = 0 ]; then apt-get update -qq; else sudo apt-get update -qq; fi
    (cd .tools && rm -f prometheus_*.deb && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb prometheus &&
        mv prometheus/usr/bin/promtool bin/ && rm -r prometheus prometheus_*.deb)
fi
