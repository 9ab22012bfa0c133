"""A detector trained by torchvision on the data of train.py, in the same minutes, measured by the same metrics.

    python bench/torchvision_training.py --init=mobilenet_v2-b0353104.pth --dataset=voc --voc_root=DATA --minutes=40 \\
        --output=FOLDER [--ours=RUN] [--json=FILE]                      needs requirements-torchvision.txt

SSDLite of torchvision's own classes on MobileNetV2 (torchvision_peer.py), trained by the recipe of its
references/detection for ssdlite320_mobilenet_v3_large: SGD of 0.15 for 8 x 24 images (scaled to --batch_size), momentum
0.9, weight decay 4e-5, linear warm-up in the first epoch, cosine by epoch, random IoU crop and flip. With --minutes the
epochs that fit are estimated again after every epoch, and the cosine ends with the last of them; all counts, from the
start of the program to the last evaluation. Images, boxes and classes are those that train.py trains on. FOLDER gets
log.jsonl, metrics.json, detections.json, predictions.png and model.pth. A folder that holds a finished run is only
reported, beside --ours, the folder of a run of train.py.
"""
import json
import math
import os
import statistics
import sys
import tempfile
import time

from common import arguments, commit, in_fresh_process, machine, report, row

RATE, RATE_BATCH = 0.15, 8 * 24  # references/detection/README.md: --lr 0.15 --batch-size 24, "trained on 8x V100"
MOMENTUM, WEIGHT_DECAY = 0.9, 4e-5  # train.py's own default, and --weight-decay 0.00004 of that line
WARMUP_FACTOR, WARMUP_STEPS = 1 / 1000, 1000  # references/detection/engine.py, in the first epoch only
LOG_STEPS = 10
DRAW_SCORE = 0.4
DATA_OPTIONS = ("config_path", "dataset", "coco_root", "voc_root", "train_data_type", "val_data_type", "anno_path",
                "val_anno_path", "image_dir", "val_image_dir", "data", "val_share", "split_seed", "classes")
COMPARED = {"AP": "AP", "AP50": "AP50", "mAP_area": "AP50 by VOC's area rule", "images_per_second": "images/s"}


def main():
    """Trains unless that is done, and reports."""
    begun = time.monotonic()
    parser = arguments(__doc__)
    parser.add_argument("--init", type=os.path.expanduser, help="ImageNet weights of MobileNetV2, or none")
    parser.add_argument("--output", type=os.path.expanduser, help="folder of the run", required=True)
    parser.add_argument("--ours", type=os.path.expanduser, help="folder of a run of train.py to compare with")
    for name in DATA_OPTIONS:
        parser.add_argument(f"--{name}", type=os.path.expanduser, default="", help="as of train.py")
    parser.add_argument("--size", type=int, default=320, help="side of the square input in pixels")
    parser.add_argument("--batch_size", type=int, default=24)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--epochs", type=int, default=0, help="train for so many epochs, whatever time that takes")
    parser.add_argument("--eval_minutes", type=float, default=10, help="between two evaluations; 0 = at the end only")
    parser.add_argument("--workers", type=int, default=1, help="processes that load images; 0 = the one that trains")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--side", help="data: print what is trained on")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(read_data(options)))
        return
    log = os.path.join(options.output, "log.jsonl")
    if not os.path.exists(log):
        if not options.init:
            parser.error("--init is needed, a file of weights or none")
        run(options, begun)
    result = finished(log)
    if not result:
        sys.exit(f"error: the run in {options.output} did not end; remove the folder, or choose another --output")
    report(compare(result, options.ours), options.json)


# --- data, read by MindSpore in a process of its own

def read_data(options):
    """What train.py would train and evaluate on, JSON-able; boxes in pixels of their image."""
    from src.machine import process
    process.prepare("CPU")
    from src.config import read_options, split_options, take_data
    from src.data.formats import identify
    from src.data.prepare import prepare_split
    folder = os.path.join(tempfile.gettempdir(), "bench_mindrecord")
    typed = [f"--{name}={getattr(options, name)}" for name in DATA_OPTIONS if getattr(options, name)]
    settings, note = take_data(read_options([*typed, f"--mindrecord_dir={folder}"]), identify)
    notes = list(filter(None, [note]))
    train = prepare_split(**split_options(settings, "train"), classes=settings.classes, log=notes.append)
    val = prepare_split(**split_options(settings, "val"), classes=train.classes, log=notes.append)
    return {"dataset": settings.dataset, "classes": train.classes, "images": training_images(train, settings),
            "train_dir": train.image_dir, "val_dir": val.image_dir, "truth": val.ground_truth, "notes": notes}


