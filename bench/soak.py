"""Hours of training or prediction: whether memory, files, threads and processes of the real programs stay as they are.

    python bench/soak.py --what=training --hours=2 --output=FOLDER
    python bench/soak.py --what=prediction --hours=1 --output=FOLDER --checkpoint_file_path=X.ckpt --video=CLIP
    python bench/soak.py FOLDER [FOLDER ..] [--picture=FILE.png] [--json=FILE]

"training" runs train.py with config/demo.yaml on drawn images: an epoch is 20 steps, an evaluation and a checkpoint.
"prediction" runs predict.py on a folder with a thousand names of one clip: each is opened, drawn, written and closed.
Every few seconds the memory, files, threads and processes of the program are written to FOLDER/samples.jsonl. At the
end the program gets Ctrl-C, and what it leaves is checked. The last form tells and draws what such folders hold.

Own memory is what is not of files: of those the kernel drops pages as it likes, so that all that is resident falls and
rises with other programs. Slopes are least squares through the means of 20 equal blocks of time, after a warm-up
of a fifth of the time since the first step or frame; ± is half of the 95 % interval of 18 degrees of freedom. Flat: the
whole interval lies within the limit, 2 % of the mean for memory and 1 an hour for what is counted.
"""
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
from common import ROOT, arguments, commit, machine
from processes import measure_tree, stop_tree

INTERVAL = 5.0          # seconds between two samples
TRAINING, VALIDATION = 160, 40  # drawn images: 20 steps an epoch
KEPT = 3                # numbered checkpoints
CLIPS = 1000            # names of the clip for each hour
WARM_UP = 0.2           # of the time since the first step or frame
BLOCKS, QUANTILE = 20, 2.101    # of Student's t, 97.5 %, for two degrees of freedom less than blocks
MEMORY = ("own", "rss")
LIMITS = {**dict.fromkeys(MEMORY, 0.02), **dict.fromkeys(("files", "threads", "processes", "shared"), 1)}  # an hour
NAMES = {"own": "own memory, MiB", "rss": "resident memory, MiB", "files": "file descriptors", "threads": "threads",
         "processes": "processes", "shared": "files in shared memory"}
WORK = re.compile(rb"^(?:step|predicting:) (\d+)", re.MULTILINE)  # the lines that say how far a program is
PATIENCE = 600          # seconds for the end of a program after Ctrl-C


def main():
    """Runs a program and watches it, or reads what was written of earlier ones; tells, and draws."""
    parser = arguments(__doc__)
    parser.add_argument("folders", nargs="*", type=os.path.abspath, help="folders of earlier runs to tell of")
    parser.add_argument("--what", choices=("training", "prediction"))
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--output", type=os.path.abspath, help="new folder of the run")
    parser.add_argument("--checkpoint_file_path", type=os.path.abspath, help="prediction: the model")
    parser.add_argument("--video", type=os.path.abspath, help="prediction: the clip")
    parser.add_argument("--picture", type=os.path.abspath, help="PNG of what was measured")
    options = parser.parse_args()
    if bool(options.what) != bool(options.output) or not (options.folders or options.what):
        parser.error("give --what and --output, or folders of earlier runs")
    if options.what == "prediction" and not (options.checkpoint_file_path and options.video):
        parser.error("--what=prediction needs --checkpoint_file_path and --video")
    folders = options.folders
    if options.what:
        os.makedirs(options.output)
        run(options)
        folders = [*folders, options.output]
    results = [summarize(folder) for folder in folders]
    for result in results:
        print("\n".join(lines_of(result)))
    if options.picture:
        draw(folders, results, options.picture)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


# --- running

def run(options):
    """Runs the program for its hours and writes samples.jsonl and run.json into the folder."""
    command = prepare_training(options) if options.what == "training" else prepare_prediction(options)
    folder, start = options.output, time.time()
    with open(os.path.join(folder, "output.txt"), "wb") as log:
        program = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        watch(program, folder, start + 3600 * options.hours)
    finally:
        ended = program.poll() is not None  # by itself, which it must not
        code = program.returncode if ended else stop_tree(program, signal.SIGINT, PATIENCE)
        facts = {"what": options.what, "hours": (time.time() - start) / 3600, "exit_code": code, "ended": ended,
                 "machine": machine(), "date": time.strftime("%Y-%m-%d"), "commit": commit()}
        with open(os.path.join(folder, "run.json"), "w", encoding="utf-8") as file:
            json.dump(facts, file, indent=1)


def prepare_training(options):
    """Draws a data set -> the command of a training that is longer than its hours."""
    images = ("--images", str(TRAINING), "--val", str(VALIDATION))
    subprocess.run([sys.executable, os.path.join(ROOT, "scripts", "make_demo_data.py"), "data", *images],
                   cwd=options.output, check=True)
    return [sys.executable, os.path.join(ROOT, "train.py"), f"--config_path={ROOT}/config/demo.yaml",
            "--coco_root=data", "--output_path=run", f"--epoch_size={round(5000 * max(options.hours, 1))}",
            "--run_eval=True", "--save_checkpoint_epochs=1", f"--keep_checkpoint_max={KEPT}", "--log_interval=10"]


