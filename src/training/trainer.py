"""The state around the training loop: where it starts, what is saved and evaluated after an epoch."""
import contextlib
import os
import time

import mindspore as ms
import numpy as np

from src.config import split_options
from src.data.labels import classes_from
from src.data.loader import EvalLoader
from src.data.prepare import prepare_split
from src.errors import DataError, EnvironmentFault, Interrupted, NotFiniteError, OptionError
from src.evaluation.evaluate import collect_detections, compute_metrics, first_images, has_memorised
from src.evaluation.plots import plot_history
from src.evaluation.report import draw_predictions, draw_training_batch
from src.files import read_json
from src.inference.description import describe
from src.inference.predictor import from_model
from src.machine.distributed import all_reduce, average_parameters, wait_for_all
from src.machine.process import loader_threads
from src.metrics import import_engine, split_notes
from src.models.norms import STATISTICS
from src.models.ssd import BUILDERS, build_model
from src.option_rules import graph_options
from src.text import split_names
from src.training import loop
from src.training.build import batch_hint, check_milestones, scaling_hint, start_hint
from src.training.log import read_log
from src.training.meter import Meter, peak_memory
from src.training.resume import changes, check_same_state, refuse_other_network, restore
from src.training.run_folder import open_run_folder
from src.version import git_commit
from src.weights import checkpoint
from src.weights.files import open_weights
from src.weights.load import load_pretrained

