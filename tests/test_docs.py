"""The pages: links, files and options they name exist, lines are short, README_CN.md follows README.md."""
import glob
import os
import re
import unicodedata
from pathlib import Path

import pytest
import yaml
from programs import ROOT

PATTERNS = ("*.md", "docs/*.md", "docs/models/*.md", "ckpt/*.md", "bench/*.md", ".github/*/*.md")
PAGES = sorted(name for pattern in PATTERNS for name in glob.glob(pattern, root_dir=ROOT))
MAX_COLUMNS = 120
CODE_BLOCK = re.compile(r"^```.*?^```\n", re.DOTALL | re.MULTILINE)
# options of programs that are not ours: mpirun, msrun, docker, Slurm, TensorBoard, py-spy, pip, pre-commit, ruff, curl
FOREIGN_OPTIONS = {
    "allow-run-as-root", "bind-to", "cpus", "data-binary", "gil", "join", "local_worker_num", "log_dir", "logdir",
    "map-by", "master_addr", "master_port", "node_rank", "oversubscribe", "report-bindings", "rm", "target",
    "worker_num"}
STAND_FOR_A_NAME = {"key", "x"}  # --key=value
# docs/new_model.md tells how to make the first; the second stands for a name
MADE_BY_READERS = {"config/ssd300_resnet18_coco.yaml", "config/RECIPE.yaml"}


def read(name):
    return Path(ROOT, name).read_text(encoding="utf-8")


def slug(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(name):
    headings = re.findall(r"^#+ (.*)$", CODE_BLOCK.sub("", read(name)), re.MULTILINE)
    return {slug(heading) for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    folder = os.path.dirname(name)
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE_BLOCK.sub("", read(name))):
        if "://" in target or target.startswith("../blob/"):  # the latter: from an issue to a file, on GitHub
            continue
        path, _, anchor = target.partition("#")
        page = os.path.normpath(os.path.join(folder, path)) if path else name
        assert os.path.exists(os.path.join(ROOT, page)), target
        assert not anchor or anchor in anchors(page), target


@pytest.mark.parametrize("name", PAGES)
def test_files_they_name_exist(name):
    found = re.findall(r"(?<![\w./-])(?:\./)?((?:src|scripts|config|docs|tests|bench)/[\w./*-]*[\w*])", read(name))
    missing = [path for path in found if not glob.glob(path, root_dir=ROOT)]
    assert set(missing) - MADE_BY_READERS == set()


@pytest.mark.parametrize("name", PAGES)
def test_options_they_name_exist(name):
    programs = [path for pattern in ("*.py", "scripts/*.py", "bench/*.py", "src/arguments.py")
                for path in glob.glob(pattern, root_dir=ROOT)]
    known = {"help", "all", *yaml.safe_load(read("config/default.yaml")), *FOREIGN_OPTIONS, *STAND_FOR_A_NAME}
    for path in programs:
        known.update(re.findall(r'"--([\w-]+)"', read(path)))
    assert set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", read(name))) - known == set()


@pytest.mark.parametrize("name", PAGES)
def test_lines_are_short(name):
    prose = [line for line in CODE_BLOCK.sub("", read(name)).splitlines() if not line.startswith(("|", "!["))]
    assert [line for line in prose if columns(re.sub(r"\]\([^)]*\)|https?://\S+", "", line)) > MAX_COLUMNS] == []


def columns(text):
    """Columns that a text takes in a terminal, where Chinese characters are two wide."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def commands(block):
    """The lines of a code block without comments, and without what stands three and more spaces behind a name."""
    lines = [re.sub(r"(\s*#| {3,}).*", "", line.strip()) for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_chinese_readme_has_the_same_commands_numbers_and_links():
    english, chinese = read("README.md"), read("README_CN.md")
    blocks = [[commands(block) for block in CODE_BLOCK.findall(text)] for text in (english, chinese)]
    assert blocks[0] == blocks[1]
    numbers = [sorted(set(re.findall(r"\d[\d.,]*\d|\d", text))) for text in (english, chinese)]
    assert numbers[0] == numbers[1]
    links = [set(re.findall(r"\]\(([^)#\s]+)\)", text)) for text in (english, chinese)]
    assert links[0] - {"README_CN.md"} == links[1] - {"README.md"}


def test_pre_commit_runs_the_pinned_ruff():
    pinned = re.search(r"^ruff==(\S+)$", read("requirements-dev.txt"), re.MULTILINE)[1]
    assert yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["rev"] == f"v{pinned}"


def test_the_page_of_recipes_has_all_recipes():
    recipes = {Path(path).stem for path in glob.glob("config/*.yaml", root_dir=ROOT)} - {"default"}
    assert {recipe for recipe in recipes if f"`{recipe}`" not in read("docs/recipes.md")} == set()
