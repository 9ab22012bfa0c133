"""Writes a checkpoint as MindIR or ONNX: raw uint8 RGB in, final detections out (with --raw=True: logits and deltas).

    python export.py --checkpoint_file_path=runs/first/ckpt/best.ckpt --file_format=MINDIR --file_name=ssd
"""
from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from src.errors import OptionError, run_main, smaller_batch
from src.machine import process
from src.machine.stop_signals import leaving_at_once

if TYPE_CHECKING:
    from easydict import EasyDict


def main() -> None:
    """Reads the options and exports."""
    from src.config import read_options, take_data, take_run_data, unused_note
    from src.data.formats import identify

    options, notes = read_options(sys.argv[1:], "export.py", doc=__doc__), []
    if options.quantize == "int8":
        for take in (partial(take_data, identify=identify), take_run_data):
            options, note = take(options)
            notes.append(note)
    if not options.checkpoint_file_path:
        raise OptionError("--checkpoint_file_path is empty; give a .ckpt")
    if options.quantize != "none" and options.file_format != "ONNX":
        raise OptionError(f"--quantize={options.quantize} is for ONNX files only; add --file_format=ONNX")
    path = written_path(options.file_name, options.file_format)
    for note in filter(None, (unused_note(options, "export.py"), *notes)):
        print(note, flush=True)
    process.prepare(options.device_target)
    with leaving_at_once(), smaller_batch("export_batch_size", options.export_batch_size):
        write(options, path)


def written_path(name: str, file_format: str) -> str:
    """The path of the file to write: the name with the ending of its format. Raises OptionError for a bare ending."""
    ending = {"MINDIR": ".mindir", "ONNX": ".onnx"}[file_format]
    if os.path.basename(name).removesuffix(ending) == "":
        raise OptionError(f"--file_name={name} does not name a file; give for example runs/first/ssd")
    return name if name.endswith(ending) else f"{name}{ending}"


def write(options: EasyDict, path: str) -> None:
    """Exports, loads the file again and compares it with the network before success is printed."""
    from src.config import model_options
    from src.export.exporter import export_model, refuse_neighbour
    from src.files import output_folder
    from src.inference.description import sidecar_of
    from src.inference.predictor import load_model
    from src.machine import distributed

    distributed.start(options.device_target, options.device_id)
    with output_folder(os.path.dirname(os.path.abspath(path))):
        model, meta = load_model(options.checkpoint_file_path, **model_options(options), say=print)
        meta["quantize"] = options.quantize
        refuse_neighbour(path, {**meta, "batch_size": options.export_batch_size, "raw": options.raw})
        quantize = None if options.quantize == "none" else build_quantize(options, meta)
        meta = export_model(model, meta, path, batch_size=options.export_batch_size, raw=options.raw, quantize=quantize)
    print(f"wrote {path} ({os.path.getsize(path) / 1e6:.1f} MB) and {sidecar_of(path)}\n"
          f"inputs  {json.dumps(meta['inputs'])}\noutputs {json.dumps(meta['outputs'])}")
    if "opset" in meta:
        print(f"opset   {json.dumps(meta['opset'])}: {' '.join(meta['operators'])}")
    cost = "; eval.py says what it costs" if quantize else ""
    print(f"loaded again and compared with the network: largest difference {meta['largest_difference']:.2g}{cost}")


def build_quantize(options: EasyDict, meta: dict) -> Callable:
    """The function of quantize.py for --quantize; int8 measures ranges on pictures of the validation split."""
    import numpy as np

    from src.export.quantize import Int8, to_float16
    if options.quantize == "fp16":
        return to_float16
    from src.config import split_options
    from src.data.labels import classes_from
    from src.data.loader import EvalLoader
    from src.data.prepare import prepare_split

    print(f"int8 measures its ranges on pictures of the validation split (--dataset={options.dataset})", flush=True)
    with classes_from(f"the list is that of '{options.checkpoint_file_path}': give data of its classes"):
        split = prepare_split(**split_options(options, "val"), classes=meta["classes"])
    loader = EvalLoader(split.files, rows=split.count, image_size=meta["image_size"],
                        batch_size=options.eval_batch_size, workers=options.num_workers or process.loader_threads(),
                        resize=meta["resize"])
    loader.rows = loader.rows[::max(1, split.count // options.calibration_images)][:options.calibration_images]
    print(f"ranges are measured on {len(loader.rows)} of the {split.count} images of {split.name}")
    return Int8(np.concatenate([images for images, _ in loader]))


if __name__ == "__main__":
    run_main(main)
