#!/usr/bin/env bash
# Makes .venv in the repository root and installs the pinned packages. Does nothing when they are installed already.
#
#   bash scripts/setup_env.sh [requirements.txt]      PYTHON=/path/to/python3.11 chooses the interpreter
#
# Afterwards .venv/bin/python runs everything. Exit 4: no fitting Python, or the packages could not be installed.
set -eu

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/arguments.sh"
at_most 1 "$@"
requirements=${1:-requirements.txt}
venv=$root/.venv
cd "$root"

say() { echo "[setup ${SECONDS}s] $*"; }

# MindSpore 2.10 and hotcoco have wheels for 3.10 to 3.12. Debian has ensurepip in another package, so this asks for it too.
fits() {
    "$1" -c 'import sys, ensurepip, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || fail 4 "PYTHON=$PYTHON is not a Python 3.10, 3.11 or 3.12 with the venv module"
        echo "$PYTHON"
        return
    fi
    for candidate in python3.12 python3.11 python3.10 python3 python "${HOME:-}"/.pyenv/versions/3.1[012]*/bin/python; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail 4 "no Python 3.10, 3.11 or 3.12 with the venv module was found; install one (Debian: apt-get install python3-venv)" \
         "or name it: PYTHON=/path/to/python3.11 bash $0"
}

# Changes with the pinned versions and the interpreter; requirements.txt is part of every other list.
fingerprint() {
    { "$venv/bin/python" --version; cat requirements.txt "$requirements"; } 2>/dev/null | sha256sum | cut -d' ' -f1
}

[ -f "$requirements" ] || fail 4 "$requirements does not exist"
stamp=$venv/.installed-$(basename "$requirements")

# One setup at a time: a second one waits and then finds the work done. The lock is on this file, so nothing is left behind.
if command -v flock >/dev/null; then
    exec 9<"${BASH_SOURCE[0]}"
    flock 9
fi

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ]; then
    exit 0
fi

# .unfinished lies in the folder while it is being filled: what an interrupted setup left is not trusted. Only a folder that
# this script made (.made) is removed; another one may hold files of the user.
if [ -e "$venv/.unfinished" ] || { [ -d "$venv" ] && ! fits "$venv/bin/python"; }; then
    [ -e "$venv/.made" ] || fail 4 "$venv is not from this script, and not a finished environment of Python 3.10 to 3.12; remove or rename it"
    say "removing $venv, which an interrupted setup left or whose Python is gone"
    rm -rf "$venv"
fi
if [ ! -d "$venv" ]; then
    python=$(find_python)
    say "creating .venv with $("$python" --version) ($python)"
    mkdir "$venv"
    touch "$venv/.made" "$venv/.unfinished"
    "$python" -m venv "$venv" || fail 4 "$python -m venv $venv failed"
fi

if [ -e "$venv/.made" ]; then touch "$venv/.unfinished"; fi
trap 'exit 130' INT TERM
size=""
if ! ls "$venv"/.installed-* >/dev/null 2>&1; then size=" (1.0 GB to download, 3 GB on disk)"; fi
case $requirements in *requirements-gpu.txt) size="$size (CUDA: 1.7 GB to download, 3 GB on disk)" ;; esac
say "installing $requirements$size"
quiet=-qq
if [ -t 1 ]; then quiet=-q; fi
if ! "$venv/bin/python" -m pip install $quiet --disable-pip-version-check --no-input -r "$requirements"; then
    rm -f "$venv/.unfinished"  # pip undoes what it could not finish; only an interruption leaves half a package
    fail 4 "pip could not install $requirements (its message is above); run this again when that is solved"
fi
"$venv/bin/python" -c 'import cv2, hotcoco, matplotlib, mindspore, yaml' >/dev/null ||
    fail 4 "the packages are installed but cannot be imported (message above)"
fingerprint > "$stamp"
rm -f "$venv/.unfinished"
say ".venv is ready: $("$venv/bin/python" --version), $(du -sh "$venv" | cut -f1); to use it: . ${venv#"$PWD/"}/bin/activate"
