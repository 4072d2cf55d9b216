#!/bin/sh
# tests/image/build.sh NAME [OPTION...]: builds the published Dockerfile, unchanged, as the image NAME, with options for buildah if there are any.
# TARGETARCH in the environment is amd64 or arm64, by default the machine's own.
# The base images are those of bases.sh, so Rust is the machine's, mounted; so are the certificates that its registry is known by, and how much
# of the machine cargo may take. What rustup would add in the build is added to the machine's Rust before.
set -eu
name=$1
shift
cd "$(dirname "$0")/../.."
native=$(dpkg --print-architecture)
TARGETARCH=${TARGETARCH:-$native}
cargo=$(mktemp -d)
trap 'rm -rf "$cargo"' EXIT
printf '[build]\njobs = %s\n' "${CARGO_BUILD_JOBS:-$(nproc)}" >"$cargo/config.toml"
if [ "$TARGETARCH" != "$native" ]; then
    case $TARGETARCH in arm64) target=aarch64-unknown-linux-gnu ;; *) target=x86_64-unknown-linux-gnu ;; esac
    rustup --quiet target add "$target"
fi
when=$(git log -1 --format=%ct)
.tools/image/bin/buildah bud --isolation chroot --pull-never --format docker --layers \
    --volume "$(rustc --print sysroot):/usr/local/rust:ro" --volume "$cargo/config.toml:/usr/local/cargo/config.toml:ro" \
    --volume "$PWD/tests/image/rustup.sh:/usr/local/bin/rustup:ro" \
    --volume /etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro \
    --build-arg "TARGETARCH=$TARGETARCH" --build-arg "SOURCE_DATE_EPOCH=$when" --timestamp "$when" \
    --build-arg "REVISION=$(git rev-parse HEAD)" --tag "$name" "$@" .
