#!/bin/sh
# packaging/release/charts.sh IMAGE DIRECTORY: packages the charts. In the repository they name an image of no registry, in the packages they name IMAGE.
set -eu
image=$1
mkdir -p "$2"
packages=$(cd "$2" && pwd)
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r helm/session-sidecar-lib helm/session-sidecar "$work"
for file in values.yaml values.schema.json README.md; do
    file=$work/session-sidecar-lib/$file
    sed -i "/repository/s|\"session-sidecar\"|\"$image\"|" "$file"
    grep -qF "\"$image\"" "$file" || { echo "$file does not say which image is run: look for image.repository" >&2; exit 1; }
done
for chart in session-sidecar-lib session-sidecar; do
    helm package --dependency-update --destination "$packages" "$work/$chart"
done
