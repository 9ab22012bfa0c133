"""Inference of SSD300-ResNet50, one picture: the exported MindIR and ONNX against PyTorch.

    python bench/inference.py [--json=FILE] [--repeats=20]        needs requirements-bench.txt

The network (NVIDIA's SSD300 v1.1, 81 classes, float32) is built three times with the same drawn weights: exported to
MindIR and run by MindSpore, exported to ONNX and run by onnxruntime, and written in PyTorch (torch_peer.py) and run in
eager mode under inference_mode. Rows "network": raw uint8 pixels [1, 300, 300, 3] to logits and deltas. Rows
"detector": to final boxes (softmax, decoding, the 1000 best pairs, class-wise NMS at 0.5, 100 boxes); PyTorch has no
NMS, so it is written here, on tensors, with a loop over the kept boxes. Before anything is timed every side must give
the outputs of the MindSpore network. Each side runs in a process of its own with its own choice of threads; MindSpore
with the kernels our programs choose (src/machine/process.py). Median seconds of a call, from array to arrays, after two
calls.
"""
import json
import os
import sys
import tempfile

import numpy as np
from common import arguments, in_fresh_process, median_seconds, report, row
from drawn import draw_weights

MODEL, CLASSES = "ssd300_resnet50", 81
SETTINGS = {"min_score": 0.05, "nms_threshold": 0.5, "nms_candidates": 1000, "max_boxes": 100, "resize": "bilinear"}
TOLERANCES = {"network": 1e-3, "detector": 1e-3}  # of what is rounding; boxes are fractions of the image


def main():
    """Prepares the files in one process, measures every side in its own."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--side", help="measure one side alone and print its number")
    parser.add_argument("--part", default="network", choices=TOLERANCES)
    parser.add_argument("--folder", help="where the prepared files are")
    options = parser.parse_args()
    if options.side:
        print(json.dumps({"prepare": prepare, "mindir": mindir, "onnx": onnx, "torch": pytorch}[options.side](options)))
        return
    with tempfile.TemporaryDirectory() as options.folder:
        rows = measure(options)
    report(rows, options.json)


def measure(options):
    """The rows of the table."""
    def side(name, part="network", **environment):
        return in_fresh_process(os.path.abspath(__file__), f"--side={name}", f"--part={part}",
                                f"--folder={options.folder}", f"--repeats={options.repeats}", environment=environment)
    side("prepare", ONEDNN_MAX_CPU_ISA="AVX2")
    rows = []
    for part in TOLERANCES:
        peer = side("torch", part, ONEDNN_MAX_CPU_ISA="")
        ours = {"MindIR": side("mindir", part, ONEDNN_MAX_CPU_ISA="AVX2"),
                "ONNX": side("onnx", part, ONEDNN_MAX_CPU_ISA="")}
        rows += [row(f"SSD300-ResNet50 {part}, batch 1, {name}", ours=seconds, peer=peer, unit="s",
                     compared_with="PyTorch 2.13 eager")
                 for name, seconds in ours.items()]
    return rows


def prepare(options):
    """Draws the weights; writes them, both exports of both parts, a picture and what the network makes of it."""
    from src.export.exporter import export_model
    from src.inference.description import describe, detector_arguments
    from src.inference.exported import run_cell
    from src.models.detector import Detector, RawDetector
    from src.models.ssd import build_model
    picture = np.random.default_rng(1).integers(0, 256, (1, 300, 300, 3), np.uint8)
    for part in TOLERANCES:
        model = draw_weights(build_model(MODEL, CLASSES), picture)
        if part == "network":  # before the exports, which fold the norms
            weights = {name: weight.asnumpy() for name, weight in model.network.parameters_dict().items()}
            np.savez(os.path.join(options.folder, "weights.npz"), **weights)
            np.savez(os.path.join(options.folder, "facts.npz"), anchors=model.anchors, mean=model.mean, std=model.std)
        thresholds = detector_arguments(SETTINGS)
        cell = RawDetector(model) if part == "network" else Detector(model, **thresholds)
        np.savez(os.path.join(options.folder, f"{part}.npz"), picture, *run_cell(cell, picture))
        meta = describe(model, [f"class{number}" for number in range(1, CLASSES)], SETTINGS)
        for ending in ("mindir", "onnx"):
            export_model(model, meta, os.path.join(options.folder, f"{part}.{ending}"), batch_size=1,
                         raw=part == "network")


def timed(call, options):
    """Median seconds of call(picture) -> arrays, after it gave what the network gives."""
    picture, *expected = np.load(os.path.join(options.folder, f"{options.part}.npz")).values()
    found = call(picture)
    if options.part == "detector":  # only the sorted scores: equal ones may come in any order
        expected, found = expected[1:2], found[1:2]
    for wanted, output in zip(expected, found):
        difference = np.abs(wanted - output).max() / max(1, np.abs(wanted).max())
        if not difference <= TOLERANCES[options.part]:  # NaN is not
            sys.exit(f"{options.side} differs from the network by {difference:.3g}")
    return median_seconds(lambda: call(picture), options.repeats, warm=2)


def mindir(options):
    """The exported file in MindSpore."""
    import mindspore as ms
    cell = ms.nn.GraphCell(ms.load(os.path.join(options.folder, f"{options.part}.mindir")))
    return timed(lambda picture: [output.asnumpy() for output in cell(ms.Tensor(picture))], options)


def onnx(options):
    """The exported file in onnxruntime."""
    from src.inference.onnx_session import open_session
    session = open_session(os.path.join(options.folder, f"{options.part}.onnx"))
    return timed(lambda picture: session.run(None, {"images": picture}), options)


def pytorch(options):
    """The same network in PyTorch's eager mode."""
    import torch
    from torch_peer import SSD300
    network = SSD300(CLASSES).eval()
    fill(network, np.load(os.path.join(options.folder, "weights.npz")))
    facts = {name: torch.tensor(value, dtype=torch.float32)
             for name, value in np.load(os.path.join(options.folder, "facts.npz")).items()}

    def call(picture):
        with torch.inference_mode():
            pixels = (torch.from_numpy(picture).float() - facts["mean"]) / facts["std"]
            outputs = network(pixels.permute(0, 3, 1, 2))
            if options.part == "detector":
                outputs = finish(*outputs, facts["anchors"])
            return [output.numpy() for output in outputs]
    return timed(call, options)


