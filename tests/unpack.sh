#!/bin/sh
# tests/unpack.sh LIST FOLDER: unpacks the Debian 12 packages that LIST names (bookworm, its security updates, its backports; a version behind `=`) into
# FOLDER, without installing them: no daemon starts, and the machine stays as it is. apt checks their signatures.
set -eu
list=$(realpath "$1") folder=$(realpath "$2")

# Package lists of our own, so that this needs no root and leaves the machine's sources as they are.
apt=$folder.apt
rm -rf "$apt" "$folder"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$folder"
for suite in "debian bookworm" "debian bookworm-backports" "debian-security bookworm-security"; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/$suite main"
done >"$apt/sources.list"
own() {
    apt-get -qq -o APT::Sandbox::User= -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" "$@"
}
own update
# shellcheck disable=SC2046 # one word for each package
(cd "$apt" && own download $(grep -v '^#' "$list"))
for package in "$apt"/*.deb; do dpkg-deb -x "$package" "$folder"; done
rm -rf "$apt"
