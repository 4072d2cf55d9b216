#!/bin/sh
# The steps of the Dockerfile's build stage, each a layer of its own there:
#   compile.sh tools          what compiles for TARGETARCH, and what notes the dependencies in the binary for scanners
#   compile.sh dependencies   all crates that Cargo.lock names, without a line of our own: kept until Cargo.toml or Cargo.lock changes
#   compile.sh sidecar        the sidecar, and under /out the files of the image
# TARGETARCH is amd64 or arm64, by default the machine's own. LINKAGE is static (names are resolved by what is linked in: for images, which have no C
# library) or dynamic (as the machine does it, with its C library: for everything else).
set -eu

native=$(dpkg --print-architecture)
case ${TARGETARCH:=$native} in
    amd64) cpu=x86_64 package=x86-64 ;;
    arm64) cpu=aarch64 package=aarch64 ;;
    *) echo "TARGETARCH is $TARGETARCH: it must be amd64 or arm64" >&2; exit 64 ;;
esac
target=$cpu-unknown-linux-gnu
case ${LINKAGE:=static} in
    static) features=+crt-static ;;
    dynamic) features=-crt-static ;;
    *) echo "LINKAGE is $LINKAGE: it must be static or dynamic" >&2; exit 64 ;;
esac

compile() {
    # With --target they are for the sidecar, and not for what runs while it is built.
    variable=CARGO_TARGET_$(echo "$target" | tr a-z- A-Z_)
    export "${variable}_RUSTFLAGS=-C target-feature=$features"
    if [ "$native" != "$TARGETARCH" ]; then
        export "${variable}_LINKER=$cpu-linux-gnu-gcc" "CC_$(echo "$target" | tr - _)=$cpu-linux-gnu-gcc"
    fi
    # What C sources say of the day they were compiled must not depend on it, nor on the commit, or dependencies would be compiled again with each.
    SOURCE_DATE_EPOCH=0 cargo auditable build --release --locked --target "$target" --bin session-sidecar "$@"
}

tools() {
    if [ "$native" != "$TARGETARCH" ]; then
        apt-get update
        apt-get install --yes --no-install-recommends "gcc-$package-linux-gnu" "libc6-dev-$TARGETARCH-cross"
        rustup target add "$target"
    fi
    cargo install --quiet --locked --root /usr/local cargo-auditable@0.7.7
}

dependencies() {
    # Empty files where Cargo.toml says that something is.
    mkdir -p src benches/bench tests/sim tests/races
    for file in build.rs src/main.rs benches/bench/main.rs tests/sim/main.rs tests/races/main.rs; do echo 'fn main() {}' >"$file"; done
    : >src/lib.rs
    compile
}

sidecar() {
    # Else cargo takes them for the empty ones, which may be younger.
    touch build.rs src/main.rs src/lib.rs
    compile --offline
    install -D -m 0755 "target/$target/release/session-sidecar" /out/usr/local/bin/session-sidecar
    # For buf curl, grpcurl, transcoding gateways: the API without its sources, or reflection.
    install -D -m 0644 "target/$target/release/build/session-sidecar-"*/out/descriptors.bin \
        /out/usr/share/session-sidecar/descriptors.binpb
    install -D -m 0644 LICENSE /out/usr/share/doc/session-sidecar/LICENSE
    # Where its Unix socket goes; a volume that is mounted here takes over the owner.
    install -d -m 0755 /out-owned
    # The same bytes and times for the same commit.
    find /out /out-owned -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH:-0}" {} +
}

"$@"
