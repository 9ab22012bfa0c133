"""Writes a checkpoint as MindIR: raw uint8 RGB in, final detections out (with --raw=True: logits and deltas).

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
    from src.exporter import export_mindir
    from src.predictor import load_model
    from src.run_folder import make_folder

    distributed.start(options.device_target, options.device_id)
    path = options.file_name if options.file_name.endswith(".mindir") else f"{options.file_name}.mindir"
    make_folder(os.path.dirname(os.path.abspath(path)))
    model, meta = load_model(options.checkpoint_file_path, options)
    meta = export_mindir(model, meta, path, options.export_batch_size, options.raw)
    print(f"wrote {path} ({os.path.getsize(path) / 1e6:.1f} MB) and {os.path.splitext(path)[0]}.json")
    print(f"inputs  {json.dumps(meta['inputs'])}\noutputs {json.dumps(meta['outputs'])}")
    print(f"loaded again and compared with the network: largest difference {meta['largest_difference']:.2g}")


if __name__ == "__main__":
    run_main(main)
