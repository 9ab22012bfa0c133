"""The anchors of a new run: the published ones, those of a file, or fitted to the training split."""
from __future__ import annotations

import numpy as np

from src.anchor_file import read_shapes
from src.anchor_fit import DECIMALS, fit_anchors, read_boxes, share_matched
from src.data.prepare import Split
from src.evaluation.evaluate import first_images
from src.files import read_json
from src.machine.distributed import check_equal, gather_rows
from src.models.ssd import Model, with_shapes
from src.training.log import RunLog


class AnchorChooser:
    """Gives a Model the anchors of a run, the same in all processes.

    choice: "" for the published ones, "auto", or the path of a file. threshold: IoU of a match. max_images: of the
    split, 0 for all. seed: of the choice among very many boxes.
    """

    def __init__(self, choice: str, *, threshold: float, seed: int, max_images: int, log: RunLog, rank: int,
                 world: int):
        self.choice, self.threshold, self.seed, self.max_images = choice, threshold, seed, max_images
        self.log, self.rank, self.world = log, rank, world

    def __call__(self, model: Model, split: Split) -> Model:
        """The Model with its anchors. split: of training. Raises OptionError where a file does not fit the model."""
        if self.choice == "auto":
            shapes = self.share(self.fit(model, split) if self.rank == 0 else [], shape_counts(model))
            model = with_shapes(model, shapes) if shapes else model
        elif self.choice:
            model = with_file(model, self.choice)
        check_equal({"the content of --anchors": model.anchor_shapes}, self.rank, self.world,
                    advice="give all hosts the same file")
        return model

    def share(self, shapes: list[np.ndarray], counts: list[int]) -> list[np.ndarray]:
        """The shapes that rank 0 has, [] or as many per level as counts says: elsewhere a bit of them may differ."""
        rows = np.array([shape for level in shapes for shape in level], np.float32).reshape(-1, 2)
        rows = gather_rows(rows, self.rank, self.world).astype(np.float64).round(DECIMALS)
        return np.split(rows, np.cumsum(counts)[:-1]) if len(rows) else []

    def fit(self, model: Model, split: Split) -> list[np.ndarray]:
        """Shapes in pixels that match more boxes of the split, [] for none; says what is gained."""
        truth = first_images(read_json(split.ground_truth), self.max_images)
        boxes, _, total = read_boxes(truth, self.seed)
        if not total:
            return []  # the loader will say what is wrong with the data
        fit = fit_anchors(boxes, model.anchors, model.levels(), threshold=self.threshold, image_size=model.image_size)
        before, after = (share_matched(best, self.threshold) for best in (fit.before, fit.after))
        result = "anchors.json has the new shapes" if fit.shapes else "too little is gained: the published anchors stay"
        self.log.say(f"anchors fitted to {len(boxes)} boxes of {split.name}: {before:.1%} -> {after:.1%} of them match "
                     f"an anchor (IoU >= {self.threshold:g}), mean best IoU {fit.before.mean():.3f} -> "
                     f"{fit.after.mean():.3f}; {result}")
        return fit.shapes


def with_file(model: Model, path: str) -> Model:
    """The Model with the anchor shapes of a file. Raises OptionError where they do not fit it."""
    return with_shapes(model, read_shapes(path, shape_counts(model), model.image_size))


def shape_counts(model: Model) -> list[int]:
    """How many shapes each level of a Model has."""
    return [len(level.shapes) for level in model.levels()]