def training_images(split, settings):
    """The images of a training split with their boxes; those that train.py does not train on are left out."""
    import numpy as np

    from src.data.mindrecord import read_rows
    from src.files import read_json
    columns, images = ["index", "boxes", "labels", "crowd", "difficult"], []
    listed = read_json(split.ground_truth)["images"]
    for found in read_rows(split.files, np.arange(split.count), columns):
        image = listed[int(found["index"])]
        used = (found["labels"] > 0) & (found["crowd"] == 0) & ((found["difficult"] == 0) | settings.use_difficult)
        size = np.array([image["width"], image["height"]] * 2)
        images.append({**image, "boxes": (found["boxes"].reshape(-1, 4)[used] * size).tolist(),
                       "labels": found["labels"][used].tolist()})
    return images


# --- training

def run(options, begun):
    """Reads the data, trains, evaluates; writes the folder of the run."""
    data = in_fresh_process(os.path.abspath(__file__), *sys.argv[1:], "--side=data")
    print("\n".join(data["notes"]))
    import torch
    import torchvision
    from torchvision_peer import build_model

    from src.files import read_json
    torch.manual_seed(options.seed)
    os.makedirs(options.output, exist_ok=True)
    model = build_model(len(data["classes"]) + 1, size=options.size, init=options.init)
    trainer = Trainer(options, model, data, begun)
    truth = read_json(data["truth"])
    trainer.write(torch=torch.__version__, torchvision=torchvision.__version__, threads=torch.get_num_threads(),
                  machine=machine(), commit=commit(), dataset=data["dataset"], classes=data["classes"],
                  images=len(trainer.pictures), val_images=len(truth["images"]), batch_size=trainer.batch_size,
                  rate=trainer.rate, parameters=sum(weight.numel() for weight in model.parameters()),
                  options={name: value for name, value in vars(options).items() if value is not None})
    numbers, seconds, due = {}, 0, options.eval_minutes
    while trainer.epoch < trainer.epochs:
        trainer.train_epoch()
        # before the first evaluation: as long as training on as many images, which is longer
        trainer.plan(seconds or trainer.seconds[0] * len(truth["images"]) / len(trainer.pictures))
        if due and trainer.minute() >= due:
            numbers, seconds = evaluate(trainer, data, truth)
            due = trainer.minute() + options.eval_minutes
    if not numbers or numbers["step"] < trainer.step:
        numbers, _ = evaluate(trainer, data, truth)
    torch.save({"model": model.state_dict(), "classes": data["classes"], "size": options.size, "init": options.init},
               os.path.join(options.output, "model.pth"))
    trainer.write(**numbers, finished=True, minutes=trainer.minute(), seed=options.seed, size=options.size,
                  images_per_second=statistics.median(trainer.speeds), dataset=data["dataset"])


