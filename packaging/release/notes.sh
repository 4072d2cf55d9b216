#!/bin/sh
# packaging/release/notes.sh VERSION: prints what CHANGELOG.md says of a version.
set -eu
cd "$(dirname "$0")/../.."
awk -v version="$1" '/^## / { told = $2 == version; next } told' CHANGELOG.md | grep . || { echo "CHANGELOG.md says nothing of $1" >&2; exit 1; }
