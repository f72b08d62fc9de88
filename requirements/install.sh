#!/bin/bash
# Makes .venv and installs one set of exact versions into it:  bash requirements/install.sh default|check|test
# Runs on bash 3.2 (macOS). PYTHON=... chooses the interpreter, VENV=... the folder, TORCH=... the build of torch.
set -euo pipefail
cd "$(dirname "$0")/.."

level="${1:-default}"
venv="${VENV:-.venv}"
torch="${TORCH:-torch==2.13.0}"
wheels="--only-binary :all:"

say() { printf '%s\n' "$*" >&2; }
fail() { say "mien: $*"; exit 1; }

suitable() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1
}

pick_python() { # the newest that runs: a version manager's stand-in may be on the PATH and still not run
    local name path
    for name in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3 python}; do
        path="$(command -v "$name" 2>/dev/null || true)"
        if [ -n "$path" ] && suitable "$path"; then
            printf '%s\n' "$path"
            return 0
        fi
    done
    return 1
}

make_venv() {
    local python version
    if python="$(pick_python)"; then
        say "Making $venv with $("$python" --version) ($python)"
    elif command -v uv >/dev/null 2>&1 && [ -z "${PYTHON:-}" ]; then
        say "No Python 3.11 to 3.14 is on the PATH; uv fetches one"
        python=">=3.11,<3.15"
    else
        fail "Python 3.11, 3.12, 3.13 or 3.14 is needed${PYTHON:+ (PYTHON=$PYTHON is not one)}. Install one, or uv, and try again."
    fi
    if command -v uv >/dev/null 2>&1; then
        uv venv --quiet --clear --seed --python "$python" "$venv"
        return
    fi
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        fail "$python cannot make virtual environments: its package is missing. On Debian and Ubuntu: sudo apt-get install python$version-venv"
    fi
    "$python" -m venv --clear "$venv"
}

install() {
    if command -v uv >/dev/null 2>&1; then
        uv pip install --quiet --python "$venv/bin/python" "$@"
    else
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"
    fi
}

case "$level" in
    default | check | test) ;;
    *) fail "$level is not one of default, check, test" ;;
esac

if ! suitable "$venv/bin/python"; then
    make_venv
fi
if ! command -v uv >/dev/null 2>&1 && ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$venv/bin/python" -m ensurepip --upgrade >/dev/null || fail "$venv has no pip; delete it and try again"
fi

if [ "$level" = test ] && ! "$venv/bin/python" -c 'import torch' >/dev/null 2>&1; then
    say "Installing $torch (the largest download; TORCH='torch==... --index-url ...' chooses another build)"
    # by pip also where uv is there: it knows local builds, and takes no CUDA packages for a CPU build
    # shellcheck disable=SC2086
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $torch
fi
say "Installing the exact versions in requirements/$level.lock"
# --no-deps: the lock is complete, and nothing outside it may come in
# shellcheck disable=SC2086
install $wheels --no-deps -r "requirements/$level.lock"
install --no-deps --no-build-isolation -e .
if ! command -v uv >/dev/null 2>&1; then
    # what pip left out, by all cores at once; a file in another Python's syntax is no reason to stop
    "$venv/bin/python" -m compileall -q -j 0 "$venv"/lib/python3*/site-packages >/dev/null 2>&1 || true
fi
