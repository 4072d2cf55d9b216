#!/bin/sh
# Installs what the tests need beside cargo, pinned by version and hash, into ignored folders of this repository:
#   .tools/venv                     grpcio, buf, pytest, Django (tests/requirements.txt)
#   .tools/bin/promtool             Debian's prometheus package, unpacked and not installed: no daemon starts
#   .tools/packages, .tools/bin     Debian's Redis, Valkey and NGINX (tests/packages.txt), unpacked and not installed; the shim that steps a clock
#   tests/conformance/node_modules  grpc-js, proto-loader       (tests/conformance/package-lock.json)
#   tests/browser/node_modules      playwright, axe, typescript (tests/browser/package-lock.json)
# Chromium is the one that is installed, with all that it stands on, if there is none: Debian's, which is renewed too often to be pinned.
# A second run does nothing. A tool that cannot be had is a failure.
set -eu
cd "$(dirname "$0")/.."

# Whether $1 was installed from exactly the file $2; `record` says that it was.
installed() { [ -e "$1" ] && cmp -s "$2" ".tools/$(mark "$2")"; }
record() { cp "$1" ".tools/$(mark "$1")"; }
mark() { echo "$1.installed" | tr / -; }

# Updating the package lists and installing are what needs root.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

mkdir -p .tools/bin

if ! installed .tools/venv tests/requirements.txt; then
    "${PYTHON:-python3}" -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
    rm -rf .tools/venv
    "${PYTHON:-python3}" -m venv .tools/venv
    .tools/venv/bin/pip install --quiet --require-hashes --only-binary :all: -r tests/requirements.txt
    record tests/requirements.txt
fi

for folder in tests/conformance tests/browser; do
    if ! installed "$folder/node_modules" "$folder/package-lock.json"; then
        (cd "$folder" && npm ci --silent)
        record "$folder/package-lock.json"
    fi
done

if ! command -v promtool >/dev/null && ! [ -x .tools/bin/promtool ]; then
    as_root apt-get update -qq
    (cd .tools && rm -f prometheus_*.deb && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb prometheus &&
        mv prometheus/usr/bin/promtool bin/ && rm -r prometheus prometheus_*.deb)
fi

if ! command -v chromium >/dev/null; then
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends chromium >/dev/null
fi

if ! installed .tools/packages tests/packages.txt; then
    tests/unpack.sh tests/packages.txt .tools/packages
    # They find the libraries that came with them, and the system's for the rest.
    for name in redis-server redis-cli redis-sentinel valkey-server valkey-cli valkey-sentinel nginx; do
        case $name in
            redis-server | redis-sentinel) real=bin/redis-check-rdb ;;
            valkey-server | valkey-sentinel) real=bin/valkey-check-rdb ;;
            nginx) real=sbin/nginx ;;
            *) real=bin/$name ;;
        esac
        [ -x ".tools/packages/usr/$real" ] || { echo "$real is not in the packages of tests/packages.txt" >&2; exit 1; }
        printf '#!/bin/bash\nLD_LIBRARY_PATH=%s exec -a %s %s "$@"\n' \
            "$(echo "$PWD"/.tools/packages/usr/lib/*-linux-gnu)" "$name" "$PWD/.tools/packages/usr/$real" >".tools/bin/$name"
        chmod +x ".tools/bin/$name"
    done
    record tests/packages.txt
fi

if ! installed .tools/clock.so tests/chaos/clock.c; then
    gcc -Wall -Wextra -Werror -O1 -shared -fPIC -o .tools/clock.so tests/chaos/clock.c
    record tests/chaos/clock.c
fi
