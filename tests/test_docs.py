"""The pages: links, files and options they name exist, lines are short, README_CN.md follows README.md."""
import functools
import glob
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml
from programs import ROOT

PATTERNS = ("*.md", "docs/*.md", "docs/models/*.md", "ckpt/*.md", "bench/*.md", ".github/*/*.md")
PAGES = sorted(name for pattern in PATTERNS for name in glob.glob(pattern, root_dir=ROOT))
MAX_COLUMNS = 120
COMMAND = re.compile(r"python3? ((?:scripts/|bench/)?\w+\.py)((?: +(?!&|#|`)[^\s`]+)*)")  # the program, what follows
CODE_BLOCK = re.compile(r"^```.*?^```\n", re.DOTALL | re.MULTILINE)
# options of programs that are not ours: mpirun, msrun, docker, Slurm, TensorBoard, py-spy, pip, pre-commit, ruff, curl
FOREIGN_OPTIONS = {
    "long", "inputs",  # of pytest here: tests/conftest.py
    "cov", "cov-report",  # of pytest-cov
    "allow-run-as-root", "bind-to", "cpus", "data-binary", "device", "force-reinstall", "gil", "gpus", "join",
    "local_worker_num", "log_dir", "logdir", "map-by", "master_addr", "master_port", "no-deps", "node_rank",
    "oversubscribe", "report-bindings", "rm", "target", "worker_num"}
STAND_FOR_A_NAME = {"key", "x"}  # --key=value
# docs/new_model.md tells how to make the first; the second stands for a name
MADE_BY_READERS = {"config/ssd300_resnet18_coco.yaml", "config/RECIPE.yaml"}

# words of messages of Python, pip, NumPy, the loader, MindSpore, Open MPI, pycocotools in docs/troubleshooting.md
FOREIGN_MESSAGES = (
    "No module named", "No matching distribution found", "numpy.float64", "Failed calling Add", "compiled using NumPy",
    "cannot open shared object file", "Unsupported statement", "lineno is out of range", "command not found",
    "not enough slots available", "detected an attempt to run as root", "Role name is invalid", "CUDA out of memory",
    "Results do not correspond to current coco set")


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
    programs = [path for pattern in ("*.py", "scripts/*.py", "bench/*.py", "tests/faults/*.py", "src/arguments.py")
                for path in glob.glob(pattern, root_dir=ROOT)]
    known = {"help", "all", *yaml.safe_load(read("config/default.yaml")), *FOREIGN_OPTIONS, *STAND_FOR_A_NAME}
    for path in programs:
        known.update(re.findall(r'"--([\w-]+)"', read(path)))
    assert set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", read(name))) - known == set()


@pytest.mark.parametrize("name", PAGES)
def test_commands_give_options_of_their_program(name):
    found = COMMAND.findall(read(name).replace("\\\n", " "))
    odd = [(program, option) for program, typed in found for option in re.findall(r"--([A-Za-z][\w-]*)", typed)
           if option not in options_of(program)]
    assert odd == []


@functools.cache
def options_of(program):
    """The options that a program shows with --help."""
    done = subprocess.run([sys.executable, program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {"help", *re.findall(r"--([A-Za-z][\w-]*)", done.stdout)}


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


@pytest.mark.parametrize("name", ["README.md", "README_CN.md"])
def test_the_layout_names_every_file_at_the_top_of_src(name):
    layout = "".join(re.findall(r"^src/\*\.py .*\n(?: +.*\n)*", read(name), re.MULTILINE))
    files = {Path(path).stem for path in glob.glob("src/*.py", root_dir=ROOT)} - {"__init__"}
    assert files - set(re.findall(r"\w+", layout)) == set()


def test_pre_commit_runs_the_pinned_ruff():
    pinned = re.search(r"^ruff==(\S+)$", read("requirements-dev.txt"), re.MULTILINE)[1]
    assert yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["rev"] == f"v{pinned}"


def test_the_page_of_recipes_has_all_recipes():
    recipes = {Path(path).stem for path in glob.glob("config/*.yaml", root_dir=ROOT)} - {"default"}
    assert {recipe for recipe in recipes if f"`{recipe}`" not in read("docs/recipes.md")} == set()


def test_what_programs_leave_in_the_checkout_is_ignored():
    """The folders of the defaults, and those that the pages tell users to type."""
    if not os.path.exists(os.path.join(ROOT, ".git")):
        pytest.skip("this is not a checkout of git")
    defaults = yaml.safe_load(read("config/default.yaml"))
    typed = {folder for name in PAGES for folder in re.findall(r"--output(?:_path)?=([\w./]+)", read(name))}
    folders = {value for value in defaults.values() if str(value).startswith("./")} | {
        folder for folder in typed if not folder.isupper() and not folder.startswith("/")}  # RUN stands for a name
    files = [f"{folder}/x" for folder in folders] + ["ssd.mindir", "ssd.json", "rows.json", "runs/.writing.a/x",
                                                     "ckpt/new.ckpt", "scripts/output/x"]
    assert len(folders) > 8
    done = subprocess.run(["git", "check-ignore", *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert sorted(done.stdout.split()) == sorted(files), done.stderr


def test_the_messages_of_troubleshooting_are_those_of_the_programs():
    """Three words in a row, or all of them, stand in the source; what changes there has to change on the page."""
    paths = [path for pattern in ("*.py", "src/**/*.py", "scripts/*.*") for path in Path(ROOT).glob(pattern)]
    joined = [re.sub(r'"\s*f?"(?!")', "", path.read_text(encoding="utf-8")) for path in paths]  # adjacent strings
    source = f" {' '.join(words_of(' '.join(joined)))} "
    cells = re.findall(r"^(?:## |\| (?=`))([^|\n]*)", read("docs/troubleshooting.md"), re.MULTILINE)
    messages = [message for cell in cells for message in re.findall("`([^`]+)`", cell)]
    assert len(messages) > 90
    assert [message for message in messages if not said(message, source)] == []


def words_of(text):
    """The words of a message, without values: what stands in quotes or braces, numbers, NaN and infinity."""
    return re.findall(r"[a-z]{2,}", re.sub(r"'[^' ]*'|\{[^{}]*\}|\b(nan|inf)\b", " ", text.lower()))


def said(message, source):
    """Whether a message on a page is one of the source or of FOREIGN_MESSAGES."""
    words = words_of(message)
    runs = [f" {' '.join(words[start:start + 3])} " for start in range(max(len(words) - 2, 1))]
    return any(words in message for words in FOREIGN_MESSAGES) or any(run in source for run in runs)