def fill(network, weights):
    """Gives the peer our weights {name: array}: part by part, its layers come in the same order."""
    from torch import from_numpy, nn
    renamed = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    for prefix, part in (("backbone.", network.backbone), ("neck.", network.extras), ("head.cls.", network.logits),
                         ("head.box.", network.deltas)):
        layers = {}
        for name, value in weights.items():
            if name.startswith(prefix):
                stem, _, last = name.rpartition(".")
                layers.setdefault(stem, {})[renamed.get(last, last)] = from_numpy(value)
        modules = [module for module in part.modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))]
        for module, values in zip(modules, layers.values(), strict=True):
            module.load_state_dict(values, strict=isinstance(module, nn.Conv2d))


def finish(logits, deltas, anchors):
    """logits [1, A, C], deltas [1, A, 4] -> boxes [K, 4], scores [1, K], labels [K], zero behind the last detection."""
    import torch
    from torch.nn.functional import pad
    scores = logits[0].softmax(-1)[:, 1:]
    center = deltas[0, :, :2] * 0.1 * anchors[:, 2:] + anchors[:, :2]
    half = (deltas[0, :, 2:] * 0.2).exp() * anchors[:, 2:] / 2
    boxes = torch.cat([center - half, center + half], 1).clamp(-1, 2)
    score, index = scores.flatten().topk(SETTINGS["nms_candidates"])
    count = int((score > SETTINGS["min_score"]).sum())
    score, label, box = score[:count], index[:count] % scores.shape[1], boxes[index[:count] // scores.shape[1]]
    kept = greedy(box + 3.0 * label[:, None], SETTINGS["nms_threshold"])[:SETTINGS["max_boxes"]]
    rest = SETTINGS["max_boxes"] - len(kept)
    boxes = pad(box[kept].clamp(0, 1), (0, 0, 0, rest))
    return boxes, pad(score[kept], (0, rest))[None], pad(label[kept] + 1, (0, rest))


def greedy(boxes, threshold):
    """Indices of the boxes [n, 4], sorted by score, that no better one overlaps by more than threshold."""
    import torch
    corner = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    shared = (torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - corner).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    over = shared / (area[:, None] + area - shared) > threshold
    alive, kept = torch.ones(len(boxes), dtype=torch.bool), []
    for index in range(len(boxes)):
        if alive[index]:
            kept.append(index)
            alive &= ~over[index]
    return torch.tensor(kept, dtype=torch.long)


if __name__ == "__main__":
    main()
