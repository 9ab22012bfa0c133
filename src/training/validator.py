"""The evaluation of a run on its validation split."""
from __future__ import annotations

import contextlib
import itertools
import os
import time
from dataclasses import dataclass, field

import numpy as np

from src.data.loader import EvalLoader
from src.evaluation.evaluate import collect_detections, compute_metrics, has_memorised, to_coco
from src.evaluation.mistakes import judge
from src.evaluation.report import draw_predictions
from src.evaluation.thresholds import choose_scores, score_curves
from src.inference.predictor import Predictor
from src.machine.distributed import all_reduce
from src.training.log import RunLog
from src.training.state import RunState
from src.training.step import TrainStep

TRIED = 3  # batches from which the time of an evaluation is known before the first one
LOGGED = ("AP", "AP50", "AP75", "mAP_11point", "mAP_area")


@dataclass
class Validator:
    """Scores the network on the validation split. All processes call the methods alike and share the images."""
    step: TrainStep         # trains the network, and keeps its average
    predict: Predictor      # of the same network
    loader: EvalLoader
    truth: dict             # COCO dict of the images of the loader
    image_dir: str          # what their file names are relative to
    folder: str             # of the run
    log: RunLog
    dataset: str = "coco"   # whose protocol counts: coco, voc or other
    engine: str = "hotcoco"
    draw_score: float = 0.3
    interval: int = 1       # epochs between two evaluations
    start_epoch: int = 1    # the first epoch that is evaluated
    overfit: bool = False   # self-test: the run ends when the images are memorised
    rank: int = 0
    world: int = 1
    is_compiled: bool = False  # whether the network for it was run
    detections: list[dict] = field(default_factory=list)  # COCO results of the last evaluation

    def is_due(self, state: RunState) -> bool:
        """Whether an evaluation follows the epoch that has just ended."""
        return state.epoch >= self.start_epoch and (state.epoch % self.interval == 0 or state.is_complete)

    def measure(self) -> float:
        """Seconds that an evaluation takes, by its first batches; the graph is compiled before."""
        batches = -(-len(self.loader.rows) // self.loader.batch_size)
        tried = min(batches, TRIED)
        self.is_compiled = True
        self.step.set_train(False)
        for images, _ in itertools.islice(self.loader, 1):
            self.predict(images)
        began = time.monotonic()
        for images, _ in itertools.islice(self.loader, tried):
            self.predict(images)
        self.step.set_train()
        return (time.monotonic() - began) * batches / max(tried, 1)

    def validate(self, state: RunState) -> dict:
        """Logs and returns the metrics, and draws some detections; {} on other processes than rank 0."""
        if not self.is_compiled:
            self.log.say("compiling the evaluation: seconds to a minute, less where --compile_cache has it")
        self.is_compiled, average = True, self.step.average
        self.step.set_train(False)
        with average.in_place() if average else contextlib.nullcontext():
            table = collect_detections(self.predict, self.loader, rank=self.rank, world=self.world)
        self.step.set_train()
        if self.rank > 0:
            return {}
        self.detections = to_coco(table, self.truth)
        metrics, _ = compute_metrics(self.truth, self.detections, dataset=self.dataset, engine=self.engine)
        numbers = {name: metrics[name] for name in LOGGED if name in metrics}
        self.log.write({"step": state.steps_done, "epoch": state.epoch, **numbers}, "eval")
        scores = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        self.log.say(f"epoch {state.epoch}/{state.epochs}  {scores}")
        path = os.path.join(self.folder, "eval", "predictions.png")
        if draw_predictions(path, truth=self.truth, table=table, image_dir=self.image_dir, draw_score=self.draw_score):
            self.log.picture("eval/predictions", path, state.steps_done)
        return metrics

    def choose_scores(self, step: int) -> dict:
        """From which scores on the boxes of the last evaluation are worth showing, as thresholds.choose_scores.

        TensorBoard gets the curves of precision and recall. step: after which it came.
        """
        classes = [category["name"] for category in self.truth["categories"]]
        curves = score_curves(judge(self.truth, self.detections), len(classes))
        if self.log.events:
            self.log.events.pr_curves(step, [*classes, "all classes"], **curves._asdict())
        return choose_scores(curves, classes)

    def ends_run(self, state: RunState, metrics: dict) -> bool:
        """Whether the run ends after an evaluation with these metrics: early_stop, or a self-test that has memorised.

        All processes get the answer of rank 0. Raises SSDError when the last step of a self-test ends without.
        """
        ended = self.rank == 0 and state.is_stalled
        if self.rank == 0 and self.overfit:
            ended = has_memorised(metrics, images=len(self.truth["images"]), steps_done=state.steps_done,
                                  last=state.is_complete, say=self.log.say)
        elif ended:
            self.log.say(f"{state.since_best} evaluations without a better score than {state.best:.4f}: the run ends")
        if self.world > 1 and (state.early_stop or self.overfit):
            ended = bool(all_reduce(np.array([ended], np.float32))[0])
        return ended
