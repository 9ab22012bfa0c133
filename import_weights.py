"""Other people's weights -> a checkpoint of ours: detectors whole, or an ImageNet backbone alone.

    python import_weights.py SOURCE --model=ssd300_resnet50 --output=ckpt/x.ckpt [--from=nvidia] [--classes=coco]

SOURCE: .pth or .pt (PyTorch; nothing in it is executed), .safetensors, .npz, .pdparams (Paddle), model.json or its
folder (TensorFlow.js), .ckpt (MindSpore).
"""
import os

from src.arguments import ArgumentParser
from src.errors import OptionError, run_main
from src.files import expand_home
from src.machine import process


def main():
    """Reads the arguments, converts, reports and writes the checkpoint."""
    from src.weights.names import SOURCES, published_thresholds
    parser = ArgumentParser(__doc__)
    parser.add_argument("source", type=expand_home, help="file, or folder with a model.json")
    parser.add_argument("--from", dest="kind", default="auto", choices=("auto", *SOURCES),
                        help="whose names and layout it has")
    parser.add_argument("--model", required=True, help="the model of ours it is for")
    parser.add_argument("--output", type=expand_home, required=True,
                        help="checkpoint to write, for example ckpt/ssd.ckpt")
    parser.add_argument("--classes", default="", help="coco, voc or a,b,c; default: coco, or voc for 21 class channels")
    arguments = parser.parse_args()
    process.prepare()

    from src.files import output_folder
    from src.inference.description import describe
    from src.models.ssd import build_model
    from src.weights import checkpoint
    from src.weights.load import assign, fetch, import_command, report

    classes, model, (values, left, source, _) = fitting_model(arguments, build_model, fetch)
    if source == "ours":
        raise OptionError(f"'{arguments.source}' is a checkpoint of ours already")
    loaded, skipped, missing = assign(model.network, values)
    print(report(arguments.source, source, model.network, values, loaded, skipped, missing, left))
    whole = not skipped and not missing
    # L2Norm starts at 20 whatever the backbone; the other layers of a backbone must all be there
    backbone = not [one for one in missing if one.startswith("backbone.") and not one.startswith("backbone.l2_norm.")]
    if not whole and not (backbone and not any(one.startswith("head.") for one in loaded) and not skipped):
        total = len(loaded) + len(skipped) + len(missing)
        fitting = import_command(arguments.source)
        raise OptionError(f"'{arguments.source}' fills only {len(loaded)} of {total} parameters of {arguments.model}: "
                          "nothing was written; " +
                          (f"it fits by {fitting}" if fitting else "check --model, --classes and --from"))
    meta = describe(model, classes, published_thresholds(source), imported_from=source) if whole else \
        {"model": model.name, "imported_from": source, "backbone_only": True}
    parameters = [one for one in model.network.get_parameters() if whole or one.name in set(loaded)]
    with output_folder(os.path.dirname(os.path.abspath(arguments.output))):
        checkpoint.save(arguments.output, parameters, meta)
    what = f"whole detector, {len(classes)} classes" if whole else "backbone alone, for train.py --pre_trained"
    print(f"wrote {arguments.output}: {what}, {sum(one.size for one in parameters):,} numbers")


def fitting_model(arguments, build_model, fetch):
    """Class names, Model with as many classes as the file has unless --classes says them, and what `fetch` gives."""
    from src.classes import named_classes
    from src.config import convert
    names = convert("classes", arguments.classes, {"classes": []})
    classes = named_classes(names or ["coco"])
    model = build_model(arguments.model, len(classes) + 1)
    values, *facts = fetch(model.network, arguments.source, arguments.kind)
    if not names:
        shapes = {one.name: one.shape for one in model.network.get_parameters()}
        voc = named_classes(["voc"])
        if any(name.startswith("head.cls") and value.shape[0] * (len(classes) + 1) == shapes[name][0] * (len(voc) + 1)
               for name, value in values.items() if name in shapes):
            classes, model = voc, build_model(arguments.model, len(voc) + 1)
    return classes, model, (values, *facts)


if __name__ == "__main__":
    run_main(main)