LOGGED = ("AP", "AP50", "AP75", "mAP_11point", "mAP_area")
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
    if options.pre_trained and not options.resume and not os.path.exists(options.pre_trained):
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
    holds what the next log row sums up; `settled` is the step after which nothing was left to do, `kept` that of
    last.ckpt, `owed` whether what follows an epoch was cut off and comes first. average: an ema.WeightAverage or None.
    """

    def __init__(self, options, model, train_split, val_split, loader, log, rank, world):
        self.options, self.model, self.loader, self.log = options, model, loader, log
        self.rank, self.world, self.split, self.val_split = rank, world, train_split, val_split
        self.folder, self.step, self.steps_done = os.path.join(options.output_path, "ckpt"), None, 0
        self.best, self.since_best, self.owed, self.settled, self.kept = -1.0, 0, False, -1, None
        total = options.epoch_size * loader.steps
        self.meter = Meter(min(total, options.max_steps or total), loader.batch_size * world)
        most = options.overfit or options.eval_images
        self.truth = first_images(read_json(val_split.ground_truth), most) if val_split else None
        if val_split:
            self.eval_loader = EvalLoader(val_split.files, rows=len(self.truth["images"]),
                                          image_size=model.image_size, batch_size=options.eval_batch_size, rank=rank,
                                          world=world, workers=options.num_workers or loader_threads(),
                                          resize=options.resize)
            self.predict = from_model(model, self.split.classes, thresholds=options,
                                      batch_size=options.eval_batch_size)

    def load_pretrained(self):
        """Fills the network from --pre_trained and says what fitted."""
        if self.options.pre_trained and not self.options.resume:
            file = open_weights(self.options.pre_trained)
            self.log.say(load_pretrained(self.model.network, file, self.model.name,
                                         leave_out_classes=self.options.filter_weight,
                                         frozen=split_names(self.options.freeze_layer)))

    def attach(self, step, saved=None):
        """Takes the TrainStep and restores a resume.Saved into it. Returns the first step to run.

        Raises OptionError when it does not fit, and on all processes when their weights are not the same.
        """
        self.step = step
        if saved is None:
            self.meter.done = self.options.pre_trained_epoch_size * self.loader.steps
        else:
            self.resume(saved)
            self.meter.done = self.kept = self.steps_done
        step.start_at(self.meter.done)
        self.settled = -1 if self.owed else self.meter.done
        check_same_state(step, [self.meter.done, self.best, self.since_best, self.owed], self.options,
                         rank=self.rank, world=self.world)
        return self.meter.total if self.stalled() else self.meter.done

    def resume(self, saved):
        """Restores a resume.Saved and says what has changed and where the run goes on."""
        refuse_other_network(saved, describe(self.model, self.split.classes, self.options))
        restore(self.step, saved, self.options)
        meta = saved.meta
        self.best, self.since_best, self.steps_done = meta["best"], meta.get("since_best", 0), meta["steps_done"]
        if meta["steps_per_epoch"] == self.loader.steps:
            self.meter.steps = meta.get("unlogged", [])
        else:  # other processes or another batch: the same place in the epochs
            self.steps_done = round(self.steps_done * self.loader.steps / meta["steps_per_epoch"])
        for change in changes(saved, self.options, self.surroundings()):
            self.log.say(f"changed since: {change}")
        best = f"best so far {self.best:.4f}" if self.best >= 0 else "not evaluated yet"
        epoch = min(self.steps_done // self.loader.steps + 1, self.options.epoch_size)
        self.log.say(f"resumed after step {self.steps_done}, epoch {epoch}, {best}, from "
                     f"{os.path.basename(saved.path)}")
        if self.steps_done >= self.meter.total:
            self.log.say("all steps of this run are done; a larger --epoch_size (or --max_steps) goes on")
        self.owed = not meta.get("settled", True) and self.ends(self.steps_done)

    def ends(self, steps_done):
        """Whether an evaluation and a checkpoint may follow that step: it is the last one of an epoch or of the run."""
        return steps_done % self.loader.steps == 0 or steps_done == self.meter.total

    def stalled(self):
        """Whether early_stop ends the run."""
        return 0 < self.options.early_stop <= self.since_best

    def catch_up(self):
        """Does what followed the last epoch of an interrupted run. Returns as after_epoch."""
        return self.owed and self.after_epoch(-(-self.steps_done // self.loader.steps), self.steps_done)

    def surroundings(self):
        """What a run should find again when it goes on, beside its options."""
        return {"processes": self.world, "steps_per_epoch": self.loader.steps, "train_images": self.split.count,
                "annotations": self.split.fingerprint[:12], "mindspore": ms.__version__}

    def open(self, start, frozen):
        """Opens the folder and says what is trained, and draws the first batch. start: first step to run; frozen:
        number of tensors that stay as they are."""
        if self.rank == 0:
            open_run_folder(self.options.output_path, self.options)
            self.log.open(self.options.output_path, start, not self.owed)
        facts = describe_run(self.options, self.model, self.split, frozen, self.loader)
        self.log.write(facts)
        self.log.say(", ".join(f"{key} {value}" for key, value in facts.items()))
        names = self.split.classes
        self.log.say(f"classes: {', '.join(names[:MOST_NAMES])}{', ..' if len(names) > MOST_NAMES else ''}")
        notes = split_notes(self.truth, self.options.dataset, max_boxes=self.options.max_boxes) if self.truth else []
        hints = (batch_hint(self.options, self.loader), start_hint(self.options),
                 scaling_hint(self.options, self.world, self.loader.batch_size * self.world))
        for line in filter(None, (*hints, *notes)):
            self.log.say(line)
        if self.rank == 0:
            path = os.path.join(self.options.output_path, "train_batch.png")
            draw_training_batch(path, next(iter(self.loader.epoch(0))), anchors=self.model.anchors,
                                classes=self.split.classes)
            self.log.picture("train/first_batch", path, 0)

    def train(self, rates, start):
        """Runs the loop from step `start` on and keeps what is needed however it ends. rates: of every step."""
        self.step.set_train()
        try:
            self.loop(rates, start)
        except KeyboardInterrupt as error:  # the second signal; only this process may have met it
            kept = "nothing was saved yet" if self.kept is None else (
                f"{self.folder}/last.ckpt holds the state after step {self.kept}, --resume=True goes on from there")
            raise Interrupted(f"interrupted at once, after step {self.meter.done}; {kept}") from error
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
                loop.train(self.step, self.loader, rates, self.log, self.meter, start, options.max_steps,
                             options.log_interval, lambda row: images[row]["file_name"], options.save_checkpoint_steps,
                             self.keep, self.after_epoch)
        except NotFiniteError:
            self.save("diverged")
            raise
        except (DataError, EnvironmentFault):  # between two steps; it can be mended and the run resumed
            # one process may be alone with it, so its statistics are saved as they are: no mean over the processes
            with contextlib.suppress(EnvironmentFault):  # it may be the saving that fails
                self.save("last", self.meter.done)
            raise
        finally:
            self.finish()

    def keep(self, steps_done):
        """Saves within an epoch, where all processes come at the same step."""
        self.share_statistics()
        self.save("last", steps_done)

    def share_statistics(self):
        """Gives all processes the same statistics of BatchNorm, their mean: what is scored is what is saved."""
        kept = [one for one in self.step.get_parameters() if one.name.endswith(STATISTICS)]
        average_parameters(kept, self.rank, self.world)

    def save(self, name, steps_done=None, keep=0, settled=False):
        """Writes ckpt/<name>.ckpt with everything a resumed run needs; on rank 0 only.

        settled: nothing of what follows an epoch is still to be done.
        """
        self.steps_done = self.steps_done if steps_done is None else steps_done
        settled = settled or self.steps_done == self.settled or not self.ends(self.steps_done)
        if self.rank == 0:
            options = graph_options(self.options)
            meta = describe(self.model, self.split.classes, self.options, category_ids=self.split.category_ids,
                            best=self.best, since_best=self.since_best, steps_done=self.steps_done, settled=settled,
                            unlogged=self.meter.steps, options=options, commit=git_commit(), **self.surroundings())
            checkpoint.save_run(self.folder, name, self.step.get_parameters(), meta=meta, keep=keep)
        if name == "last":
            self.kept = self.steps_done

    def after_epoch(self, epoch, steps_done):
        """Saves and evaluates as the options ask; `epoch` epochs are done. Returns whether the run has reached its end.

        It has after early_stop evaluations without a better score, and with overfit when the goal is reached. The state
        is saved before an evaluation, whatever may become of that, and after it with the score.
        """
        options, ended = self.options, False
        last = steps_done == self.meter.total
        due = self.truth and epoch >= options.eval_start_epoch and (epoch % options.eval_interval == 0 or last)
        numbered = last or epoch % options.save_checkpoint_epochs == 0
        kept = due or numbered or options.save_checkpoint_steps
        if kept:
            self.share_statistics()
        if due:
            self.save("last", steps_done)
            ended = self.evaluate(epoch, steps_done)
        if kept:
            self.save("last", steps_done, settled=True)
        if ended or numbered:
            self.save(f"epoch_{epoch:04d}", steps_done, options.keep_checkpoint_max, settled=True)
        self.settled = steps_done
        return ended

    def evaluate(self, epoch, steps_done):
        """Scores the network on the validation split and keeps it as best.ckpt when it is the best so far.

        Returns on all processes whether the run shall end.
        """
        average = self.step.average
        self.step.set_train(False)
        with average.in_place() if average else contextlib.nullcontext():
            table = collect_detections(self.predict, self.eval_loader, rank=self.rank, world=self.world)
        self.step.set_train()
        ended = self.judge(table, epoch, steps_done) if self.rank == 0 else False
        if self.world == 1 or not self.options.early_stop and not self.options.overfit:
            return ended
        return bool(all_reduce(np.array([ended], np.float32))[0])

    def judge(self, table, epoch, steps_done):
        """Logs the score of all detections, draws some, saves best.ckpt. Returns whether the run shall end."""
        metrics, _ = compute_metrics(table, self.truth, dataset=self.options.dataset,
                                     engine=self.options.metric_engine)
        numbers = {name: metrics[name] for name in LOGGED if name in metrics}
        self.log.write({"step": steps_done, "epoch": epoch, **numbers}, "eval")
        self.log.say(f"epoch {epoch}  " + "  ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
        path = os.path.join(self.options.output_path, "eval", "predictions.png")
        if draw_predictions(path, truth=self.truth, table=table, image_dir=self.val_split.image_dir,
                            draw_score=self.options.draw_score):
            self.log.picture("eval/predictions", path, steps_done)
        value = metrics.get("AP", metrics.get("mAP_area"))
        self.since_best += 1
        if value > self.best:
            self.best, self.since_best = value, 0
            self.save("best", steps_done, settled=True)
        if self.options.overfit:
            return has_memorised(metrics, images=len(self.truth["images"]), steps_done=steps_done,
                                 last=steps_done == self.meter.total, say=self.log.say)
        if self.stalled():
            self.log.say(f"{self.since_best} evaluations without a better score than {self.best:.4f}: the run ends")
        return self.stalled()

    def finish(self):
        """Draws the curves, a resumed run's from its beginning, and closes the log, however the run ended."""
        rows = read_log(os.path.join(self.options.output_path, "log.jsonl")) if self.rank == 0 else []
        if any("loss" in row for row in rows):
            plot_history(rows, path=os.path.join(self.options.output_path, "training.png"),
                         steps_per_epoch=self.loader.steps)
        self.log.close()
