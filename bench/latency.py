"""Latency of every network: one picture, from raw pixels to final boxes, as checkpoint, MindIR and ONNX.

    python bench/latency.py [--model NAME ...] [--repeats=20] [--json=docs/models/latency.json]

Each network gets drawn weights with which it finds objects, so that NMS has work, and the classes of its model card. It
is saved as a checkpoint and exported; then each file runs in a process of its own, with the kernels that our programs
choose for it (src/machine/process.py). Median milliseconds of a call, after two that are not counted. With --json rows
of other networks in that file stay; scripts/model_cards.py puts them on the cards.
"""
import json
import os
import sys
import tempfile
import time

import numpy as np
from common import arguments, commit, in_fresh_process, machine, median_seconds
from drawn import draw_weights

from src.models.facts import read_facts

FILES = {"checkpoint": "detector.ckpt", "MindIR": "detector.mindir", "ONNX": "detector.onnx"}
SETTINGS = {"min_score": 0.1, "nms_threshold": 0.5, "nms_candidates": 1000, "max_boxes": 100, "resize": "bilinear"}


def main():
    """Measures the networks asked for, each file in its own process."""
    parser = arguments(__doc__)
    parser.add_argument("--model", nargs="+", default=[], help="networks; all without it")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--side", help="make the files (prepare) or measure one of them, and print the number")
    parser.add_argument("--folder", help="where the files are")
    options = parser.parse_args()
    if options.side:
        side = prepare if options.side == "prepare" else time_file
        print(json.dumps(side(options)))
        return
    facts = read_facts()
    unknown = set(options.model) - set(facts)
    if unknown:
        parser.error(f"--model={unknown.pop()} is not in src/models/facts.json, which has {', '.join(facts)}")
    rows = []
    for name in options.model or facts:
        rows += measure(name, options.repeats)
        if options.json:
            write(options.json, rows)


def measure(name, repeats):
    """The rows of one network."""
    with tempfile.TemporaryDirectory() as folder:
        def side(one, **environment):
            return in_fresh_process(os.path.abspath(__file__), f"--side={one}", f"--model={name}", f"--folder={folder}",
                                    f"--repeats={repeats}", environment=environment)
        boxes = side("prepare", ONEDNN_MAX_CPU_ISA="AVX2")
        rows = []
        for form in FILES:
            milliseconds = side(form, ONEDNN_MAX_CPU_ISA="" if form == "ONNX" else "AVX2")
            rows.append({"model": name, "form": form, "milliseconds": round(milliseconds, 2), "boxes": boxes,
                         "repeats": repeats, "machine": machine(), "date": time.strftime("%Y-%m-%d"),
                         "commit": commit()})
            print(f"{name} {form}: {milliseconds:.1f} ms", flush=True)
    return rows


def write(path, rows):
    """Puts rows into a file, in place of those of the same network and form."""
    known = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            known = json.load(file)
    new = {(row["model"], row["form"]) for row in rows}
    known = [row for row in known if (row["model"], row["form"]) not in new]
    with open(path, "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(row) for row in [*known, *rows]) + "\n]\n")


def prepare(options):
    """Writes the three files of a network with drawn weights; returns how many boxes it finds in the picture."""
    from src.export.exporter import export_model
    from src.inference.description import describe, detector_arguments
    from src.inference.exported import run_cell
    from src.models.detector import Detector
    from src.models.ssd import build_model
    from src.weights import checkpoint
    name = options.model[0]
    classes = read_facts()[name]["classes"]
    model = build_model(name, classes)
    image = picture(model.image_size)
    draw_weights(model, image)
    found = int(run_cell(Detector(model, **detector_arguments(SETTINGS)), image)[3][0])
    meta = describe(model, [f"class{number}" for number in range(1, classes)], SETTINGS)
    paths = {form: os.path.join(options.folder, file) for form, file in FILES.items()}
    checkpoint.save(paths["checkpoint"], model.network.get_parameters(), meta)  # first: an export folds the norms
    for form in ("MindIR", "ONNX"):
        export_model(model, meta, paths[form], batch_size=1, raw=False)
    return found


def picture(image_size):
    """A drawn picture, uint8."""
    return np.random.default_rng(1).integers(0, 256, (1, image_size, image_size, 3), np.uint8)


def time_file(options):
    """Median milliseconds of one file."""
    from src.machine import process
    process.prepare()
    import mindspore as ms

    from src.config import read_options
    from src.inference.predictor import load_predictor
    ms.set_context(mode=ms.GRAPH_MODE)
    if options.side not in FILES:
        sys.exit(f"error: --side={options.side}: expected prepare, {', '.join(FILES)}")
    path = os.path.join(options.folder, FILES[options.side])
    predict = load_predictor(path, batch_size=1, defaults=read_options([]), overrides={})
    image = picture(predict.image_size)
    return 1000 * median_seconds(lambda: predict(image), options.repeats, warm=2)


if __name__ == "__main__":
    main()
