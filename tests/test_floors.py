"""The floors of the house: imports go down only, nothing happens at import, and only entry points know the options."""
import ast
import glob
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FLOORS = (
    ("errors", "arguments", "text"),
    ("files", "models.norms", "cuda", "compat", "data.classes", "data.coco_masks", "data.image_bytes"),
    ("config", "boxes", "logger", "cluster", "distributed", "data.images", "data.records", "anchors",
     "compile_cache", "tensorflow_names", "tensor_pickle", "lr_schedule", "losses", "optim", "models.layers",
     "data.ahead", "data.xml_files", "data.photometric", "onnx_session", "ema", "video"),
    ("anchor_fit", "program_options", "runtime", "weights", "meter", "matching", "metrics", "checkpoint", "run_folder",
     "data.annotations",
     "data.transforms", "data.conversions", "data.layouts", "data.txt_fields", "data.voc_names",
     "models.resnet", "models.fpn", "models.vgg", "models.mobilenet", "models.heads", "models.fold", "onnx_graph"),
    ("engine", "weight_files", "visualize", "evaluate", "data.coco", "data.voc", "data.txt", "data.convert",
     "data.policies", "models.initialize",
     "models.ssd", "detector", "onnx_quantize"),
    ("pretrained", "report", "data.mindrecord", "data.loader", "exporter"),
    ("predictor", "recipe", "onnx_exporter", "resume"),
    ("run",),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
NUMPY_ONLY = ("errors", "arguments", "text", "program_options", "anchor_fit",
              "video", "files", "cuda", "cluster", "config", "boxes", "logger", "runtime", "anchors", "weights",
              "tensorflow_names",
              "tensor_pickle", "weight_files", "lr_schedule", "matching", "metrics", "run_folder", "visualize",
              "report", "onnx_session", "onnx_graph", "onnx_quantize",
              "data.classes", "data.image_bytes", "data.images", "data.conversions", "data.records", "data.annotations",
              "data.coco", "data.coco_masks", "data.voc", "data.layouts", "data.voc_names", "data.xml_files",
              "data.txt_fields", "data.ahead",
              "data.txt", "data.transforms", "data.photometric",
              "data.policies")


def modules():
    for path in glob.glob(os.path.join(ROOT, "src", "**", "*.py"), recursive=True):
        if not path.endswith("__init__.py"):
            yield os.path.relpath(path, os.path.join(ROOT, "src"))[:-3].replace(os.sep, "."), path


def imported(path):
    """Modules of src that a file imports, anywhere in it."""
    with open(path, encoding="utf-8") as file:
        for node in ast.walk(ast.parse(file.read())):
            if isinstance(node, ast.ImportFrom) and node.module == "src":
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("src."):
                yield node.module[len("src."):]


def test_every_module_has_a_floor():
    assert {name for name, _ in modules()} == set(FLOOR)


@pytest.mark.parametrize("name, path", modules())
def test_imports_go_down(name, path):
    for other in imported(path):
        assert FLOOR[other] < FLOOR[name], f"{name} (floor {FLOOR[name]}) imports {other} (floor {FLOOR[other]})"
        assert not (name.startswith("models.") and other.startswith("data.")), f"{name} imports {other}"
        assert not (name.startswith("data.") and other.startswith("models.")), f"{name} imports {other}"


def test_init_files_are_empty():
    paths = glob.glob(os.path.join(ROOT, "src", "**", "__init__.py"), recursive=True)
    assert all(os.path.getsize(path) == 0 for path in paths)


def test_numpy_modules_do_not_import_mindspore():
    names = ", ".join(f"src.{name}" for name in NUMPY_ONLY)
    code = f"import sys, {names}; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("program", ["train.py", "eval.py", "export.py", "predict.py", "prepare_data.py"])
def test_help_is_quick_and_wrong_options_end_with_2(program):
    how = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
    shown = subprocess.run([sys.executable, program, "--help"], **how)
    assert shown.returncode == 0 and "--batch_size" in shown.stdout
    wrong = subprocess.run([sys.executable, program, "--bach_size=3"], **how)
    assert wrong.returncode == 2 and "did you mean 'batch_size'?" in wrong.stderr and wrong.stderr.count("\n") == 1
