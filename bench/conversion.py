"""Conversion of a COCO split to MindRecord against copying its image files.

    python bench/conversion.py --coco_root=COCO [--train_data_type=train2017] [--json=FILE]

Conversion decodes every image as a check and writes its bytes with its boxes. Both sides write into a new folder
in --scratch, read the images out of the page cache (warm) and end when the system call `sync` has put everything on the
disk; medians of five, in turn. The peak of memory is that of a process that converts once.
"""
import os
import shutil
import statistics
import tempfile
import time

from common import arguments, report, row


def main():
    """Measures both sides in turn."""
    parser = arguments(__doc__)
    parser.add_argument("--coco_root", type=os.path.expanduser, required=True)
    parser.add_argument("--train_data_type", default="train2017")
    parser.add_argument("--scratch", type=os.path.expanduser, default=tempfile.gettempdir())
    options = parser.parse_args()
    from src.data.prepare import prepare_split
    from src.training.meter import peak_memory
    images, scratch = os.path.join(options.coco_root, options.train_data_type), tempfile.mkdtemp(dir=options.scratch)
    copied, converted = (os.path.join(scratch, name) for name in ("copy", "convert"))

    def copy():
        shutil.copytree(images, copied)

    def convert():
        prepare_split("train", "coco", mindrecord_dir=converted, classes=[], log=lambda text: None,
                      coco_root=options.coco_root, split_name=options.train_data_type)

    times = {copy: [], convert: []}
    for _ in range(5):
        for side, folder in ((copy, copied), (convert, converted)):
            shutil.rmtree(folder, ignore_errors=True)
            os.sync()
            start = time.perf_counter()
            side()
            os.sync()
            times[side].append(time.perf_counter() - start)
    files = os.listdir(images)
    size = sum(os.path.getsize(os.path.join(images, name)) for name in files) >> 20
    print(f"{len(files)} images, {size} MiB; peak memory {peak_memory():.2f} GiB")
    report([row("conversion to MindRecord", ours=statistics.median(times[convert]),
                peer=statistics.median(times[copy]), unit="s", compared_with="copying the files")], options.json)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
