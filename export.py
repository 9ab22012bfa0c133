"""Writes a checkpoint as MindIR or ONNX: raw uint8 RGB in, final detections out (with --raw=True: logits and deltas).

    python export.py --checkpoint_file_path=runs/first/ckpt/best.ckpt --file_format=MINDIR --file_name=ssd
"""
import json
import os
import sys

from src import runtime
from src.config import read_options
from src.errors import OptionError, run_main


def main():
    """Reads the options, exports, loads the file again and compares it with the network before success is printed."""
    options = read_options(sys.argv[1:], "export.py")
    if not options.checkpoint_file_path:
        raise OptionError("--checkpoint_file_path is empty; give a .ckpt")
    runtime.prepare(options.device_target)
    from src import distributed
    from src.exporter import export_mindir, refuse_neighbour, sidecar_of
    from src.onnx_exporter import export_onnx
    from src.predictor import load_model
    from src.run_folder import make_folder

    distributed.start(options.device_target, options.device_id)
    ending, export = {"MINDIR": (".mindir", export_mindir), "ONNX": (".onnx", export_onnx)}[options.file_format]
    path = options.file_name if options.file_name.endswith(ending) else f"{options.file_name}{ending}"
    make_folder(os.path.dirname(os.path.abspath(path)))
    model, meta = load_model(options.checkpoint_file_path, options)
    refuse_neighbour(path, {**meta, "batch_size": options.export_batch_size, "raw": options.raw})
    meta = export(model, meta, path, options.export_batch_size, options.raw)
    print(f"wrote {path} ({os.path.getsize(path) / 1e6:.1f} MB) and {sidecar_of(path)}")
    print(f"inputs  {json.dumps(meta['inputs'])}\noutputs {json.dumps(meta['outputs'])}")
    print(f"loaded again and compared with the network: largest difference {meta['largest_difference']:.2g}")


if __name__ == "__main__":
    run_main(main)
