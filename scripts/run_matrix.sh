#!/usr/bin/env bash
# Small trainings, evaluations and MindIR exports of two networks on CPU, in an environment for each Python and MindSpore.
#
#   bash scripts/run_matrix.sh [LEG ...]     legs: 3.10 3.11 3.12 (Python, with MindSpore 2.10) and 1.10 (MindSpore, with Python 3.9)
#
# Environments are looked for as $MATRIX/venv-LEG, and made there from requirements.txt or requirements-mindspore-gpu-1.10.txt;
# MATRIX is ${TMPDIR:-/tmp}/ssd-matrix unless set. The repository's own .venv serves the leg of its Python. A leg without an
# interpreter is not run; that is a failure where the leg was asked for, or where no leg could be run. Ends with a table.
# Exit 1 when something failed, 2 for a leg that is not known, 130 at once after Ctrl-C or SIGTERM.
# Not on 1.10: ONNX (mindspore.onnx came later) and hotcoco (needs Python 3.10; pycocotools counts on all legs here).
set -u

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ $# -gt 0 ]; then  # this file also runs alone
    . "$root/scripts/arguments.sh"
    at_most 4 "$@"
fi
matrix=${MATRIX:-${TMPDIR:-/tmp}/ssd-matrix}
legs=("$@")
if [ $# -eq 0 ]; then legs=(3.10 3.11 3.12 1.10); fi
for leg in "${legs[@]}"; do
    case $leg in 3.10 | 3.11 | 3.12 | 1.10) ;; *) fail 2 "no leg $leg; known are 3.10 3.11 3.12 1.10" ;; esac
done
networks=("ssd300_mobilenet_v2 64 0.25" "ssd_resnet50_fpn 128 1.0")  # name, side in pixels, width
rows=()
failed=0 ran=0 job=

say() { echo "[matrix ${SECONDS}s] $*"; }
row() { printf '%-5s %-20s %-7s %-7s %-7s %-7s %-7s %-7s\n' "$@"; }

# Runs a command in its own process group. bash reacts to a signal while it waits, but not while a command is in the foreground.
stoppable() {
    "$@" < /dev/null &
    job=$!
    wait "$job"
}

# Nothing has to be saved here: the next start empties the folders and makes unfinished environments again.
stop() {
    kill -KILL -- "-$job"
    wait "$job"
    exit 130
} 2> /dev/null

set -m
trap stop INT TERM

# The interpreter for a Python version: on the path, else of pyenv.
find_python() {
    local candidate
    for candidate in "python$1" "${HOME:-}"/.pyenv/versions/"$1".*/bin/python; do
        if "$candidate" -c "import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# Sets `python` to that of the environment for a leg, which is made when it is missing or unfinished.
enter() {
    local version=$1 requirements=requirements.txt venv=$matrix/venv-$1 base
    if [ "$1" = 1.10 ]; then version=3.9 requirements=requirements-mindspore-gpu-1.10.txt; fi
    python=$root/.venv/bin/python
    if [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$version" ]; then return; fi
    python=$venv/bin/python
    if [ "$(cat "$venv/.installed" 2>/dev/null)" = "$(sha256sum < "$root/$requirements")" ]; then return; fi
    base=$(find_python "$version") || { why="no Python $version"; return 1; }
    if [ -e "$venv" ] && [ ! -e "$venv.made" ] && [ ! -e "$venv/.installed" ]; then
        why="$venv is not from this script; remove or rename it"
        return 2
    fi
    say "making $venv with $("$base" --version)"
    touch "$venv.made"  # beside it: the next line empties the folder
    stoppable "$base" -m venv --clear "$venv" &&
        stoppable "$python" -m pip install -qq --disable-pip-version-check --no-input -r "$root/$requirements" || { why="no packages"; return 2; }
    sha256sum < "$root/$requirements" > "$venv/.installed"
}

# Runs a program of the repository, its output to the log, and appends "ok", "exit N" or "-" (after a failure) to `cells`.
program() {
    if [ "$broken" = 1 ]; then cells+=(-); return; fi
    stoppable env -C "$out" "$python" "$root/$1" "${@:2}" >> "$log" 2>&1
    local code=$?
    case $code in
        0) cells+=(ok) ;;
        130) say "$1 was interrupted"; exit 130 ;;
        *) cells+=("exit $code") broken=1 failed=1 ;;
    esac
}

# All programs on one network; appends a row to the table.
try() {
    local leg=$1 name=$2 size=$3 width=$4 cells=()
    broken=0 out=$matrix/$leg-$name log=$matrix/$leg-$name.log
    if [ -e "$out" ] && [ ! -e "$out/.made" ]; then
        echo "error: $out is not from this script; remove or rename it, or choose another MATRIX" >&2
        exit 2
    fi
    rm -rf "$out"
    mkdir -p "$out"
    touch "$out/.made"
    : > "$log"
    local data=(--coco_root="$out/data" --metric_engine=pycocotools --device_target=CPU --compile_cache=)
    program scripts/make_demo_data.py data --images 24 --val 7
    program train.py "${data[@]}" --model="$name" --image_size="$size" --width="$width" --output_path=run --weight_init=he \
        --epoch_size=1 --batch_size=4 --warmup_epochs=0.5 --lr=0.02 --log_interval=2 --min_score=0.01 --run_eval=True --eval_batch_size=4
    program eval.py "${data[@]}" --checkpoint_file_path=run/ckpt/last.ckpt
    program export.py --checkpoint_file_path=run/ckpt/last.ckpt --file_format=MINDIR --file_name=ssd
    program eval.py "${data[@]}" --checkpoint_file_path=ssd.mindir --output_path=exported
    program scripts/compare_metrics.py run/eval/metrics.json exported/eval/metrics.json
    rows+=("$(row "$leg" "$name" "${cells[@]}")")
    say "${rows[-1]}"
    if [ "$broken" = 1 ]; then say "the end of $log:"; tail -n 15 "$log"; fi
}

mkdir -p "$matrix"
for leg in "${legs[@]}"; do
    if ! enter "$leg"; then
        rows+=("$(printf '%-5s not run: %s' "$leg" "$why")")
        if [ $# -gt 0 ] || [[ $why != "no Python"* ]]; then failed=1; fi
        continue
    fi
    ran=1
    for network in "${networks[@]}"; do
        read -r name size width <<< "$network"
        try "$leg" "$name" "$size" "$width"
    done
done

echo
row leg network data train eval export mindir equal
printf '%s\n' "${rows[@]}"
if [ $ran = 0 ]; then
    echo "error: no leg could be run; the table says why" >&2
    failed=1
fi
exit $failed
