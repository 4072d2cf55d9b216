#!/bin/sh
# Downloads the Debian packages of a list, pinned by version, and unpacks them into a folder without installing them: no daemon starts, no
# root is needed, and the machine's sources of packages stay as they are. unpack.sh LIST FOLDER. Lines `source NAME=VERSION` are source
# packages, unpacked into FOLDER/src/NAME as their authors released them. apt checks the signatures.
set -eu
list=$(realpath "$1") folder=$(realpath -m "$2")
apt=$folder.apt
rm -rf "$apt" "$folder"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$folder"
for suite in "debian bookworm" "debian bookworm-backports" "debian-security bookworm-security"; do
    for kind in deb deb-src; do
        echo "$kind [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/$suite main"
    done
done >"$apt/sources.list"
grep -q '^source ' "$list" || sed -i /^deb-src/d "$apt/sources.list"
own() {
    apt-get -qq -o APT::Sandbox::User= -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" "$@"
}
own update
# shellcheck disable=SC2046 # one word for each package
(cd "$apt" && own download $(grep -v -e '^#' -e '^source ' "$list"))
for package in "$apt"/*.deb; do dpkg-deb -x "$package" "$folder"; done
sed -n 's/^source //p' "$list" | while read -r package; do
    mkdir -p "$folder/src/${package%%=*}"
    (cd "$apt" && own source --download-only "$package")
    tar -xf "$apt/${package%%=*}"_*.orig.tar.* -C "$folder/src/${package%%=*}" --strip-components 1
done
rm -rf "$apt"
