"""Other people's weights -> a checkpoint for this repository: complete detectors, or an ImageNet backbone alone.

    python import_weights.py --list
    python import_weights.py SOURCE --model=ssd300_resnet50 --output=ckpt/x.ckpt [--from=nvidia] [--classes=coco]

SOURCE: .pth or .pt (PyTorch; nothing in it is executed), .safetensors, .npz, .pdparams (Paddle), model.json or its
folder (TensorFlow.js), .caffemodel (Caffe), .ckpt (MindSpore), TensorFlow's checkpoint (.index, its prefix or folder),
SavedModel folder or frozen graph (.pb).
"""
from __future__ import annotations

import os
from argparse import Namespace

from src.arguments import ArgumentParser
from src.errors import OptionError, run_main
from src.files import expand_home
from src.machine import process


def read_arguments() -> Namespace:
    """What the user typed."""
    from src.weights.catalogue import ListCheckpoints
    from src.weights.names import SOURCES
    parser = ArgumentParser(__doc__)
    parser.add_argument("--list", action=ListCheckpoints, help="print the public checkpoints and exit")
    parser.add_argument("source", type=expand_home, help="file, or a folder with one")
    parser.add_argument("--from", dest="publisher", default="auto", choices=("auto", *SOURCES),
                        help="whose names and layout it has")
    parser.add_argument("--model", required=True, help="the model of this repository that it is for")
    parser.add_argument("--output", type=expand_home, required=True, help="checkpoint to write, such as ckpt/ssd.ckpt")
    parser.add_argument("--image_size", type=int, default=0, help="pixels, where it was trained at another size than "
                        "the model was first published with; such as 640 for ssd_mobilenet_v2_fpnlite_640x640")
    parser.add_argument("--verbose", action="store_true", help="name all parameters that the file does not fill, and "
                        "all of the file that are left over")
    parser.add_argument("--classes", default="", help="coco, voc or a,b,c; default: coco, or voc for 21 class channels")
    return parser.parse_args()


def main() -> None:
    """Converts, reports and writes the checkpoint."""
    arguments = read_arguments()
    process.prepare()
    from src.classes import named_classes
    from src.config import convert
    from src.files import output_folder
    from src.inference.description import build_described, describe
    from src.weights import checkpoint
    from src.weights.files import open_weights
    from src.weights.load import MAX_ROWS, OURS, assign, check_version, translate_weights
    from src.weights.names import published_thresholds
    from src.weights.recognise import import_command, match_model, source_facts

    typed = convert("classes", arguments.classes, {"classes": []})
    file = open_weights(arguments.source)
    source, found = match_model(file, arguments.model, arguments.publisher)
    classes = named_classes(typed or ["voc" if found == 20 else "coco"])
    facts = source_facts(source, arguments.model) if source else {}
    model = build_described({"model": arguments.model, "classes": classes, "image_size": arguments.image_size, **facts})
    translated = translate_weights(model.network, file, arguments.publisher)
    if translated.source == OURS:
        raise OptionError(f"'{file.path}' is a checkpoint of this repository already")
    report = assign(model.network, translated)
    print(report.text(file.path, None if arguments.verbose else MAX_ROWS))
    if report.complete:
        check_version(model.name, report.source)
        meta = describe(model, classes, published_thresholds(report.source), imported_from=report.source)
        what = f"whole detector, {len(classes)} classes"
    elif report.backbone_only:
        meta = {"model": model.name, "imported_from": report.source, "backbone_only": True}
        what = "backbone alone, for train.py --pre_trained"
    else:
        command = import_command(file)
        remedy = f"it fits by {command}" if command else "check --model, --classes and --from"
        total = len(report.loaded) + len(report.skipped) + len(report.missing)
        raise OptionError(f"'{file.path}' fills only {len(report.loaded)} of {total} parameters of {model.name}: "
                          f"nothing was written; {remedy}")
    loaded = set(report.loaded)
    parameters = [parameter for parameter in model.network.get_parameters() if parameter.name in loaded]
    with output_folder(os.path.dirname(os.path.abspath(arguments.output))):
        checkpoint.save(arguments.output, parameters, meta)
    print(f"wrote {arguments.output}: {what}, {sum(parameter.size for parameter in parameters):,} numbers")


if __name__ == "__main__":
    run_main(main)
