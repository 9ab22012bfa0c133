"""What each part of a recipe adds: short trainings that differ from a base in one option each, on several data sets.

    python bench/ablation.py --data=FOLDER --output=RUNS [--table=bench/ablation.yaml] [--seeds=1,2] [--jobs=2]
        [--only=ROW,ROW] [--json=FILE]

The table names the data sets below FOLDER, the options of the base, and the rows. Each training is train.py in a
process of its own, in RUNS/DATA/ROW/seedN, with its output in log.txt; `jobs` of them run side by side, each on its
share of the cores. A finished training is not run again. The numbers are those of the last evaluation, never the best
one: a choice made on the validation split would flatter it. Prints a Markdown table of means over the seeds and half
the distance of the largest from the smallest.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import yaml
from common import ROOT, arguments, commit, machine

TABLE = os.path.join(ROOT, "bench", "ablation.yaml")
SHOWN = {"coco": ("AP", "AP50"), "voc": ("AP", "mAP_area")}  # by the data set's protocol


def main():
    """Runs what is missing, prints the table."""
    parser = arguments(__doc__)
    parser.add_argument("--data", required=True, type=os.path.abspath, help="folder of the data sets")
    parser.add_argument("--output", required=True, type=os.path.abspath, help="folder of the runs")
    parser.add_argument("--table", default=TABLE, help="data sets, base and rows")
    parser.add_argument("--seeds", default="1,2", help="one training each")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--only", default="", help="names of rows, all by default")
    options = parser.parse_args()
    with open(options.table, encoding="utf-8") as file:
        table = yaml.safe_load(file)
    wanted = options.only.split(",") if options.only else list(table["rows"])
    unknown = [name for name in wanted if name not in table["rows"]]
    if unknown:
        sys.exit(f"error: --only={unknown[0]}: not a row of {options.table}; known are {', '.join(table['rows'])}")
    runs = [Run(table, data, name, int(seed), options) for name in wanted for data in table["data"]
            for seed in options.seeds.split(",")]
    train_all([run for run in runs if not run.result()], options.jobs)
    rows = [row for row in (run.result() for run in runs) if row]
    print(markdown(rows, wanted, list(table["data"])))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


class Run:
    """One training: a row of the table on a data set with a seed."""

    def __init__(self, table, data, name, seed, options):
        self.data, self.name, self.seed = data, name, seed
        self.folder = os.path.join(options.output, data, name.replace(" ", "_"), f"seed{seed}")
        fixed = (f"--output_path={self.folder}", f"--mindrecord_dir={os.path.join(options.output, 'mindrecord')}",
                 f"--seed={seed}", "--run_eval=True", "--keep_checkpoint_max=1", "--device_target=CPU")
        # a later option replaces an earlier one of the same name: the row wins over the data set, that over the base
        chosen = {}
        for option in (*fixed, *table["base"], *table["data"][data], *table["rows"][name]):
            chosen[option.partition("=")[0]] = option.replace("{data}", options.data)
        self.options = list(chosen.values())

    def train(self, cores):
        """Runs train.py on these cores. Returns its exit code."""
        shutil.rmtree(self.folder, ignore_errors=True)  # what a killed training left
        os.makedirs(self.folder)
        start = time.monotonic()
        with open(f"{self.folder}.txt", "w", encoding="utf-8") as log:
            done = subprocess.run([sys.executable, "train.py", *self.options], cwd=ROOT, stdout=log, stderr=log,
                                  preexec_fn=lambda: os.sched_setaffinity(0, cores), check=False)
        if done.returncode == 0:
            facts = {"minutes": round((time.monotonic() - start) / 60, 2), "cores": len(cores), "machine": machine(),
                     "date": time.strftime("%Y-%m-%d"), "commit": commit()}
            with open(os.path.join(self.folder, "ablation.json"), "w", encoding="utf-8") as file:
                json.dump(facts, file)
        return done.returncode

    def result(self):
        """The numbers of its last evaluation, None before it has ended."""
        path = os.path.join(self.folder, "ablation.json")
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8") as file:
            facts = json.load(file)
        with open(os.path.join(self.folder, "log.jsonl"), encoding="utf-8") as file:
            last = [row for row in map(json.loads, file) if "AP" in row][-1]
        scores = {name: last[name] for name in ("AP", "AP50", "AP75", "mAP_area") if name in last}
        return {"row": self.name, "data": self.data, "seed": self.seed, **scores, **facts, "options": self.options}


def train_all(runs, jobs):
    """Runs trainings, `jobs` at a time, each on its share of the cores, and says how each ended."""
    cores, free = sorted(os.sched_getaffinity(0)), SimpleQueue()
    for job in range(jobs):
        free.put(set(cores[job::jobs]) or set(cores))
    start = time.monotonic()

    def one(number):
        share, run = free.get(), runs[number]
        code = run.train(share)
        free.put(share)
        result = run.result() if code == 0 else None
        score = f"AP {result['AP']:.4f}" if result else f"failed with exit {code}, see {run.folder}.txt"
        left = (time.monotonic() - start) / (number + 1) * (len(runs) - number - 1) / 60
        print(f"{number + 1}/{len(runs)}  {run.data}  {run.name}  seed {run.seed}: {score}, {left:.0f} minutes left",
              flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, range(len(runs))))


def markdown(rows, names, data):
    """The table: a line a row, two columns a data set."""
    shown = {name: SHOWN["voc" if any("mAP_area" in row for row in rows if row["data"] == name) else "coco"]
             for name in data}
    heads = [f"{name} {score.replace('mAP_area', 'AP50 (area)')}" for name in data for score in shown[name]]
    lines = [f"| | {' | '.join(heads)} | seeds |", "|---" * (len(heads) + 2) + "|"]
    for name in names:
        cells, seeds = [], set()
        for part in data:
            found = [row for row in rows if (row["row"], row["data"]) == (name, part)]
            seeds |= {row["seed"] for row in found}
            cells += [spread([row[score] for row in found]) for score in shown[part]]
        lines.append(f"| {name} | {' | '.join(cells)} | {len(seeds)} |")
    return "\n".join(lines)


def spread(values):
    """The mean, and half the distance of the largest value from the smallest; not yet run without values."""
    if not values:
        return "not yet run"
    half = (max(values) - min(values)) / 2
    return f"{statistics.fmean(values):.3f}" + (f" ± {half:.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
