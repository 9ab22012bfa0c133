"""The state around the training loop: where it starts, what is saved and evaluated after an epoch."""
import contextlib
import os
import time

import mindspore as ms
import numpy as np

from src import checkpoint, engine
from src.compile_cache import FREE
from src.config import read_yaml, split_options
from src.data.annotations import classes_from
from src.data.loader import EvalLoader
from src.data.mindrecord import prepare_split
from src.distributed import all_reduce, wait_for_all
from src.errors import DataError, EnvironmentFault, Interrupted, NotFiniteError, OptionError, SSDError
from src.evaluate import collect, first_images, score
from src.logger import read_log
from src.meter import Meter, peak_memory
from src.metrics import import_engine, split_notes
from src.models.ssd import BUILDERS, build_model
from src.optim import split_names
from src.predictor import describe, from_model
from src.pretrained import assign, load_pretrained
from src.recipe import batch_hint, check_milestones, scaling_hint
from src.report import draw_predictions, draw_training_batch
from src.run_folder import git_commit, open_run_folder, read_json
from src.runtime import loader_threads
from src.visualize import plot_history

LOGGED = ("AP", "AP50", "AP75", "mAP_11point", "mAP_area")
STATE = ("model", "classes", "image_size", "width")  # what a resumed run may not change
OVERFIT_GOAL = 0.95  # AP50
MOST_NAMES = 25      # classes in a line


def prepare_splits(options, rank, say):
    """The training split, and the validation split with run_eval (else None), converted when needed.

    With overfit both are the training split.
    """
    train = prepare_split(**split_options(options, "train"), classes=options.classes, rank=rank, log=say)
    if options.overfit or not options.run_eval:
        return train, train if options.overfit else None
    origin = "that of --classes" if options.classes else f"that of the training split {train.name}"
    with classes_from(f"the list is {origin}: give the validation split of the same data"):
        return train, prepare_split(**split_options(options, "val"), classes=train.classes, rank=rank, log=say)


def check_options(options):
    """Raises what would come out only after the data was converted, which can take minutes."""
    if options.model not in BUILDERS:
        build_model(options.model, 2)  # raises
    if options.pre_trained and not os.path.exists(options.pre_trained):
        raise OptionError(f"pre_trained '{options.pre_trained}' is not a file")
    check_milestones(options)
    if options.dataset != "voc" and (options.run_eval or options.overfit):
        import_engine(options.metric_engine)
    if options.device_target == "CPU" and options.amp_level == "O1":
        raise EnvironmentFault("amp_level=O1 cannot be used on CPU: MindSpore 2.10 exceeds its own limit of nested "
                               "calls on it; O0, O2 and O3 run there (slower than O0), auto may")
    if options.device_target == "CPU" and options.amp_level != "O0" and options.amp_type == "bfloat16":
        raise EnvironmentFault("amp_type=bfloat16 cannot be used on CPU: MindSpore 2.10 has no convolution of it; "
                               "float16 runs")


def describe_run(options, model, split, frozen, loader):
    """First line of log.jsonl."""
    return {"mindspore": ms.__version__, "numpy": np.__version__, "device": options.device_target,
            "processes": loader.world, "model": model.name, "image_size": model.image_size, "frozen_tensors": frozen,
            "parameters": sum(one.size for one in model.network.trainable_params()), "anchors": len(model.anchors),
            "classes": len(split.classes), "train_images": loader.rows, "batch": loader.batch_size * loader.world,
            "commit": git_commit(), "time": time.strftime("%Y-%m-%d %H:%M:%S")}


