#!/bin/sh
# bases.sh PACKAGES FOLDER: makes the base images, from the same Debian packages as upstream's, under upstream's names:
#   docker.io/library/rust:1.95.0-slim-bookworm      a Debian with a C compiler; the build mounts the machine's Rust at /usr/local/rust
#   gcr.io/distroless/static-debian12:nonroot        CA certificates, time zones and the user 65532
#   docker.io/library/debian:bookworm                a Debian with Python and systemd, for what runs beside the sidecar, and without containers
#   localhost/infra                                  what holds a pod's network
set -eu
packages=$1 work=$2/bases
rm -rf "$work"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"

# Makes the Debian $1 with the packages $2. What it mounts meanwhile goes with its name space.
debian() {
    DEBOOTSTRAP_DIR=$packages/usr/share/debootstrap unshare --mount "$packages/usr/sbin/debootstrap" --variant=minbase --include="$2" \
        bookworm "$work/$1" http://deb.debian.org/debian >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
    rm -rf "$work/$1"/var/cache/apt/* "$work/$1"/var/lib/apt/lists/* "$work/$1"/usr/share/doc "$work/$1"/usr/share/locale
}

# Makes an image of the folder $1, under the name $2, with the configuration that follows.
image() {
    folder=$1 name=$2
    shift 2
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$folder" / >/dev/null
    buildah config "$@" "$container"
    buildah commit --quiet --rm "$container" "$name" >/dev/null
}

search=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

debian rust ca-certificates,gcc,libc6-dev
image "$work/rust" docker.io/library/rust:1.95.0-slim-bookworm \
    --env "PATH=/usr/local/cargo/bin:/usr/local/rust/bin:$search" --env CARGO_HOME=/usr/local/cargo

static=$work/static
mkdir -p "$static/etc/ssl/certs" "$static/usr/lib" "$static/usr/share" "$static/tmp" "$static/home/nonroot" "$static/run"
chmod 1777 "$static/tmp"
chown 65532:65532 "$static/home/nonroot"
cp "$work/rust/etc/ssl/certs/ca-certificates.crt" "$static/etc/ssl/certs/"
cp "$work/rust/usr/lib/os-release" "$static/usr/lib/"
ln -s ../usr/lib/os-release "$static/etc/os-release"
cp -r "$work/rust/usr/share/zoneinfo" "$static/usr/share/"
printf '%s\n' root:x:0:0:root:/root:/sbin/nologin nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin \
    nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin >"$static/etc/passwd"
printf '%s\n' root:x:0: nobody:x:65534: nonroot:x:65532: >"$static/etc/group"
echo 'hosts: files dns' >"$static/etc/nsswitch.conf"
image "$static" gcr.io/distroless/static-debian12:nonroot --user 65532 --workingdir /home/nonroot \
    --env "PATH=$search" --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt

debian machine ca-certificates,python3,python3-venv,systemd,systemd-sysv
image "$work/machine" docker.io/library/debian:bookworm --env "PATH=$search"

mkdir -p "$work/infra"
cp "$packages/usr/libexec/podman/catatonit" "$work/infra/catatonit"
image "$work/infra" localhost/infra --entrypoint '["/catatonit", "-P"]'
