#!/bin/sh
# Install the locked packages and Pumasi itself, editable: install.sh VENV runtime|dev
# uv is used where it is at hand, for speed; pip does the same.
set -eu
venv=$1 group=$2

if command -v uv >/dev/null; then
    install="uv pip install --quiet --python $venv/bin/python"
else
    install="$venv/bin/python -m pip install --quiet --disable-pip-version-check"
fi

echo "setup: $(grep -c '==' "requirements/$group.txt") packages of requirements/$group.txt, each checked by its hash"
$install --require-hashes -r "requirements/$group.txt"
if [ "$group" = runtime ]; then
    echo "setup: Pumasi, editable"
    $install --no-deps --no-build-isolation --editable .
fi