class Run:
    """What a run knows beside its step: options, data, progress, log.

    Of the state of a run, `best` is its best score (-1: none yet), `since_best` counts evaluations after it, `meter`
    holds what the next log row sums up. average: an ema.WeightAverage or None.
    """

    def __init__(self, options, model, train_split, val_split, loader, log, rank, world):
        self.options, self.model, self.loader, self.log = options, model, loader, log
        self.rank, self.world, self.split, self.val_split = rank, world, train_split, val_split
        self.folder, self.step, self.steps_done = os.path.join(options.output_path, "ckpt"), None, 0
        self.best, self.since_best, self.owed = -1.0, 0, False
        total = options.epoch_size * loader.steps
        self.meter = Meter(min(total, options.max_steps or total), loader.batch_size * world)
        most = options.overfit or options.eval_images
        self.truth = first_images(read_json(val_split.ground_truth), most) if val_split else None
        if val_split:
            self.eval_loader = EvalLoader(val_split.files, len(self.truth["images"]), model.image_size,
                                          options.eval_batch_size, rank, world,
                                          options.num_workers or loader_threads(), options.resize)
            self.predict = from_model(model, self.split.classes, options, options.eval_batch_size)

    def load_pretrained(self):
        """Fills the network from --pre_trained and says what fitted."""
        if self.options.pre_trained and not self.options.resume:
            self.log.say(load_pretrained(self.model.network, self.options.pre_trained, self.model.name,
                                         self.options.filter_weight, frozen=split_names(self.options.freeze_layer)))

    def attach(self, step):
        """Takes the TrainStep and, with --resume, restores it. Returns the first step to run."""
        self.step = step
        if not self.options.resume:
            self.meter.done = self.options.pre_trained_epoch_size * self.loader.steps
            return self.meter.done
        values, meta, path = checkpoint.load_newest(self.folder, self.log.say)
        ours = describe(self.model, self.split.classes, self.options)
        for key in STATE:
            if meta.get(key) != ours[key]:
                raise OptionError(f"--resume=True: '{path}' holds {key} {meta.get(key)}, the options give {ours[key]}")
        values = {name: value for name, value in values.items() if not name.startswith("learning_rate")}
        _, skipped, missing = assign(step, values)
        unfit = [*skipped, *(name for name in missing if not name.startswith(("learning_rate", "micro_")))]
        if unfit:
            raise OptionError(f"--resume=True: '{path}' does not fit this run: {unfit[0]}")
        self.best, self.since_best, self.steps_done = meta["best"], meta.get("since_best", 0), meta["steps_done"]
        if meta["steps_per_epoch"] == self.loader.steps:
            self.meter.steps = meta.get("unlogged", [])
        else:  # other processes or another batch: the same place in the epochs
            self.steps_done = round(self.steps_done * self.loader.steps / meta["steps_per_epoch"])
            step.optimizer.global_step.set_data(ms.Tensor([self.steps_done], ms.int32))
        self.meter.done = self.steps_done
        for change in self.changes(meta):
            self.log.say(f"changed since: {change}")
        best = f"best so far {self.best:.4f}" if self.best >= 0 else "not evaluated yet"
        epoch = min(self.steps_done // self.loader.steps + 1, self.options.epoch_size)
        self.log.say(f"resumed after step {self.steps_done}, epoch {epoch}, {best}, from {os.path.basename(path)}")
        if self.steps_done >= self.meter.total:
            self.log.say("all steps of this run are done; a larger --epoch_size (or --max_steps) goes on")
        self.owed = not meta.get("settled", True)
        return self.meter.total if self.stalled() else self.steps_done

    def stalled(self):
        """Whether early_stop ends the run."""
        return 0 < self.options.early_stop <= self.since_best

    def catch_up(self):
        """Does what followed the last epoch of an interrupted run. Returns as after_epoch."""
        return self.owed and self.after_epoch(self.steps_done // self.loader.steps, self.steps_done)

    def changes(self, meta):
        """What is not as it was when the checkpoint was written, as texts."""
        ours = self.surroundings()
        yield from (f"{key} {meta[key]} -> {ours[key]}" for key in ours if key in meta and meta[key] != ours[key])
        path = os.path.join(self.options.output_path, "config.yaml")
        before = read_yaml(path) if os.path.isfile(path) else {}
        yield from (f"{key} {before[key]} -> {value}" for key, value in self.options.items()
                    if key in before and key not in FREE and before[key] != value)

    def surroundings(self):
        """What a run should find again when it goes on, beside its options."""
        return {"processes": self.world, "steps_per_epoch": self.loader.steps, "train_images": self.split.count,
                "annotations": self.split.fingerprint[:12], "mindspore": ms.__version__}

    def open(self, start, frozen):
        """Opens the folder and says what is trained, and draws the first batch. start: first step to run; frozen:
        number of tensors that stay as they are."""
        if self.rank == 0:
            open_run_folder(self.options.output_path, self.options)
            self.log.open(self.options.output_path, start)
        facts = describe_run(self.options, self.model, self.split, frozen, self.loader)
        self.log.write(facts)
        self.log.say(", ".join(f"{key} {value}" for key, value in facts.items()))
        names = self.split.classes
        self.log.say(f"classes: {', '.join(names[:MOST_NAMES])}{', ..' if len(names) > MOST_NAMES else ''}")
        notes = split_notes(self.truth, self.options.dataset, self.options.max_boxes) if self.truth else []
        hints = batch_hint(self.options, self.loader), scaling_hint(self.options, self.world)
        for line in filter(None, (*hints, *notes)):
            self.log.say(line)
        if self.rank == 0:
            path = os.path.join(self.options.output_path, "train_batch.png")
            draw_training_batch(path, next(iter(self.loader.epoch(0))), self.model.anchors, self.split.classes)
            self.log.picture("train/first_batch", path, 0)

    def train(self, rates, start):
        """Runs the loop from step `start` on and keeps what is needed however it ends. rates: of every step."""
        self.step.set_train()
        try:
            self.loop(rates, start)
        except (Interrupted, NotFiniteError) as error:  # which all processes meet at the same step
            wait_for_all(self.world)  # the first process that leaves ends the others
            raise (error.__cause__ or error) from None  # the cause: what this process met alone
        wait_for_all(self.world)
        name = "mAP (area)" if self.options.dataset == "voc" else "AP"
        best = f", best {name} {self.best:.4f} in best.ckpt" if self.best >= 0 else ""
        self.log.say(f"done: {self.folder}/last.ckpt{best}, peak memory {peak_memory():.1f} GiB")

    def loop(self, rates, start):
        """The steps, the state saved and the log closed however they end."""
        options, images = self.options, read_json(self.split.ground_truth)["images"]
        try:
            if not self.catch_up():
                engine.train(self.step, self.loader, rates, self.log, self.meter, start, options.max_steps,
                             options.log_interval, lambda row: images[row]["file_name"], options.save_checkpoint_steps,
                             lambda done: self.save("last", done), self.after_epoch)
        except NotFiniteError:
            self.save("diverged")
            raise
        except (DataError, EnvironmentFault):  # between two steps; it can be mended and the run resumed
            with contextlib.suppress(EnvironmentFault):  # it may be the saving that fails
                self.save("last", self.meter.done)
            raise
        finally:
            self.finish()

    def save(self, name, steps_done=None, keep=0, settled=False):
        """Writes ckpt/<name>.ckpt with everything a resumed run needs; on rank 0 only.

        settled: nothing of what follows an epoch is still to be done.
        """
        self.steps_done = self.steps_done if steps_done is None else steps_done
        if self.rank == 0:
            meta = describe(self.model, self.split.classes, self.options, category_ids=self.split.category_ids,
                            best=self.best, since_best=self.since_best, steps_done=self.steps_done,
                            settled=settled or self.steps_done % self.loader.steps > 0, unlogged=self.meter.steps,
                            commit=git_commit(), **self.surroundings())
            checkpoint.save_run(self.folder, name, list(self.step.get_parameters()), meta, keep)

    def after_epoch(self, epoch, steps_done):
        """Evaluates and saves as the options ask; `epoch` epochs are done. Returns whether the run has reached its end.

        It has after early_stop evaluations without a better score, and with overfit when the goal is reached.
        """
        options, ended = self.options, False
        last = steps_done == self.meter.total
        if self.truth and epoch >= options.eval_start_epoch and (epoch % options.eval_interval == 0 or last):
            ended = self.evaluate(epoch, steps_done)
        if ended or last or options.save_checkpoint_steps or epoch % options.save_checkpoint_epochs == 0:
            self.save("last", steps_done, settled=True)
        if ended or last or epoch % options.save_checkpoint_epochs == 0:
            self.save(f"epoch_{epoch:04d}", steps_done, options.keep_checkpoint_max, settled=True)
        return ended

    def evaluate(self, epoch, steps_done):
        """Scores the network on the validation split and keeps it as best.ckpt when it is the best so far.

        Returns on all processes whether the run shall end.
        """
        average = self.step.average
        self.step.set_train(False)
        with average.in_place() if average else contextlib.nullcontext():
            table = collect(self.predict, self.eval_loader, self.rank, self.world)
        self.step.set_train()
        ended = self.judge(table, epoch, steps_done) if self.rank == 0 else False
        if self.world == 1 or not self.options.early_stop and not self.options.overfit:
            return ended
        return bool(all_reduce(np.array([ended], np.float32))[0])

    def judge(self, table, epoch, steps_done):
        """Logs the score of all detections, draws some, saves best.ckpt. Returns whether the run shall end."""
        metrics, _ = score(table, self.truth, self.options.dataset, self.options.metric_engine)
        numbers = {name: metrics[name] for name in LOGGED if name in metrics}
        self.log.write({"step": steps_done, "epoch": epoch, **numbers}, "eval")
        self.log.say(f"epoch {epoch}  " + "  ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
        path = os.path.join(self.options.output_path, "eval", "predictions.png")
        if draw_predictions(path, self.truth, table, self.val_split, self.split.classes, self.options.draw_score):
            self.log.picture("eval/predictions", path, steps_done)
        value = metrics.get("AP", metrics.get("mAP_area"))
        self.since_best += 1
        if value > self.best:
            self.best, self.since_best = value, 0
            self.save("best", steps_done, settled=True)
        if self.options.overfit:
            return self.learnt(metrics, steps_done)
        if self.stalled():
            self.log.say(f"{self.since_best} evaluations without a better score than {self.best:.4f}: the run ends")
        return self.stalled()

    def learnt(self, metrics, steps_done):
        """Whether the images of the self-test are known by heart. Raises SSDError when it ends without."""
        value = metrics.get("AP50", metrics.get("mAP_area"))
        images = len(self.truth["images"])
        if value > OVERFIT_GOAL:
            self.log.say(f"overfit: AP50 {value:.4f} on {images} images after {steps_done} steps, passed")
        elif steps_done == self.meter.total:
            raise SSDError(f"overfit: AP50 {value:.4f} on {images} images after {steps_done} steps, wanted above "
                           f"{OVERFIT_GOAL}; look at train_batch.png (are the boxes right?) and eval/predictions.png, "
                           "try fewer images, a larger --epoch_size or another --lr; with a loss near zero the "
                           "missing boxes are too small for --image_size or overlap by more than --nms_threshold")
        return value > OVERFIT_GOAL

    def finish(self):
        """Draws the curves, a resumed run's from its beginning, and closes the log, however the run ended."""
        rows = read_log(os.path.join(self.options.output_path, "log.jsonl")) if self.rank == 0 else []
        if any("loss" in row for row in rows):
            plot_history(rows, os.path.join(self.options.output_path, "training.png"), self.loader.steps)
        self.log.close()
