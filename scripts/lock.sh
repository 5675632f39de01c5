#!/bin/sh
# Resolve pyproject.toml into requirements/*.txt, hash-locked: lock.sh UV [--upgrade]
# The runtime set is resolved under the constraints of the dev set, so that tests run on what users get.
set -eu
uv=$1
shift
compile() {
    "$uv" pip compile pyproject.toml --quiet --generate-hashes --no-header --python-version 3.11 "$@"
}
echo "lock: requirements/dev.txt"
compile --group dev --output-file requirements/dev.txt "$@"
echo "lock: requirements/runtime.txt"
compile --group build --constraint requirements/dev.txt --output-file requirements/runtime.txt
