"""Time and memory of the programs on a drawn COCO of 118,000 images and 860,000 boxes, and how they grow.

    python bench/scale.py --output=FOLDER [--images=5900,29500,118000] [--only=PART,PART] [--json=FILE]

Parts, each a program of its own: "conversion" (prepare_data.py --report=True, both splits), "start" (train.py until the
first step), "loading" (the training loader for one epoch, without a network) and "evaluation" (eval.py without its
network: 100 moved boxes an image). Images have 64 x 64 pixels and bytes of their own; annotations have polygons, so
that the file is about as long as COCO's own. A smaller COCO has as many boxes an image; there is one validation image
for 23.6 of training, and the evaluation is measured by those: 5,000 of 118,000.

Peak: the most memory that the processes of a program held together, measured twice a second, or one of them alone by
the kernel's count. Growth: the difference of the largest and the smallest COCO, by the difference of their images.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
from common import ROOT, arguments, commit, machine
from processes import highest_memory, measure_tree

SIDE = 64                        # pixels of an image
TRAIN, VAL = (118_000, 860_000), (5_000, 36_800)  # images and boxes of the whole COCO
FOUND = 100                      # detections an image
CLASSES = [f"class {number}" for number in range(1, 81)]
POINTS = 24                      # of a polygon
AT_ONCE = 10_000                 # annotations that are written together
INTERVAL = 0.5                   # seconds between two looks at the memory
PARTS = ("conversion", "start", "loading", "evaluation")
LIMIT = 4096                     # MiB of any program


def main():
    """Draws each COCO, runs all parts on it, prints a table."""
    parser = arguments(__doc__)
    parser.add_argument("--output", type=os.path.abspath, required=True, help="folder of the data and of the results")
    parser.add_argument("--images", default="5900,29500,118000")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--alone", choices=("loading", "evaluation"), help="do this part in this process")
    options = parser.parse_args()
    if options.alone:
        (load_epoch if options.alone == "loading" else evaluate)(options.output)
        return
    rows = []
    for count in map(int, options.images.split(",")):
        folder = os.path.join(options.output, str(count))
        if not os.path.exists(os.path.join(folder, "coco", "annotations", "instances_val2017.json")):
            draw_coco(os.path.join(folder, "coco"), count)
        for part in options.only.split(","):
            rows.append({"part": part, "images": images_of(part, count), **measure(part, folder),
                         "machine": machine(), "date": time.strftime("%Y-%m-%d"), "commit": commit()})
            print(line_of(rows[-1], ""), flush=True)
    print("\n".join(table(rows)))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


# --- the data

def draw_coco(folder, count):
    """Writes a COCO of so many training images, in proportion boxes and validation images."""
    for name, (images, boxes), seed in (("train2017", TRAIN, 1), ("val2017", VAL, 2)):
        share = count / TRAIN[0]
        draw_split(folder, name, count=round(images * share), boxes=round(boxes * share), seed=seed)


def draw_split(folder, name, *, count, boxes, seed):
    """Writes the images of a split, and last its annotations."""
    import cv2
    rng = np.random.default_rng(seed)
    pictures = [cv2.imencode(".jpg", rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
                .tobytes() for _ in range(16)]
    for place in (name, "annotations"):
        os.makedirs(os.path.join(folder, place), exist_ok=True)
    for number in range(1, count + 1):
        picture, note = pictures[number % len(pictures)], b"\xff\xfe\x00\x0e%012d" % number  # a comment: own bytes
        with open(os.path.join(folder, name, f"{number:012}.jpg"), "wb") as file:
            file.write(picture[:2] + note + picture[2:])
    images = [{"id": number, "file_name": f"{number:012}.jpg", "height": SIDE, "width": SIDE}
              for number in range(1, count + 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    path = os.path.join(folder, "annotations", f"instances_{name}.json")
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        file.write(f'{{"images": {json.dumps(images)}, "categories": {json.dumps(categories)}, "annotations": [')
        for start in range(0, boxes, AT_ONCE):
            items = draw_annotations(rng, start, min(AT_ONCE, boxes - start), images=count)
            file.write(("," if start else "") + json.dumps(items)[1:-1])
        file.write("]}")
    os.rename(f"{path}.part", path)


def draw_annotations(rng, start, count, *, images):
    """`count` annotations with ids from start + 1 on."""
    sides = rng.uniform(4, 40, (count, 2))
    boxes = np.concatenate([rng.uniform(0, SIDE - sides), sides], axis=1).round(2)          # [n, 4] x, y, w, h
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    circle = (1 + np.stack([np.cos(angles), np.sin(angles)], axis=1)) / 2                  # [POINTS, 2] in 0..1
    polygons = (boxes[:, None, :2] + circle * boxes[:, None, 2:]).round(2).reshape(count, -1)
    return [{"segmentation": [polygon], "area": round(box[2] * box[3], 4), "iscrowd": 0, "image_id": image,
             "bbox": box, "category_id": category, "id": number}
            for number, (polygon, box, image, category) in enumerate(
                zip(polygons.tolist(), boxes.tolist(), rng.integers(1, images + 1, count).tolist(),
                    rng.integers(1, len(CLASSES) + 1, count).tolist()), start + 1)]


def images_of(part, count):
    """The images that a part goes over, of a COCO of so many for training."""
    return round(count * VAL[0] / TRAIN[0]) if part == "evaluation" else count


# --- measuring

def data_options(folder):
    """The options of a program that reads the COCO in a folder."""
    return [f"--coco_root={os.path.join(folder, 'coco')}", f"--mindrecord_dir={os.path.join(folder, 'mindrecord')}"]


def measure(part, folder):
    """Runs a part -> {seconds, cpu (seconds), peak (MiB)}."""
    recipe = f"--config_path={ROOT}/config/demo.yaml"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        alone = [os.path.join(ROOT, "bench", "scale.py"), f"--alone={part}", f"--output={folder}"]
        command, until = {
            "conversion": ([os.path.join(ROOT, "prepare_data.py"), recipe, *data_options(folder), "--report=True",
                            f"--output_path={scratch}"], ""),
            "start": ([os.path.join(ROOT, "train.py"), recipe, *data_options(folder), f"--output_path={scratch}/run",
                       "--max_steps=1", "--compile_cache="], "first step took"),
            "loading": (alone, ""), "evaluation": (alone, "")}[part]
        if part == "conversion":
            shutil.rmtree(os.path.join(folder, "mindrecord"), ignore_errors=True)
        return watch([sys.executable, *command], os.path.join(scratch, "output.txt"), until)


def watch(command, output, until):
    """Runs a command -> what measure() gives. until: the words in its output at which its time ends, "" for its end."""
    start, reached, peak, cpu = time.time(), None, 0, 0
    with open(output, "wb") as log:
        program = subprocess.Popen(command, cwd=os.path.dirname(output), stdout=log, stderr=subprocess.STDOUT)
    while program.poll() is None:
        now = measure_tree(program.pid)
        peak, cpu = max(peak, now.get("pss", 0), highest_memory(program.pid)), max(cpu, now.get("cpu", 0))
        if until and reached is None and until in read(output):
            reached = time.time()
        time.sleep(INTERVAL)
    if program.returncode or (until and until not in read(output)):
        sys.exit(f"error: {' '.join(command)} ended with {program.returncode}\n{read(output)[-3000:]}")
    return {"seconds": (reached or time.time()) - start, "cpu": cpu, "peak": peak / 2 ** 20}


def read(path):
    """A text file."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def table(rows):
    """The rows as a Markdown table by part, the growth of a part in the line of its largest COCO."""
    lines = ["| | images | time | CPU | peak, MiB | growth |", "|---|---|---|---|---|---|"]
    for part in PARTS:
        own = sorted((row for row in rows if row["part"] == part), key=lambda row: row["images"])
        lines += [line_of(row, "") for row in own[:-1]]
        if own:
            first, last = own[0], own[-1]
            each = (last["peak"] - first["peak"]) * 2 ** 20 / max(last["images"] - first["images"], 1)
            lines.append(line_of(last, f"{each / 1000:.2f} kB an image" if len(own) > 1 else ""))
    worst = max(row["peak"] for row in rows)
    return [*lines, f"highest peak {worst:.0f} MiB, limit {LIMIT}: {'kept' if worst < LIMIT else 'EXCEEDED'}"]


