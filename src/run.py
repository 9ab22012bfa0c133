"""The state around the training loop: where it starts, what is saved and evaluated after an epoch."""
import contextlib
import json
import os
import time

import mindspore as ms
import numpy as np

from src import boxes, checkpoint
from src.config import split_options
from src.data.loader import EvalLoader
from src.data.mindrecord import prepare_split
from src.errors import EnvironmentFault, OptionError
from src.evaluate import collect, score
from src.models.ssd import BUILDERS, build_model
from src.predictor import describe, from_model
from src.pretrained import assign, load_pretrained
from src.recipe import check_milestones
from src.run_folder import git_commit, read_json
from src.visualize import draw_boxes, plot_history, plot_pictures

LOGGED = ("AP", "AP50", "AP75", "mAP_11point", "mAP_area")
STATE = ("model", "classes", "image_size", "width")  # what a resumed run may not change


def prepare_splits(options, rank, say):
    """The training split, and the validation split with run_eval (else None), converted when needed."""
    train = prepare_split(**split_options(options, "train"), classes=options.classes, rank=rank, log=say)
    if not options.run_eval:
        return train, None
    return train, prepare_split(**split_options(options, "val"), classes=train.classes, rank=rank, log=say)


def check_options(options):
    """Raises what would come out only after the data was converted, which can take minutes."""
    if options.model not in BUILDERS:
        build_model(options.model, 2)  # raises
    if options.pre_trained and not os.path.exists(options.pre_trained):
        raise OptionError(f"pre_trained '{options.pre_trained}' is not a file")
    check_milestones(options)
    if options.device_target == "CPU" and options.amp_level == "O1":
        raise EnvironmentFault("amp_level=O1 cannot be used on CPU: MindSpore 2.10 exceeds its own limit of nested "
                               "calls on it; O0, O2 and O3 run there (slower than O0), auto may")


def describe_run(options, model, split, frozen, world):
    """First line of log.jsonl."""
    return {"mindspore": ms.__version__, "numpy": np.__version__, "device": options.device_target, "processes": world,
            "model": model.name, "image_size": model.image_size, "frozen_tensors": frozen,
            "parameters": sum(one.size for one in model.network.trainable_params()), "anchors": len(model.anchors),
            "classes": len(split.classes), "train_images": split.count, "batch": options.batch_size * world,
            "commit": git_commit(), "time": time.strftime("%Y-%m-%d %H:%M:%S")}


def draw_first_batch(loader, model, classes, path, most=8):
    """Pictures of the first augmented batch with the boxes its targets stand for: shows crops, colours and matching."""
    images, labels, targets, _ = next(iter(loader.epoch(0)))
    tiles = []
    for image, label, target in list(zip(images, labels, targets))[:most]:
        positive = np.flatnonzero(label)
        found = boxes.decode(target[positive], model.anchors[positive])
        # all anchors of one object decode to the same box
        _, first = np.unique(np.column_stack([found.round(3), label[positive]]), axis=0, return_index=True)
        tiles.append(draw_boxes(image, found[first], label[positive][first], classes=classes))
    plot_pictures(tiles, path)


def read_log(path):
    """The rows of a log.jsonl: of a step that ran again after a crash the later one, and no line that was cut short."""
    rows = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                rows[row.get("step"), "loss" in row] = row
    return list(rows.values())


