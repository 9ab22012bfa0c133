"""The twelve COCO numbers of 5,000 images and 500,000 detections, from lists in memory: hotcoco against pycocotools.

    python bench/coco_metric.py [--images=5000] [--json=FILE]

Ground truth is drawn at random (7 boxes an image, 80 classes), detections are 100 an image: moved copies of its boxes,
half of them of another class. Both engines get the same lists by metrics.evaluate_boxes; their numbers must agree but
for the last bit of a sum.
"""
import time

import numpy as np
from common import arguments, report, row


def main():
    """Evaluates with both engines and compares."""
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=5000)
    options = parser.parse_args()
    from src.metrics import COCO_NAMES, evaluate_boxes
    truth, detections = draw(options.images)
    times, numbers = {}, {}
    for engine in ("hotcoco", "pycocotools"):
        start = time.perf_counter()
        numbers[engine] = evaluate_boxes(truth, detections, engine).metrics()
        times[engine] = time.perf_counter() - start
    # unlike max() it finds NaN
    difference = np.max([abs(numbers["hotcoco"][name] - numbers["pycocotools"][name]) for name in COCO_NAMES])
    if not difference <= 1e-15:
        raise SystemExit(f"error: the engines differ by {difference}")
    print(f"largest difference of the twelve numbers: {difference:.1e}")
    report([row(f"COCO metric, {options.images} images, {len(detections)} detections", ours=times["hotcoco"],
                peer=times["pycocotools"], unit="s", compared_with="pycocotools")], options.json)


def draw(count):
    """A COCO dict and COCO results."""
    rng = np.random.default_rng(0)
    images = [{"id": number, "width": 640, "height": 480} for number in range(1, count + 1)]
    annotations, detections = [], []
    for image in images:
        size = rng.uniform(8, 300, (7, 2))
        boxes = np.concatenate([rng.uniform(0, 340, (7, 2)), size], axis=1)
        labels = rng.integers(1, 81, 7)
        annotations += [{"id": len(annotations) + number, "image_id": image["id"], "category_id": int(label),
                         "bbox": box.tolist(), "area": float(box[2] * box[3]), "iscrowd": int(rng.random() < 0.02)}
                        for number, (box, label) in enumerate(zip(boxes, labels), 1)]
        owner = rng.integers(0, 7, 100)
        found = boxes[owner] * rng.uniform(0.7, 1.3, (100, 4))
        wrong = rng.random(100) < 0.5
        classes = np.where(wrong, rng.integers(1, 81, 100), labels[owner])
        detections += [{"image_id": image["id"], "category_id": int(label), "bbox": box, "score": score}
                       for label, box, score in zip(classes, found.tolist(), rng.random(100).tolist())]
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, 81)]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


if __name__ == "__main__":
    main()
