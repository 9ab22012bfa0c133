"""Downloads a public checkpoint by its name in ckpt/catalogue.yaml, or any file by its address.

    python scripts/fetch_weights.py --list
    python scripts/fetch_weights.py torchvision_ssd300_vgg16_coco
    python scripts/fetch_weights.py https://HOST/FILE.pth --sha256=b556d3b4 --to=FOLDER
    python scripts/fetch_weights.py --page      write the tables of ckpt/README.md, after a change of the catalogue

A download that ended early is continued by the same command. Known checksums are compared, others printed. Archives are
unpacked. The last lines say how to use the file.
"""
from __future__ import annotations

import os
import re
import sys
from argparse import Namespace

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.arguments import ArgumentParser
from src.errors import OptionError, run_main
from src.files import expand_home, output_folder, write_atomic
from src.weights.catalogue import Checkpoint, ListCheckpoints, fill_page, find_checkpoint
from src.weights.download import download, file_digest, unpack

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "ckpt", "README.md")


def read_arguments() -> Namespace:
    """What the user typed."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("name", nargs="?", default="", help="of the catalogue, or an address")
    parser.add_argument("--list", action=ListCheckpoints, help="print the catalogue and exit")
    parser.add_argument("--to", type=expand_home, default="ckpt", help="folder, by default ckpt")
    parser.add_argument("--sha256", default="", help="of the file at an address, or how it begins")
    parser.add_argument("--page", action="store_true", help="write the tables of ckpt/README.md")
    return parser.parse_args()


def main() -> None:
    """Downloads, unpacks, and says how to go on."""
    arguments = read_arguments()
    if arguments.page:
        with open(PAGE, encoding="utf-8") as file:
            text = file.read()
        write_atomic(PAGE, fill_page(text).encode())
        return
    if not arguments.name:
        raise OptionError("no checkpoint is named; --list prints the names")
    with output_folder(arguments.to):
        if "://" in arguments.name:
            fetch_file(arguments.name, os.path.join(arguments.to, os.path.basename(arguments.name)), arguments.sha256)
        else:
            fetch_checkpoint(find_checkpoint(arguments.name), arguments.to)


def fetch_checkpoint(row: Checkpoint, folder: str) -> None:
    """Downloads a row of the catalogue into a folder and prints the commands that use it."""
    if not row.address:
        raise OptionError(f"'{row.name}' has no address that a program can download; get it by hand: {row.get}")
    begins = re.search(r"-([0-9a-f]{8})\.pth?$", row.file)  # PyTorch's files are named by their checksum
    path = os.path.join(folder, row.file)
    fetch_file(row.address, path, row.sha256 or (begins[1] if begins else ""))
    if row.inside:
        inner = os.path.join(folder, row.name)
        os.makedirs(inner, exist_ok=True)
        files = unpack(path, row.inside, inner)
        path = files[0] if len(files) == 1 else inner
        print(f"unpacked {', '.join(files)}")
    print("\n".join(row.commands(path)))


def fetch_file(address: str, path: str, sha256: str) -> None:
    """Downloads a file unless it is there. Raises OptionError where another file has its name."""
    if os.path.exists(path):
        digest = file_digest(path)
        if not digest.startswith(sha256.lower()):
            raise OptionError(f"'{path}' is there with the SHA-256 {digest}, expected {sha256}; remove it first")
        print(f"{path} is there already, SHA-256 {digest}")
        return
    digest = download(address, path, sha256=sha256)
    checked = f"as expected ({sha256}..)" if sha256 else "which no publisher states: compare it with another source"
    print(f"wrote {path}: {os.path.getsize(path):,} bytes, SHA-256 {digest}, {checked}")


if __name__ == "__main__":
    run_main(main)
