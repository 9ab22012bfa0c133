"""Anchor shapes that fit the boxes of a data set better (numpy): each level keeps its grid and its number of shapes."""
import numpy as np

from src.anchors import split_levels
from src.boxes import to_centers

MOST_FITTED = 4000   # boxes that the search looks at
COARSE, FINE = 0.5, (0.25, 0.125)  # octaves between two sizes or two aspect ratios that are tried
REACH, TURN, ROUNDS = 6, 4, 4      # coarse steps of a size and of an aspect ratio to each side; rounds over the levels
WEIGHT = 0.1         # of the mean IoU beside the share of matched boxes: leads the search where no box changes sides
LEAST_STEP = 3e-4    # of that value: a level that hardly a box needs stays as it is
DECIMALS = 1         # of a pixel


def fit_shapes(boxes: np.ndarray, anchors: np.ndarray, *, threshold: float, image_size: int) -> list:
    """One [n, 2] array of w, h in pixels a level, rounded, that more boxes overlap by an IoU of at least the threshold.

    boxes: [N, 4] corner fractions; anchors: [A, 4] as tile_anchors makes them. All shapes of a level are scaled and
    stretched together. A level gets no smaller than the distance of its centres, unless it is so already: boxes would
    fall between them. Starts are the present shapes and sizes of the boxes' own; whoever calls measures what is gained.
    """
    boxes = boxes[::-(-len(boxes) // MOST_FITTED)]
    levels = split_levels(anchors)
    sides, offsets = to_centers(boxes)[:, 2:], center_offsets(boxes, anchors)
    present = np.array([np.exp(np.log(shapes).mean()) for _, shapes in levels])
    least = np.minimum(1, [1 / side / size for (side, _), size in zip(levels, present)])
    wanted = suggest_sizes(np.sqrt(np.maximum(sides.prod(axis=1), 1e-12)), len(levels))
    best, found = -1, None
    for scales in (np.ones(len(levels)), np.maximum(wanted / present, least)):
        search = Search(sides, offsets, [shapes for _, shapes in levels], threshold=threshold)
        value = search.run(scales, least)
        if value > best:
            best, found = value, search.shapes()
    return [np.maximum((shapes * image_size).round(DECIMALS), 10.0 ** -DECIMALS) for shapes in found]


class Search:
    """Coordinate descent over a size factor and an aspect factor a level.

    sides [N, 2]: of the boxes; offsets: [N, 2] a level, from the nearest centre; given: shapes [n, 2] of each level.
    """

    def __init__(self, sides, offsets, given, *, threshold):
        self.sides, self.offsets, self.given, self.threshold = sides, offsets, given, threshold
        self.factors = np.zeros((len(given), 2))  # octaves of size and aspect ratio (width / height)
        self.best = np.zeros((len(given), len(sides)))

    def run(self, scales, least):
        """Searches from size factors [levels] on, none below least [levels] -> the value that was reached."""
        self.factors[:, 0] = np.log2(scales)
        for level in range(len(self.given)):
            self.best[level] = self.overlap(level, self.factors[level])
        value = self.value(self.best.max(axis=0))
        for step, reach, turn in ((COARSE, REACH, TURN), *((step, 2, 2) for step in FINE)):
            moves = [(size * step, aspect * step) for size in range(-reach, reach + 1)
                     for aspect in range(-turn, turn + 1)]
            for _ in range(ROUNDS):
                before = value
                for level in range(len(self.given)):
                    value = self.improve(level, moves, least=np.log2(least[level]), value=value)
                if value - before < 1e-4:
                    break
        return value

    def improve(self, level, moves, *, least, value):
        """Makes the best of the moves of one level, if any is good -> the value then."""
        others = np.delete(self.best, level, axis=0).max(axis=0, initial=0)
        start = self.factors[level].copy()
        for move in moves:
            tried = start + move
            if tried[0] < least - 1e-9 or abs(tried[1]) > REACH * COARSE:
                continue
            overlap = self.overlap(level, tried)
            reached = self.value(np.maximum(others, overlap))
            if reached > value + LEAST_STEP:
                value, self.factors[level], self.best[level] = reached, tried, overlap
        return value

    def value(self, best):
        """What is searched for: boxes [N] at the threshold, and overlap."""
        return (best >= self.threshold).mean() + WEIGHT * best.mean()

    def overlap(self, level, factors):
        """The best IoU of each box with the shapes of a level under size and aspect factors in octaves."""
        return best_of_level(self.sides, self.offsets[level], self.scaled(level, factors))

    def scaled(self, level, factors):
        """Shapes of a level under factors, no side longer than the image."""
        size, aspect = factors
        return np.minimum(self.given[level] * np.exp2([size + aspect / 2, size - aspect / 2]), 1)

    def shapes(self):
        """The shapes that were found, [n, 2] a level."""
        return [self.scaled(level, factors) for level, factors in enumerate(self.factors)]


def center_offsets(boxes: np.ndarray, anchors: np.ndarray) -> list:
    """Distances [N, 2] along x and y of boxes [N, 4] from the nearest anchor centre, one array a level."""
    centers, offsets, start = to_centers(boxes)[:, :2], [], 0
    for side, shapes in split_levels(anchors):
        cells = anchors[start:start + side * side * len(shapes):len(shapes), :2].reshape(side, side, 2)
        grid = np.stack([cells[0, :, 0], cells[:, 0, 1]], axis=1)  # columns' x and rows' y
        offsets.append(np.abs(centers[:, None] - grid).min(axis=1))
        start += side * side * len(shapes)
    return offsets


def best_of_level(sides: np.ndarray, offsets: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Best IoU [N] of boxes with sides [N, 2] and shapes [n, 2] at the nearest centre, the one of most overlap."""
    sides, reach = sides[:, None], (sides[:, None] + shapes) / 2 - offsets[:, None]
    shared = np.clip(np.minimum(np.minimum(sides, shapes), reach), 0, None).prod(axis=2)
    union = sides.prod(axis=2) + shapes.prod(axis=1) - shared
    return (shared / np.maximum(union, 1e-12)).max(axis=1)


def suggest_sizes(sides, count, rounds=100):
    """`count` rising sizes by k-means over the logarithms of sides [N] (above 0), started at their quantiles.

    Logarithms, because an IoU depends on the ratio of two sizes and not on their difference.
    """
    values = np.log(np.maximum(sides, 1e-3))
    centers = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(rounds):
        nearest = np.abs(values[:, None] - centers).argmin(axis=1)
        centers = np.array([values[nearest == index].mean() if (nearest == index).any() else center
                            for index, center in enumerate(centers)])
    return np.exp(np.sort(centers))