def line_of(row, growth):
    """A row as a line of the table."""
    return (f"| {row['part']} | {row['images']:,} | {row['seconds']:.0f} s | {row['cpu']:.0f} s | "
            f"{row['peak']:.0f} | {growth} |")


# --- in a process of their own

def load_epoch(folder):
    """Loads one epoch of the training split as train.py does, and counts its images."""
    from src.config import read_options, split_options
    from src.machine import process
    process.prepare()
    from src.data.prepare import prepare_split
    from src.models.ssd import build_model
    from src.training.build import build_loader
    options = read_options([f"--config_path={ROOT}/config/demo.yaml", *data_options(folder)])
    split = prepare_split(**split_options(options, "train"), classes=[])
    model = build_model(options.model, len(split.classes) + 1, image_size=options.image_size, width=options.width)
    loader = build_loader(options, split, model, rank=0, world=1)
    seen = sum(len(batch[0]) for batch in loader.epoch(0))
    loader.close()
    print(f"{seen} images")


def evaluate(folder):
    """What eval.py does with the validation split, with boxes that are drawn instead of found."""
    from src.config import read_options
    from src.machine import process
    options = read_options([f"--config_path={ROOT}/config/demo.yaml", *data_options(folder), "--report=True",
                            f"--checkpoint_file_path={folder}/drawn.ckpt", "--min_score=0"], "eval.py")
    process.prepare()
    import eval as program
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        program.evaluate(options, Drawn(folder, options), scratch, rank=0, world=1, say=print)


