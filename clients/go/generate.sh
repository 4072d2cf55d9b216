#!/bin/sh
# Makes proto/ from the .proto files, with buf (tests/setup.sh) and the generators of tests/setup-go.sh: generate.sh [FOLDER].
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tools=$here/../../.tools
into=$(cd "${1:-$here}" && pwd)
cd "$here"
PATH="$tools/bin:$tools/venv/bin:$PATH" exec buf generate --output "$into"
