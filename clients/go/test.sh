#!/bin/bash
# The tests of the Go client, with `go vet` before them: needs tests/setup.sh, tests/setup-go.sh, and SIDECAR_UNDER_TEST. Arguments are
# for `go test`. The last line is "N passed, N failed"; it builds the conformance runner too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export SIDECAR_UNDER_TEST=${SIDECAR_UNDER_TEST:-$here/../../target/debug/session-sidecar}
SIDECAR_UNDER_TEST=$(realpath -m "$SIDECAR_UNDER_TEST")
eval "$("$here/../../tests/setup-go.sh" env)"
# By the link in the GOPATH, where it is called session-sidecar.
cd "$GOPATH/src/session-sidecar"
results=$(mktemp)
trap 'rm -f "$results"' EXIT
failed=0
go vet ./... || failed=1
go build -o "$here/../../.tools/bin/go-conformance" ./internal/conformance || failed=1
go test -count=1 -v "$@" ./... >"$results" 2>&1 || failed=1
grep -v -e '^=== ' -e '^ *--- PASS' -e '^PASS$' -e 'no test files' "$results" || true
# A package that does not build, or exits early, has failed without a test's own line.
awk -v failed="$failed" '
    /^ *--- PASS/ { passed++ }
    /^ *--- FAIL/ { lines++ }
    END {
        if (lines < failed) lines = failed
        printf "%d passed, %d failed\n", passed, lines
        exit lines > 0
    }' "$results"
