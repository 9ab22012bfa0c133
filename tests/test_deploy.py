"""The examples of docs/deploy.md as they stand there, each in a folder with nothing but what it reads."""
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from programs import ROOT, environment
from test_export import small_model
from test_onnx import landscape

from src.export.exporter import export_model

EXAMPLES = {"mindir": "MindSpore", "onnx": "onnxruntime"}


def example(title):
    """The Python block under a heading of docs/deploy.md."""
    text = Path(ROOT, "docs", "deploy.md").read_text(encoding="utf-8")
    return re.search(rf"^## {title}$.*?^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE).group(1)


@pytest.mark.parametrize("title", EXAMPLES.values())
def test_examples_are_short(title):
    assert 10 < example(title).count("\n") <= 40


@pytest.mark.long
@pytest.mark.parametrize("count", [0, 2])
def test_examples_find_the_same(count, tmp_path):
    picture = cv2.resize(landscape(64), (200, 120))
    cv2.imwrite(str(tmp_path / "picture.jpg"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    found = []
    for ending, title in EXAMPLES.items():
        folder = tmp_path / ending
        folder.mkdir()
        shutil.copy(tmp_path / "picture.jpg", folder)
        model, facts = small_model()
        export_model(model, {**facts, "min_score": 0.8}, str(folder / f"ssd.{ending}"), batch_size=count, raw=False)
        done = subprocess.run([sys.executable, "-c", example(title)], cwd=folder, env=environment(),
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "Removing initializer" not in done.stderr, done.stderr
        found.append([line.split() for line in done.stdout.splitlines()])
    assert len(found[0]) > 5 and [row[0] for row in found[0]] == [row[0] for row in found[1]]
    for one, other in zip(*found):
        assert [float(value) for value in one[1:]] == pytest.approx([float(value) for value in other[1:]], abs=0.11)