class Drawn:
    """In place of a Predictor: FOUND boxes in each image, true ones moved, half of them of any class.

    The images must come in the order of the annotation file, as EvalLoader has them.
    """

    def __init__(self, folder, options):
        path = os.path.join(folder, "coco", "annotations", "instances_val2017.json")
        with open(path, encoding="utf-8") as file:
            truth = json.load(file)
        self.objects = [[(0.1, 0.1, 0.5, 0.5, 1)] for _ in truth["images"]]  # for those without any
        for item in truth["annotations"]:
            self.objects[item["image_id"] - 1].append((*(side / SIDE for side in item["bbox"]), item["category_id"]))
        self.classes, self.image_size, self.batch_size = CLASSES, options.image_size, options.eval_batch_size
        self.resize, self.rng = "bilinear", np.random.default_rng(3)
        names = ("min_score", "nms_threshold", "nms_candidates", "max_boxes", "draw_score", "resize")
        self.meta = {"model": "drawn boxes", "class_scores": {}, **{name: options[name] for name in names}}
        self.left = iter(self.objects)

    def __call__(self, images):
        """boxes [n, FOUND, 4], scores and labels [n, FOUND], count [n]."""
        found = [self.move(np.array(next(self.left))) for _ in images]
        boxes, scores, labels = map(np.stack, zip(*found))
        return boxes, scores, labels, np.full(len(found), FOUND)

    def move(self, objects):
        """objects [N, 5] x, y, w, h, class -> boxes [FOUND, 4], scores and labels [FOUND]."""
        chosen = objects[self.rng.integers(0, len(objects), FOUND)]
        moved = chosen[:, :4] * self.rng.uniform(0.8, 1.2, (FOUND, 4))
        boxes = np.clip(np.concatenate([moved[:, :2], moved[:, :2] + moved[:, 2:]], axis=1), 0, 1)
        labels = np.where(self.rng.random(FOUND) < 0.5, self.rng.integers(1, len(CLASSES) + 1, FOUND), chosen[:, 4])
        return boxes.astype(np.float32), np.sort(self.rng.random(FOUND))[::-1].astype(np.float32), labels.astype(int)


if __name__ == "__main__":
    main()
