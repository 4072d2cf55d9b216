#!/bin/sh
# tests/image/build.sh NAME [OPTION...]: builds the published Dockerfile, unchanged, as the image NAME, with options for buildah if there are any.
# The base images are those of bases.sh, so Rust is the machine's, mounted; so are the certificates that its registry is known by, and how much
# of the machine cargo may take.
set -eu
name=$1
shift
cd "$(dirname "$0")/../.."
cargo=$(mktemp -d)
trap 'rm -rf "$cargo"' EXIT
printf '[build]\njobs = %s\n' "${CARGO_BUILD_JOBS:-$(nproc)}" >"$cargo/config.toml"
when=$(git log -1 --format=%ct)
.tools/image/bin/buildah bud --isolation chroot --pull-never --format docker --layers \
    --volume "$(rustc --print sysroot):/usr/local/rust:ro" --volume "$cargo/config.toml:/usr/local/cargo/config.toml:ro" \
    --volume /etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro \
    --build-arg "TARGETARCH=$(dpkg --print-architecture)" --build-arg "SOURCE_DATE_EPOCH=$when" --timestamp "$when" \
    --build-arg "REVISION=$(git rev-parse HEAD)" --tag "$name" "$@" .
