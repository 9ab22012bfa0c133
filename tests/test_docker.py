"""The Dockerfile and .dockerignore, as far as they can be read without Docker."""
import glob
import os
import re
from fnmatch import fnmatch
from pathlib import Path

from programs import ROOT

from src.machine.cpu_library import COMPILERS


def lines(name):
    return Path(ROOT, name).read_text(encoding="utf-8").splitlines()


def let_through(path):
    """Whether .dockerignore, which begins with *, lets a file of the repository into the build."""
    return any(path.startswith(f"{one}/") or ("/" not in path or one == path) and fnmatch(path, one)
               for one in (line[1:] for line in lines(".dockerignore") if line.startswith("!")))


def test_what_is_copied_and_what_messages_name_is_let_through():
    copied = [word for line in lines("Dockerfile") if line.startswith("COPY") for word in line.split()[2:-1]]
    sources = [os.path.join(ROOT, "README.md"), *glob.glob(os.path.join(ROOT, "*.py")),
               *glob.glob(os.path.join(ROOT, "s*", "**", "*.*"), recursive=True)]
    named = {path for source in sources if not source.endswith(".pyc")
             for path in re.findall(r"(?:docs|ckpt)/\w+\.md", Path(source).read_text(encoding="utf-8"))}
    assert len(named) > 5 and all(map(let_through, ("README.md", "LICENSE", "train.py")))
    assert [path for path in [*copied, *named] if path != "." and not let_through(path)] == []
    assert not any(map(let_through, ("tests/programs.py", ".venv/bin/python", "runs/first/log.jsonl", "a.ckpt")))


def test_a_builder_that_makes_all_stages_up_to_the_target_makes_no_gpu_image_for_the_cpu():
    stages = [line.split()[1:] for line in lines("Dockerfile") if line.startswith("FROM")]
    assert [stage[-1] for stage in stages] == ["base", "cpu", "gpu", "cpu"] and stages[-1] == ["cpu"]


def test_the_compiler_of_our_kernels_is_installed():
    words = " ".join(lines("Dockerfile")).split()
    assert COMPILERS[0] in words[words.index("install"):words.index("openssh-client")]
