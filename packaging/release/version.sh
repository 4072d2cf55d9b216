#!/bin/sh
# packaging/release/version.sh TAG: prints the version that the tag vX.Y.Z is of; fails if a file of the repository says another one, naming it.
set -eu
cd "$(dirname "$0")/../.."
version=${1#v}
[ "$1" = "v$version" ] || { echo "the tag is $1: it must be v and the version" >&2; exit 64; }

wrong=0
# says FILE WHAT: the first match of the expression WHAT in FILE must be the version.
says() {
    found=$(sed -nE "s/$2/\1/p" "$1" | head -n 1)
    if [ "$found" != "$version" ]; then
        echo "$1 says ${found:-no version}, the tag says $version: change one of them" >&2
        wrong=1
    fi
}
says Cargo.toml '^version = "(.*)"$'
says Dockerfile '^ARG VERSION=(.*)$'
for chart in helm/session-sidecar*/Chart.yaml; do
    [ -e "$chart" ] || continue
    says "$chart" '^version: "?([^"]*)"?$'
    says "$chart" '^appVersion: "?([^"]*)"?$'
done
# With its date, so no longer "(unreleased)".
says CHANGELOG.md '^## ([^ ]+) \([0-9]{4}-[0-9]{2}-[0-9]{2}\)$'
[ "$wrong" = 0 ] || exit 1
echo "$version"
