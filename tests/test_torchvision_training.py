"""bench/torchvision_training.py: its schedule, its data, and a short run where torch and torchvision can be loaded."""
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import coco_tree
from programs import ROOT, environment

from src.data.loader import TrainLoader
from src.files import read_json

PROGRAM = os.path.join(ROOT, "bench", "torchvision_training.py")
BOXES = [(5, [4, 2, 20, 10], 7, {}), (5, [0, 0, 40, 20], 2, {"iscrowd": 1}), (5, [30, 10, 20, 5], 2, {}),
         (5, [1, 1, 0, 3], 2, {})]  # an object, a crowd, one that is clipped, one that is dropped; b.png has none


def python(*words):
    """Runs Python with arguments, torch with one thread: its threads wait for each other long where others compute."""
    return subprocess.run([sys.executable, *map(str, words)], env=environment(OMP_NUM_THREADS="1"),
                          capture_output=True, text=True, timeout=400, check=False)


@pytest.fixture
def bench(in_bench):
    return in_bench("torchvision_training")


@pytest.fixture(scope="module")
def torch_is_there():
    if python("-c", "import torchvision").returncode:
        pytest.skip("needs requirements-torchvision.txt")


def test_warm_up_then_cosine(bench):
    factors = [bench.rate_factor(0, 4, step=step, steps=11) for step in (0, 5, 10)]
    assert factors == pytest.approx([0.001, 0.5005, 1])
    assert bench.rate_factor(0, 4, step=1500, steps=2000) == 1  # at most 1000 steps
    assert bench.rate_factor(0, 4, step=0, steps=1) == 1
    assert [bench.rate_factor(epoch, 4, step=3, steps=11) for epoch in (1, 2, 3)] == pytest.approx(
        [(1 + 0.5 ** 0.5) / 2, 0.5, (1 - 0.5 ** 0.5) / 2])


def test_epochs_that_fit(bench):
    assert bench.epochs_in(100, [30]) == 3
    assert bench.epochs_in(100, [30, 9, 11]) == 10  # the first one is slower
    assert bench.epochs_in(-5, [30]) == 0


def test_detections_become_coco_results(bench):
    truth = {"images": [{"id": "a"}, {"id": "b"}], "categories": [{"id": 7}, {"id": 0}]}
    assert bench.coco_results([[1, 10, 20, 40, 60, 0.5, 2.0]], truth) == [
        {"image_id": "b", "category_id": 0, "bbox": [10, 20, 30, 40], "score": 0.5}]


def test_it_trains_on_the_boxes_of_train_py(tmp_path, call, bench):
    coco_tree(tmp_path, BOXES)
    split = call.coco()
    settings, everything = SimpleNamespace(use_difficult=True), SimpleNamespace(use_difficult=True)
    first, second = bench.training_images(split, settings)
    assert (first["file_name"], first["width"], first["height"]) == ("a.png", 40, 20)
    assert first["boxes"] == [pytest.approx([4, 2, 24, 12]), pytest.approx([30, 10, 40, 15])]
    assert [split.classes[label - 1] for label in first["labels"]] == ["cat", "ant"]
    assert (second["file_name"], second["boxes"], second["labels"]) == ("b.png", [], [])
    for image, row in zip((first, second), rows(split)):
        used = TrainLoader.trainable(everything, row)
        np.testing.assert_allclose(np.reshape(image["boxes"], (-1, 4)) / [40, 20, 40, 20],
                                   row["boxes"].reshape(-1, 4)[used], atol=1e-6)
        assert image["labels"] == row["labels"][used].tolist()


def rows(split):
    from src.data.mindrecord import read_rows
    return read_rows(split.files, np.arange(split.count), ["boxes", "labels", "crowd", "difficult"])


def test_weights_are_asked_for(tmp_path):
    done = python(PROGRAM, f"--output={tmp_path / 'run'}")
    assert done.returncode == 2 and "--init is needed" in done.stderr and not os.path.exists(tmp_path / "run")