class Run:
    """What a run knows beside its step: options, data, best score, log."""

    def __init__(self, options, model, train_split, val_split, loader, log, rank, world):
        self.options, self.model, self.loader, self.log = options, model, loader, log
        self.rank, self.world, self.split = rank, world, train_split
        self.folder, self.best, self.step, self.steps_done = os.path.join(options.output_path, "ckpt"), -1.0, None, 0
        self.truth = read_json(val_split.ground_truth) if val_split else None
        if val_split:
            self.eval_loader = EvalLoader(val_split.files, val_split.count, model.image_size, options.eval_batch_size,
                                          rank, world, resize=options.resize)
            self.predict = from_model(model, self.split.classes, options, options.eval_batch_size)

    def load_pretrained(self):
        """Fills the network from --pre_trained and says what fitted."""
        if self.options.pre_trained and not self.options.resume:
            self.log.say(load_pretrained(self.model.network, self.options.pre_trained, self.model.name,
                                         self.options.filter_weight))

    def attach(self, step):
        """Takes the TrainStep and, with --resume, restores it. Returns the first step to run."""
        self.step = step
        if not self.options.resume:
            return self.options.pre_trained_epoch_size * self.loader.steps
        path = os.path.join(self.folder, "last.ckpt")
        values, meta = checkpoint.load(path)
        ours = describe(self.model, self.split.classes, self.options)
        for key in STATE:
            if meta.get(key) != ours[key]:
                raise OptionError(f"--resume=True: '{path}' holds {key} {meta.get(key)}, the options give {ours[key]}")
        values = {name: value for name, value in values.items() if not name.startswith("learning_rate")}
        _, skipped, missing = assign(step, values)
        unfit = [*skipped, *(name for name in missing if not name.startswith("learning_rate"))]
        if unfit:
            raise OptionError(f"--resume=True: '{path}' does not fit this run: {unfit[0]}")
        self.best, self.steps_done = meta["best"], meta["steps_done"]
        best = f"best so far {self.best:.4f}" if self.best >= 0 else "not evaluated yet"
        self.log.say(f"resumed after step {self.steps_done}, epoch {self.steps_done // self.loader.steps + 1}, {best}")
        return self.steps_done

    def save(self, name, steps_done=None, keep=0):
        """Writes ckpt/<name>.ckpt with everything a resumed run needs; on rank 0 only."""
        self.steps_done = self.steps_done if steps_done is None else steps_done
        if self.rank == 0:
            meta = describe(self.model, self.split.classes, self.options, category_ids=self.split.category_ids,
                            best=self.best, steps_done=self.steps_done, steps_per_epoch=self.loader.steps,
                            commit=git_commit())
            checkpoint.save_run(self.folder, name, list(self.step.get_parameters()), meta, keep)

    def after_epoch(self, epoch, steps_done):
        """Evaluates and saves as the options ask; `epoch` epochs are done."""
        options, total = self.options, self.options.epoch_size * self.loader.steps
        last = steps_done == min(total, options.max_steps or total)
        if self.truth and epoch >= options.eval_start_epoch and (epoch % options.eval_interval == 0 or last):
            self.evaluate(epoch, steps_done)
        if epoch % options.save_checkpoint_epochs == 0 or last:
            self.save("last", steps_done)
            self.save(f"epoch_{epoch:04d}", steps_done, options.keep_checkpoint_max)

    def evaluate(self, epoch, steps_done):
        """Scores the network on the validation split and keeps it as best.ckpt when it is the best so far."""
        self.step.set_train(False)
        table = collect(self.predict, self.eval_loader, self.rank, self.world)
        self.step.set_train()
        if self.rank > 0:
            return
        metrics, _ = score(table, self.truth, self.options.dataset, self.options.metric_engine)
        numbers = {name: metrics[name] for name in LOGGED if name in metrics}
        self.log.write({"step": steps_done, "epoch": epoch, **numbers}, "eval")
        self.log.say(f"epoch {epoch}  " + "  ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
        value = metrics.get("AP", metrics.get("mAP_area"))
        if value > self.best:
            self.best = value
            self.save("best", steps_done)

    def finish(self):
        """Draws the curves, a resumed run's from its beginning, and closes the log, however the run ended."""
        rows = read_log(os.path.join(self.options.output_path, "log.jsonl")) if self.rank == 0 else []
        if any("loss" in row for row in rows):
            plot_history(rows, os.path.join(self.options.output_path, "training.png"), self.loader.steps)
        self.log.close()
