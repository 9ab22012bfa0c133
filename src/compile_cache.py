"""Compiled graphs of earlier starts: a second start of the same run compiles nothing."""
import contextlib
import glob
import hashlib
import os
import shutil

import mindspore as ms

KEPT = 32  # folders; the oldest go
# options that no graph depends on
FREE = ("output_path", "config_path", "compile_cache", "resume", "max_steps", "typed", "log_interval", "source",
        "checkpoint_file_path", "draw_score", "eval_images", "save_checkpoint_epochs",
        "save_checkpoint_steps", "keep_checkpoint_max", "early_stop")


def use_cache(root, facts, parameters):
    """Lets MindSpore keep the graphs of this process in a folder of `root` and take them from there; "" for no cache.

    MindSpore numbers graphs and would take the first one of another network for the first one of this. So the name of
    the folder is a digest of all that graphs are made of: the source code, MindSpore's version, `facts` (a dict: the
    options without FREE, what a model says of itself, sizes of a batch, the order of the graphs), names, shapes and
    types of the parameters and whether they are trained. Values of parameters are no part of a graph. A graph that is
    missing or damaged is compiled. A folder that cannot be written means no cache.
    """
    if not root:
        return
    digest = hashlib.sha256(f"{ms.__version__} {sorted(facts.items(), key=str)}".encode())
    for path in sorted(glob.glob(os.path.join(os.path.dirname(__file__), "**", "*.py"), recursive=True)):
        with open(path, "rb") as file:
            digest.update(file.read())
    for one in parameters:
        digest.update(f"{one.name} {one.shape} {one.dtype} {one.requires_grad}".encode())
    folder = os.path.join(os.path.abspath(root), digest.hexdigest()[:16])
    with contextlib.suppress(OSError):
        os.makedirs(folder, exist_ok=True)
        os.utime(folder)
        for old in sorted(glob.glob(os.path.join(os.path.abspath(root), "*")), key=os.path.getmtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    if os.access(folder, os.W_OK):
        ms.set_context(enable_compile_cache=True, compile_cache_path=folder)
