#!/bin/sh
# packaging/wheel/build.sh PROGRAM FOLDER: builds the wheel that carries PROGRAM into FOLDER, with the tools of requirements.txt on the path.
# PROGRAM must find a C library on its machine: a static one cannot resolve names as that machine does.
set -eu
program=$(realpath "$1") folder=$(realpath -m "$2")
# What starts a dynamic program.
readelf --program-headers "$program" | grep -q INTERP || { echo "$program is static: build it with LINKAGE=dynamic (Dockerfile)" >&2; exit 64; }
cd "$(dirname "$0")"
plain=$(mktemp -d)
trap 'rm -rf "$plain"' EXIT
SESSION_SIDECAR_BINARY=$program python -m build --no-isolation --wheel --outdir "$plain" .
# Finds out which C library the program needs at least, and says so in the wheel's name; refuses one that is not on every Linux.
auditwheel repair --plat auto --wheel-dir "$folder" "$plain"/*.whl
