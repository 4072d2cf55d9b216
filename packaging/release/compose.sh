#!/bin/sh
# packaging/release/compose.sh IMAGE: prints the compose file of a release. In the repository it names an image of no registry, in a release IMAGE.
set -eu
cd "$(dirname "$0")/../.."
released=$(sed -e "s|SESSION_SIDECAR_IMAGE:-session-sidecar}|SESSION_SIDECAR_IMAGE:-$1}|" \
    -e 's|SESSION_SIDECAR_IMAGE=session-sidecar ||' -e 's| --file packaging/compose.yaml||' packaging/compose.yaml)
# What is not found is not replaced.
if ! printf '%s\n' "$released" | grep -qF "image: \${SESSION_SIDECAR_IMAGE:-$1}" ||
    ! printf '%s\n' "$released" | grep -qFx '#   APP_IMAGE=... docker compose up'; then
    echo "packaging/compose.yaml does not say which image is run, or how: look for SESSION_SIDECAR_IMAGE" >&2
    exit 1
fi
printf '%s\n' "$released"