def prepare_prediction(options):
    """Makes the folder of names -> the command of a prediction that is longer than its hours."""
    clips = os.path.join(options.output, "clips")
    os.mkdir(clips)
    for number in range(round(CLIPS * max(options.hours, 1))):
        os.symlink(options.video, os.path.join(clips, f"{number:05}{os.path.splitext(options.video)[1]}"))
    return [sys.executable, os.path.join(ROOT, "predict.py"), f"--checkpoint_file_path={options.checkpoint_file_path}",
            "--source=clips", "--output_path=run"]


def watch(program, folder, end):
    """Appends a sample to samples.jsonl every few seconds, until a time or the end of the program."""
    start, output = time.time(), os.path.join(folder, "output.txt")
    with open(os.path.join(folder, "samples.jsonl"), "w", encoding="utf-8") as file:
        while time.time() < end and program.poll() is None:
            sample = measure_tree(program.pid)
            if sample:
                done = WORK.findall(read_end(output))
                row = {"time": time.time() - start, **sample, "done": int(done[-1]) if done else 0}
                file.write(json.dumps(row) + "\n")
                file.flush()
            time.sleep(max(min(INTERVAL, end - time.time()), 0))


def read_end(path, size=8192):
    """The last bytes of a file."""
    with open(path, "rb") as file:
        file.seek(max(os.path.getsize(path) - size, 0))
        return file.read()


# --- telling

def summarize(folder):
    """What a folder holds, as a dict: facts, how much was done, slopes, what is wrong with the files it left."""
    with open(os.path.join(folder, "run.json"), encoding="utf-8") as file:
        facts = json.load(file)
    samples = read_lines(os.path.join(folder, "samples.jsonl"))
    series = {name: column(samples, name) for name in ("time", "done", *LIMITS)}
    hours = series["time"] / 3600
    if not series["done"].any():
        sys.exit(f"error: {folder}: nothing was done; give it more --hours")
    first = hours[np.flatnonzero(series["done"])[0]]
    warm = hours >= first + WARM_UP * (hours[-1] - first)
    slopes, done = {}, series["done"][warm]
    rate = (done[-1] - done[0]) / (hours[warm][-1] - hours[warm][0])
    for name, limit in LIMITS.items():
        mean = float(series[name][warm].mean())
        slope, error = fit_slope(hours[warm], series[name][warm])
        limit *= mean if name in MEMORY else 1
        slopes[name] = {"mean": mean, "slope": slope, "error": error, "limit": limit,
                        "verdict": judge(slope, error, limit)}
    faults = check_training(folder) if facts["what"] == "training" else check_prediction(folder)
    if facts["ended"] or facts["exit_code"] != 130:
        faults.append(f"exit {facts['exit_code']}, by itself" if facts["ended"] else f"exit {facts['exit_code']}")
    return {**facts, "done": int(series["done"][-1]), "cpu": samples[-1]["cpu"], "samples": len(samples),
            "rate": float(rate), "warm_from": float(hours[warm][0]), "slopes": slopes, "faults": faults}


def column(samples, name):
    """One number of all samples, [N]; memory in MiB."""
    return np.array([sample[name] for sample in samples], float) / (2 ** 20 if name in MEMORY else 1)


def fit_slope(hours, values):
    """Least squares through the means of BLOCKS equal parts of the time -> slope an hour, half its 95 % interval.

    hours, values: [N]. Neighbouring samples are not independent, the means of long blocks nearly are.
    """
    block = np.minimum((BLOCKS * (hours - hours[0]) / (hours[-1] - hours[0])).astype(int), BLOCKS - 1)
    counts = np.bincount(block, minlength=BLOCKS)
    if not counts.all():
        sys.exit(f"error: {len(hours)} samples do not fill {BLOCKS} blocks of time; give it more --hours")
    x, y = (np.bincount(block, array) / counts for array in (hours, values))
    x, y = x - x.mean(), y - y.mean()
    slope = (x * y).sum() / (x * x).sum()
    variance = ((y - slope * x) ** 2).sum() / (BLOCKS - 2) / (x * x).sum()
    return float(slope), float(QUANTILE * np.sqrt(variance))


def judge(slope, error, limit):
    """Whether an interval lies within a limit."""
    if abs(slope) + error <= limit:
        return "flat"
    return "grows" if slope - error > limit else "falls" if slope + error < -limit else "not clear"


