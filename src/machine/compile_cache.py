"""Compiled graphs of earlier starts: a second start of the same run compiles nothing."""
from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import mindspore as ms
from mindspore.communication import GlobalComm, get_rank

OWN = "ssd_graphs"  # our folder in --compile_cache; nothing else in it is touched
KEPT = 32           # runs in it; the oldest are removed


def use_cache(root: str, facts: dict, parameters: Iterable[ms.Parameter]) -> None:
    """Lets MindSpore keep the graphs of this process in a folder of `root` and take them from there; "" for no cache.

    MindSpore numbers graphs and would take the first one of another network for the first one of this. So the name of
    the folder is a digest of all that graphs are made of: the source code, MindSpore's version, `facts` (the options
    that graphs depend on, what a model says of itself, batch sizes, the order of the graphs), names, shapes and types
    of the parameters and whether they are trained. Values of parameters are not part of a graph. Each process of a run
    has its own folder. A missing or damaged graph is compiled; a folder that cannot be written means no cache.
    """
    if not root:
        return
    digest = hashlib.sha256(f"{ms.__version__} {sorted(facts.items(), key=str)}".encode(errors="backslashreplace"))
    builder = Path(str(facts.get("model", "")).rpartition(":")[0])  # of a model outside this repository
    own = builder.parent.glob("*.py") if builder.suffix == ".py" else ()
    for path in sorted([*Path(__file__).parents[1].rglob("*.py"), *own]):  # all of src/
        digest.update(path.read_bytes())
    for parameter in parameters:
        text = f"{parameter.name} {parameter.shape} {parameter.dtype} {parameter.requires_grad}"
        digest.update(text.encode())
    run = Path(os.path.abspath(root), OWN, digest.hexdigest()[:16])
    folder = run / f"rank_{get_rank() if GlobalComm.INITED else 0}"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(run, ns=(time.time_ns(), time.time_ns()))  # the kernel's own times are equal for some milliseconds
        remove_oldest(run.parent)
    if os.access(folder, os.W_OK):
        ms.set_context(enable_compile_cache=True, compile_cache_path=str(folder))


def remove_oldest(folder: Path) -> None:
    """Removes the graphs of all but the KEPT runs that started last."""
    runs = [entry for entry in os.scandir(folder)
            if re.fullmatch("[0-9a-f]{16}", entry.name) and entry.is_dir(follow_symlinks=False)]
    for entry in sorted(runs, key=lambda entry: entry.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(entry.path, ignore_errors=True)
