#!/usr/bin/env bash
# From an empty folder to pictures: sets up .venv, draws a data set, trains, evaluates, exports and predicts. No download but the packages.
#
#   bash scripts/run_demo.sh [OUTPUT_FOLDER]        under 5 minutes on two cores
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/arguments.sh
at_most 1 "$@"
out=${1:-demo}
if [ -e "$out/run" ]; then
    fail 2 "$out/run holds the result of an earlier demo; remove it or name another folder: bash scripts/run_demo.sh OTHER"
fi
step() { echo; echo "=== [${SECONDS}s] $*"; }

# Runs two functions at the same time, as compiling a graph takes one core; shows the output of the second after that of the first.
together() {
    local log=$out/$2.log job code=0
    "$2" > "$log" 2>&1 &
    job=$!
    "$1" || code=$?
    wait "$job" || code=$?
    cat "$log"
    return "$code"
}

step "packages"
bash scripts/setup_env.sh
python=.venv/bin/python

step "a data set of drawn shapes"
$python scripts/make_demo_data.py "$out/data" --images 600 --val 80

step "training"
options=(--config_path=config/demo.yaml --coco_root="$out/data" --mindrecord_dir="$out/mindrecord")
$python train.py "${options[@]}" --output_path="$out/run"

evaluate() { $python eval.py "${options[@]}" --checkpoint_file_path="$out/run/ckpt/last.ckpt" --output_path="$out/run"; }
export_it() {
    $python export.py --checkpoint_file_path="$out/run/ckpt/last.ckpt" --file_format=MINDIR --file_name="$out/ssd"
}
step "evaluating the last checkpoint and exporting it to MindIR"
together evaluate export_it

evaluate_export() { $python eval.py "${options[@]}" --checkpoint_file_path="$out/ssd.mindir" --output_path="$out/mindir"; }
predict() {
    $python predict.py --checkpoint_file_path="$out/ssd.mindir" --source="$out/data/val2017" --output_path="$out/predictions" \
        --draw_score=0.2
}
step "evaluating the exported file and predicting with it"
together evaluate_export predict

step "done"
$python scripts/compare_metrics.py "$out/run/eval/metrics.json" "$out/mindir/eval/metrics.json"
echo "look at: $out/run/train_batch.png  $out/run/training.png  $out/run/eval/predictions.png  $out/run/eval/pr_curves.png  $out/predictions/"