def check_training(folder):
    """What is wrong with the files of a training, in words: log lines that are cut or missing, evaluations, weights."""
    with open(os.path.join(folder, "run", "log.jsonl"), encoding="utf-8") as file:
        text = file.read()
    faults, rows = [], []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            faults.append(f"line {number} of log.jsonl is broken")
    if not text.endswith("\n"):
        faults.append("the last line of log.jsonl is cut")
    steps = [row["step"] for row in rows if "loss" in row]
    if steps != list(range(10, 10 * len(steps) + 1, 10)):
        faults.append("log.jsonl lacks steps, or has some twice")
    evaluated, epoch = [row["step"] for row in rows if "AP" in row], TRAINING // 8
    wanted = list(range(epoch, epoch * len(evaluated) + 1, epoch))
    if evaluated != wanted or steps[-1] - epoch > (evaluated or [0])[-1]:
        faults.append("log.jsonl lacks evaluations")
    checkpoints = {name for name in os.listdir(os.path.join(folder, "run", "ckpt")) if name.endswith(".ckpt")}
    if not {"last.ckpt", "best.ckpt"} <= checkpoints or len(checkpoints) != 2 + min(len(evaluated), KEPT):
        faults.append(f"the checkpoints are {', '.join(sorted(checkpoints))}")
    return faults + unfinished(folder)


def check_prediction(folder):
    """What is wrong with the files of a prediction, in words: its rows, and a drawn video for each clip."""
    with open(os.path.join(folder, "run", "predictions.json"), encoding="utf-8") as file:
        rows = json.load(file)
    faults, last = [], ("", -1)
    for row in rows:
        if (row["file"] == last[0] and row["frame"] != last[1] + 1) or (row["file"] != last[0] and row["frame"]):
            faults.append(f"predictions.json lacks frames before {row['frame']} of {row['file']}")
        last = row["file"], row["frame"]
    clips = {os.path.splitext(os.path.basename(row["file"]))[0] for row in rows}
    drawn = {name[:-4] for name in os.listdir(os.path.join(folder, "run")) if name.endswith(".mp4")}
    if clips != drawn:
        faults.append(f"{len(clips)} clips were read, {len(drawn)} drawn")
    return faults + unfinished(folder)


def unfinished(folder):
    """The files that a program began and did not complete."""
    return [f"{name} is left" for _, _, names in os.walk(os.path.join(folder, "run")) for name in names
            if ".part" in name or name.startswith(".writing.")]


def read_lines(path):
    """The rows of a file of JSON lines; a soak that was killed may have cut the last one."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def unit_of(result):
    """What is counted in `done`."""
    return "steps" if result["what"] == "training" else "frames"


def lines_of(result):
    """A result as the lines of a Markdown page."""
    head = (f"{result['what']}, {result['hours']:.2f} hours, {result['done']:,} {unit_of(result)}, "
            f"{result['cpu'] / 60:.0f} minutes of CPU, {result['samples']} samples; {result['machine']}, "
            f"{result['date']}, commit {result['commit']}")
    lines = [head, "", "| | mean | slope an hour | limit | |", "|---|---|---|---|---|"]
    lines += [f"| {NAMES[name]} | {row['mean']:.4g} | {row['slope']:+.3g} ± {row['error']:.2g} | {row['limit']:.3g} | "
              f"{row['verdict']} |" for name, row in result["slopes"].items()]
    memory, each = result["slopes"]["own"], 1000 / max(result["rate"], 1)
    lines += ["", f"own memory in a thousand {unit_of(result)}: {each * memory['slope']:+.2g} ± "
              f"{each * memory['error']:.2g} MiB"]
    return [*lines, f"what it left: {'; '.join(result['faults']) or 'complete'}", ""]


def draw(folders, results, path):
    """A row of charts for each folder: memory, and what is counted, over the hours; the warm-up is grey."""
    from src.evaluation.plots import ACCENTS, GRID, new_figure, save_figure
    figure, axes = new_figure(2, width=4.6, height=2.7, rows=len(folders))
    for folder, result, pair in zip(folders, results, axes.reshape(-1, 2)):
        samples = read_lines(os.path.join(folder, "samples.jsonl"))
        hours = np.array([sample["time"] for sample in samples]) / 3600
        for axis, names in zip(pair, (MEMORY, ("files", "threads", "processes"))):
            axis.axvspan(0, result["warm_from"], color=GRID, zorder=0)
            for name, color in zip(names, ACCENTS):
                axis.plot(hours, column(samples, name), color=color, linewidth=1.2, label=NAMES[name].partition(",")[0])
                row = result["slopes"][name]
                warm = hours[hours >= result["warm_from"]]
                axis.plot(warm, row["mean"] + row["slope"] * (warm - warm.mean()), color="black", linewidth=0.8,
                          linestyle="--")
            axis.set(xlabel="hours", xlim=(0, hours[-1]), ylim=(0, None))
            axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        slope = result["slopes"]["own"]
        pair[0].set(ylabel="MiB", title=f"{result['what']}: {slope['slope']:+.2g} ± {slope['error']:.2g} MiB an hour")
        pair[1].set_title(f"{result['done']:,} {unit_of(result)}")
    save_figure(figure, path)


if __name__ == "__main__":
    main()
