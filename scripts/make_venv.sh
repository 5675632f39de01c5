#!/bin/sh
# Make a virtual environment: make_venv.sh PYTHON DIRECTORY
# Python's own venv is preferred; on a bare Debian it is a package of its own, which root may install here.
set -eu
python=$1 venv=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Pumasi needs Python 3.11 or newer; $python is $("$python" -V 2>&1). Try: make PYTHON=python3.11" >&2
    exit 1
}

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null && ! command -v uv >/dev/null; then
    packages=$(sed '/^# Slurm/,$d; s/#.*//' requirements/debian.txt | xargs)
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "This Python has no venv module. As root: apt-get install $packages" >&2
        exit 1
    fi
    echo "setup: apt-get install $packages"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends $packages; } >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
    rm "$log"
fi

echo "setup: virtual environment in $venv with $("$python" -V)"
if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$python" -m venv "$venv"
else
    uv venv --quiet --seed --python "$python" "$venv"
fi
