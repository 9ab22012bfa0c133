"""Compiled graphs of earlier starts: a second start of the same run compiles nothing."""
import contextlib
import hashlib
import os
import re
import shutil
from pathlib import Path

import mindspore as ms
from mindspore.communication import GlobalComm, get_rank

OWN = "ssd_graphs"  # the folder in --compile_cache that is ours; nothing else in it is touched
KEPT = 32           # runs in it; the oldest go


def use_cache(root, facts, parameters):
    """Lets MindSpore keep the graphs of this process in a folder of `root` and take them from there; "" for no cache.

    MindSpore numbers graphs and would take the first one of another network for the first one of this. So the name of
    the folder is a digest of all that graphs are made of: the source code, MindSpore's version, `facts` (a dict: the
    options that graphs depend on, what a model says of itself, sizes of a batch, the order of the graphs), names,
    shapes and types of the parameters and whether they are trained. Values of parameters are not part of a graph. Each
    process of a run has its own folder in it. A graph that is missing or damaged is compiled. A folder that cannot be
    written means no cache.
    """
    if not root:
        return
    digest = hashlib.sha256(f"{ms.__version__} {sorted(facts.items(), key=str)}".encode(errors="backslashreplace"))
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    for one in parameters:
        digest.update(f"{one.name} {one.shape} {one.dtype} {one.requires_grad}".encode())
    run = Path(os.path.abspath(root), OWN, digest.hexdigest()[:16])
    folder = run / f"rank_{get_rank() if GlobalComm.INITED else 0}"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(run)
        forget_oldest(run.parent)
    if os.access(folder, os.W_OK):
        ms.set_context(enable_compile_cache=True, compile_cache_path=str(folder))


def forget_oldest(folder):
    """Removes the graphs of all but the KEPT runs that started last."""
    runs = [one for one in os.scandir(folder) if re.fullmatch("[0-9a-f]{16}", one.name) and
            one.is_dir(follow_symlinks=False)]
    for old in sorted(runs, key=lambda one: one.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old.path, ignore_errors=True)
