"""Seconds from the command to the first training step, and to a prediction: the first start and the second.

    python bench/start_up.py --coco_root=COCO [--json=FILE]

`train.py` of three recipes and one step each, as a user types it, with an empty folder of compiled graphs and again
with what the first start left there. The data is converted before. Wall time of the whole program.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

from common import ROOT, arguments, report, row

RECIPES = {"ssd300_mobilenet_v2": "ssd300_mobilenet_v2_voc.yaml", "ssd300_resnet50": "ssd300_resnet50_coco.yaml",
           "ssd_resnet50_fpn": "ssd_resnet50_fpn_config_gpu.yaml"}


def main():
    """Starts every recipe twice."""
    parser = arguments(__doc__)
    parser.add_argument("--coco_root", type=os.path.expanduser, required=True)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        data = ["--dataset=coco", f"--coco_root={os.path.abspath(options.coco_root)}",
                f"--mindrecord_dir={scratch}/mindrecord"]
        run([sys.executable, os.path.join(ROOT, "prepare_data.py"), *data], scratch)
        for name in options.recipes.split(","):
            command = [sys.executable, os.path.join(ROOT, "train.py"), *data, "--device_target=CPU", "--batch_size=2",
                       f"--config_path={ROOT}/config/{RECIPES[name]}", "--run_eval=False", "--max_steps=1",
                       "--loss_scale=1", "--lr=0.001", "--output_path=run", "--amp_level=O0"]
            first, second = run(command, scratch), run(command, scratch)
            rows.append(row(f"first step of {name}, second start", ours=second, peer=first, unit="s",
                            compared_with="first start"))
    report(rows, options.json)


def run(command, scratch):
    """Seconds of a command in the scratch folder, whose last run is removed before."""
    shutil.rmtree(os.path.join(scratch, "run"), ignore_errors=True)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)}\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