def test_a_run_that_did_not_end_is_not_reported(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 10, "loss": 1.0}\n')
    done = python(PROGRAM, f"--output={tmp_path}")
    assert done.returncode == 1 and "did not end" in done.stderr


def test_a_finished_run_beside_one_of_train_py(tmp_path):
    folder = tmp_path / "ours"
    folder.mkdir()
    ours = [{"step": 10, "loss": 1.0, "images_per_second": 8.0}, {"step": 10, "epoch": 1, "AP": 0.5, "AP50": 0.75},
            {"step": 20, "loss": 1.0, "images_per_second": 12.0}, {"step": 20, "epoch": 2, "AP": 0.25, "AP50": 0.5}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ours))
    peer = {"finished": True, "dataset": "coco", "size": 320, "minutes": 40.0, "epoch": 30, "AP": 0.125, "AP50": 0.0,
            "images_per_second": 20.0}
    (tmp_path / "log.jsonl").write_text(json.dumps(peer) + "\n")
    done = python(PROGRAM, f"--output={tmp_path}", f"--ours={folder}", f"--json={tmp_path / 'rows.json'}")
    assert done.returncode == 0, done.stderr
    table = read_json(tmp_path / "rows.json")
    assert [(line["ours"], line["peer"], line["ratio"]) for line in table] == [
        (0.25, 0.125, 2), (0.5, 0, None), (10, 20, 0.5)]
    assert "30 epochs" in done.stdout
    alone = python(PROGRAM, f"--output={tmp_path}")
    assert alone.returncode == 0 and "ours -" in alone.stdout, alone.stderr


def test_a_short_run(place, tmp_path, torch_is_there):
    """Two epochs from drawn weights, of two steps of 8: one of the 24 images has no box, and 7 are left over."""
    folder = tmp_path / "run"
    done = python(PROGRAM, "--init=none", "--dataset=coco", f"--coco_root={place.coco}", "--size=64", "--batch_size=8",
                  "--epochs=2", "--workers=0", f"--output={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    with open(folder / "log.jsonl", encoding="utf-8") as file:
        facts, *_, last = [json.loads(line) for line in file]
    assert facts["images"] == 23 and facts["rate"] == pytest.approx(0.15 * 8 / 192)
    assert last["finished"] and (last["step"], last["epoch"]) == (4, 2) and 0 <= last["AP"] <= 1
    assert set(last["per_class"]) == set(facts["classes"])
    assert {"metrics.json", "detections.json", "predictions.png", "model.pth"} <= set(os.listdir(folder))


MODEL = """
import sys
sys.path[:0] = {paths}
import torch
from torchvision_peer import build_model, loader, Pictures, training_transform
torch.manual_seed(1)
model = build_model(3, size=64)
images = [{{"file_name": "a.png", "height": 20, "width": 40, "boxes": [[4.0, 2.0, 24.0, 12.0]], "labels": [1]}}] * 4
batch, targets = next(iter(loader(Pictures(images, sys.argv[1], training_transform()), 4, workers=0, seed=1)))
optimizer = torch.optim.SGD(model.parameters(), 0.01)
losses = []
for _ in range(8):
    losses.append(sum(model(list(batch), list(targets)).values()))
    optimizer.zero_grad()
    losses[-1].backward()
    optimizer.step()
weights = list(model.parameters())
assert all(weight.grad is not None for weight in weights), "a weight is not trained"
assert all(torch.isfinite(weight).all() for weight in weights)
assert losses[-1] < losses[0], losses
maps = model.backbone(torch.zeros(2, 3, 320, 320))
assert [tuple(x.shape[1:]) for x in maps.values()] == [(576, 20, 20), (1280, 10, 10), (512, 5, 5), (256, 3, 3),
                                                       (256, 2, 2), (128, 1, 1)]
"""


def test_the_model_learns_in_a_few_steps(tmp_path, torch_is_there):
    coco_tree(tmp_path, BOXES)
    code = MODEL.format(paths=[ROOT, os.path.join(ROOT, "bench")])
    done = python("-c", code, tmp_path / "train2017")
    assert done.returncode == 0, done.stderr
