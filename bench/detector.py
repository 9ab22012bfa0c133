"""Post-processing, logits and deltas to final boxes, in the graph against the published loop over classes in numpy.

    python bench/detector.py [--json=FILE]

Score maps are drawn: around each of 12 objects every anchor with an IoU above .4 has the class at logit 0 +- 1, all
else is background, at -6 +- 1 as in a trained network, or at -3.5 +- 1 as in the first epochs, where one score in ten
exceeds the minimum and the loop has the more to do. Both sides find boxes above 0.1 with NMS 0.6. The published side
(model zoo official/cv/SSD, src/eval_utils.py, built here at equal cost) gets scores and decoded boxes that the network
has computed already, and runs for each class a mask and a greedy NMS in numpy; it may keep 100 boxes a class. Our best
100 must be its best 100: an IoU here counts no extra pixel, so boxes at the edge of 0.6 may differ, and are counted.
"""
import numpy as np
from common import arguments, median_seconds, report, row

MIN_SCORE, NMS_IOU, MAX_BOXES = 0.1, 0.6, 100


def main():
    """Measures an FPN at 640 and an SSD300."""
    options = arguments(__doc__).parse_args()
    from src.machine import process
    process.prepare("CPU")
    import mindspore as ms
    ms.set_context(mode=ms.GRAPH_MODE)
    rows = []
    for name in ("ssd_resnet50_fpn", "ssd300_mobilenet_v2"):
        for state, background in (("trained", -6), ("first epochs", -3.5)):
            rows.append(measure(ms, name, state, background))
    report(rows, options.json)


def measure(ms, name, state, background):
    """The row of one model and one kind of score map."""
    from src import boxes as box_ops
    from src.models.detector import Detector
    from src.models.ssd import build_model

    class Finish(Detector):
        """The part behind the network."""

        def construct(self, logits, deltas):
            return self.finish(logits, deltas)

    model = build_model(name, 81)
    cell = Finish(model, min_score=MIN_SCORE, nms_threshold=NMS_IOU, max_boxes=MAX_BOXES)
    cell.set_train(False)
    logits, deltas = draw(model, background)
    inputs = ms.Tensor(logits[None]), ms.Tensor(deltas[None])
    ours = median_seconds(lambda: [output.asnumpy() for output in cell(*inputs)], 21)
    _, found_scores, found_labels, count = [output.asnumpy()[0] for output in cell(*inputs)]
    scores, boxes = 1 / (1 + np.exp(-logits)), np.clip(box_ops.decode(deltas, model.anchors), 0, 1)
    theirs = median_seconds(lambda: published(scores, boxes), 5)
    expected = sorted(published(scores, boxes), key=lambda box: -box[0])[:MAX_BOXES]
    scores, labels = found_scores[:count], found_labels[:count]
    same = sum(any(np.isclose(scores, score, atol=1e-6) & (labels == label)) for score, label, _ in expected)
    print(f"{name}, {state}: {same} of the {len(expected)} best boxes of the loop are among ours ({count})")
    return row(f"detector without network, {name}, {len(model.anchors)} x 81, {state}", ours=ours * 1e3,
               peer=theirs * 1e3, unit="ms", compared_with="numpy loop over classes")


def draw(model, background):
    """logits [A, 81], deltas [A, 4]."""
    from src import boxes as box_ops
    rng = np.random.default_rng(0)
    logits = rng.normal(background, 1, (len(model.anchors), 81)).astype(np.float32)
    center, size = rng.uniform(0.2, 0.8, (12, 2)), rng.uniform(0.1, 0.5, (12, 2))
    objects = np.clip(np.concatenate([center - size / 2, center + size / 2], axis=1), 0, 1).astype(np.float32)
    overlap = box_ops.iou(objects, box_ops.to_corners(model.anchors))
    deltas = rng.normal(0, 0.3, (len(model.anchors), 4)).astype(np.float32)
    for box, near, label in zip(objects, overlap > 0.4, rng.integers(1, 81, 12)):
        logits[near, label] = rng.normal(0, 1, near.sum())
        deltas[near] += box_ops.encode(np.tile(box, (near.sum(), 1)), model.anchors[near])
    return logits, deltas


def published(scores, boxes):
    """scores [A, 81], boxes [A, 4] -> [(score, label, box)], class after class."""
    found = []
    for label in range(1, scores.shape[1]):
        of_class = scores[:, label]
        mask = of_class > MIN_SCORE
        if mask.any():
            own, place = of_class[mask], boxes[mask] * (640, 640, 640, 640)
            found += [(own[index], label, place[index] / 640) for index in greedy(place, own)]
    return found


def greedy(boxes, scores):
    """Indices that NMS keeps, at most MAX_BOXES, each side of a box counted with one more pixel."""
    x1, y1, x2, y2 = boxes.T
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    order, kept = scores.argsort()[::-1], []
    while len(order) > 0 and len(kept) < MAX_BOXES:
        best, order = order[0], order[1:]
        kept.append(best)
        wide = np.maximum(np.minimum(x2[best], x2[order]) - np.maximum(x1[best], x1[order]) + 1, 0)
        high = np.maximum(np.minimum(y2[best], y2[order]) - np.maximum(y1[best], y1[order]) + 1, 0)
        overlap = wide * high / (area[best] + area[order] - wide * high)
        order = order[overlap <= NMS_IOU]
    return kept


if __name__ == "__main__":
    main()