class Trainer:
    """The recipe, its schedule and its log."""

    def __init__(self, options, model, data, begun):
        import torch
        from torchvision_peer import Pictures, loader, training_transform
        self.options, self.model, self.begun = options, model, begun
        # references/detection/coco_utils.py leaves images without boxes out
        self.pictures = [image for image in data["images"] if image["labels"]]
        self.batch_size = min(options.batch_size, len(self.pictures))
        self.batches = loader(Pictures(self.pictures, data["train_dir"], training_transform()), self.batch_size,
                              workers=options.workers, seed=options.seed)
        self.rate = RATE * self.batch_size / RATE_BATCH
        self.optimizer = torch.optim.SGD(model.parameters(), self.rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        self.step, self.epoch, self.epochs = 0, 0, max(options.epochs, 1)
        self.speeds, self.seconds, self.unlogged = [], [], []
        self.log = open(os.path.join(options.output, "log.jsonl"), "w", encoding="utf-8")

    def minute(self):
        """Minutes since the program started."""
        return round((time.monotonic() - self.begun) / 60, 3)

    def write(self, **values):
        """Appends a row to log.jsonl and shows its short values."""
        self.log.write(json.dumps(values) + "\n")
        self.log.flush()
        shown = {name: value for name, value in values.items() if not isinstance(value, (dict, list))}
        texts = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in shown.values()]
        print("  ".join(map(" ".join, zip(shown, texts))), flush=True)

    def plan(self, eval_seconds):
        """With --minutes, estimates again how many epochs fit, with evaluations of so many seconds."""
        every, left = self.options.eval_minutes, self.options.minutes * 60 - (time.monotonic() - self.begun)
        if not self.options.epochs:
            evaluations = 1 + (max(left, 0) // (every * 60) if every else 0)
            self.epochs = self.epoch + epochs_in(left - evaluations * eval_seconds, self.seconds)

    def train_epoch(self):
        """One pass over the images: forward, backward, step, log."""
        self.model.train()
        start = asked = time.monotonic()
        for number, (images, targets) in enumerate(self.batches):
            rate = self.rate * rate_factor(self.epoch, self.epochs, step=number, steps=len(self.batches))
            self.train_step(images, targets, rate)
            now = time.monotonic()
            self.speeds.append(len(images) / (now - asked))
            asked = now
            if self.step % LOG_STEPS == 0:
                self.write_losses(rate)
        self.epoch += 1
        self.seconds.append(time.monotonic() - start)

    def train_step(self, images, targets, rate):
        """One step of the optimiser. Ends the program, as the reference does, when the loss is not finite."""
        losses = self.model(list(images), list(targets))
        loss = sum(losses.values())
        if not math.isfinite(loss.item()):
            sys.exit(f"error: the loss is {loss.item()} at step {self.step + 1}")
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.step += 1
        self.unlogged.append([loss.item(), losses["classification"].item(), losses["bbox_regression"].item()])

    def write_losses(self, rate):
        """A row of the means since the last one."""
        loss, classification, box = map(statistics.fmean, zip(*self.unlogged))
        self.unlogged = []
        self.write(step=self.step, epoch=self.epoch, epochs=self.epochs, loss=loss, loss_cls=classification,
                   loss_box=box, lr=rate, images_per_second=statistics.median(self.speeds[-LOG_STEPS:]),
                   minute=self.minute())


def epochs_in(left, seconds):
    """How many more epochs end in `left` seconds, by the mean of those done; the first one, which starts the worker
    processes, counts only where it stands alone."""
    return max(int(left / statistics.fmean(seconds[1:] or seconds)), 0)


def rate_factor(epoch, epochs, *, step, steps):
    """Share of the learning rate at a step of an epoch, all from 0: linear warm-up in the first one, then
    CosineAnnealingLR with T_max=epochs, which changes once an epoch."""
    if epoch == 0:
        warmup = min(WARMUP_STEPS, steps - 1)
        return WARMUP_FACTOR + (1 - WARMUP_FACTOR) * min(step / warmup, 1) if warmup else 1
    return (1 + math.cos(math.pi * epoch / epochs)) / 2


# --- evaluation

def evaluate(trainer, data, truth):
    """Logs the metrics of the validation split, writes detections and pictures. Returns the row and its seconds."""
    import numpy as np
    from torchvision_peer import detect

    from src.evaluation.evaluate import compute_metrics
    from src.evaluation.report import draw_predictions
    from src.metrics import write_metrics
    start = time.monotonic()
    table = detect(trainer.model, truth["images"], data["val_dir"], workers=trainer.options.workers)
    detections = coco_results(table, truth)
    metrics, _ = compute_metrics(truth, detections, dataset=data["dataset"])
    write_metrics(trainer.options.output, metrics, detections)
    fractions = np.array(table, np.float32).reshape(-1, 7)
    sizes = np.array([[image["width"], image["height"]] * 2 for image in truth["images"]])
    fractions[:, 1:5] /= sizes[fractions[:, 0].astype(int)]
    draw_predictions(os.path.join(trainer.options.output, "predictions.png"), truth=truth, table=fractions,
                     image_dir=data["val_dir"], draw_score=DRAW_SCORE)
    seconds = time.monotonic() - start
    numbers = {"step": trainer.step, "epoch": trainer.epoch, "minute": trainer.minute(), **metrics,
               "eval_seconds": round(seconds, 2)}
    trainer.write(**numbers)
    return numbers, seconds


def coco_results(table, truth):
    """Rows of detect() as COCO results."""
    images, categories = truth["images"], truth["categories"]
    return [{"image_id": images[number]["id"], "category_id": categories[int(label) - 1]["id"],
             "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score} for number, x1, y1, x2, y2, score, label in table]


# --- report

def finished(path):
    """The last row of a run's log, {} where it did not end."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return rows[-1] if rows and rows[-1].get("finished") else {}


def compare(result, folder):
    """The table: the last evaluation and the median speed of both sides, ours None without a folder."""
    ours = read_ours(folder) if folder else {}
    data, size, minutes, epochs = (result[name] for name in ("dataset", "size", "minutes", "epoch"))
    return [row(f"{data}, {size} pixels, {meaning}", ours=ours.get(name), peer=result[name], unit="", better="higher",
                compared_with=f"torchvision's recipe, {minutes:.1f} minutes, {epochs} epochs:")
            for name, meaning in COMPARED.items() if name in result]


def read_ours(folder):
    """{name: value} of the last evaluation in the log of a run of train.py, and its median images a second."""
    from src.training.log import read_log
    rows = read_log(os.path.join(folder, "log.jsonl"))
    speeds = [found["images_per_second"] for found in rows if "images_per_second" in found]
    evaluated = [found for found in rows if "AP" in found or "mAP_area" in found]
    return {**(evaluated[-1] if evaluated else {}), "images_per_second": statistics.median(speeds)}


if __name__ == "__main__":
    main()
