"""import_weights.py: other people's files become checkpoints that eval.py, predict.py and train.py take."""
import os

import numpy as np
import pytest
from programs import read_json, run, succeed

BACKBONE, TFJS = "mobilenet_v2-b0353104.pth", "tfjs_ssdlite_mobilenet_v2_coco"


def test_a_file_of_another_model_is_refused_and_nothing_is_written(place, tmp_path):
    np.savez(tmp_path / "a.npz", **{"fc.weight": np.ones(3)})
    done = run(place, "import_weights.py", tmp_path / "a.npz", "--model=ssd300_resnet50", f"--output={tmp_path}/o.ckpt")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "by no known names" in done.stderr
    assert not os.path.exists(tmp_path / "o.ckpt")


def test_a_part_of_a_detector_is_refused(place, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "part.npz", **{"vgg.0.weight": rng.normal(size=(64, 3, 3, 3)), "loc.0.bias": np.ones(16)})
    done = run(place, "import_weights.py", tmp_path / "part.npz", "--model=ssd300_vgg16", f"--output={tmp_path}/o.ckpt")
    assert done.returncode == 2 and "fills only 2 of" in done.stderr and "loaded" in done.stdout
    assert not os.path.exists(tmp_path / "o.ckpt")


def test_a_file_that_wants_to_run_something_is_refused(place, tmp_path):
    with open(tmp_path / "evil.pth", "wb") as file:
        file.write(b"\x80\x02cposix\nsystem\nX\x0b\x00\x00\x00touch owned\x85R.")
    done = run(place, "import_weights.py", tmp_path / "evil.pth", "--model=ssd300_vgg16", f"--output={tmp_path}/o.ckpt")
    assert done.returncode == 3 and "system" in done.stderr and done.stderr.count("\n") == 1
    assert not os.path.exists(place.folder / "owned")


def test_an_imagenet_backbone_alone_is_for_training(place, tmp_path, shared):
    text = succeed(place, "import_weights.py", shared("weights", BACKBONE), "--model=ssdlite300_mobilenet_v2",
                   f"--output={tmp_path}/b.ckpt")
    assert "(torchvision)" in text and "backbone alone, for train.py --pre_trained" in text
    done = run(place, "eval.py", *place.data, f"--checkpoint_file_path={tmp_path}/b.ckpt", "--classes=coco",
               "--model=ssdlite300_mobilenet_v2", "--width=1.0", "--image_size=0")
    assert done.returncode == 2 and "are missing" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("name", ["ssdlite300_mobilenet_v2", "ssd300_mobilenet_v2"])
def test_training_starts_from_a_pytorch_file(place, tmp_path, shared, name):
    text = succeed(place, "train.py", *place.data, f"--model={name}", "--image_size=0", "--width=1.0", "--max_steps=1",
                   "--batch_size=2", "--run_eval=False", f"--pre_trained={shared('weights', BACKBONE)}",
                   f"--output_path={tmp_path}/run", "--weight_init=published")
    assert "(torchvision)" in text and "classifier.1.weight" in text and "done:" in text


@pytest.mark.long
def test_the_tensorflow_detector_has_its_published_ap(place, tmp_path, shared):
    """AP 0.2939, AP50 0.4584, AP75 0.3091 by the reference pipeline on 206 images of val2017."""
    path = tmp_path / "tf.ckpt"
    text = succeed(place, "import_weights.py", "--from=tfjs", shared("weights", TFJS), "--model=ssd300_mobilenet_v2_tf",
                   f"--output={path}")
    assert "whole detector, 80 classes" in text
    succeed(place, "eval.py", "--dataset=coco", f"--coco_root={shared('coco')}", "--val_data_type=val2017",
            f"--checkpoint_file_path={path}", f"--mindrecord_dir={tmp_path}/mindrecord", f"--output_path={tmp_path}")
    metrics = read_json(tmp_path, "eval", "metrics.json")
    assert [metrics[name] for name in ("AP", "AP50", "AP75")] == pytest.approx([0.2939, 0.4584, 0.3091], abs=0.003)
    succeed(place, "predict.py", f"--checkpoint_file_path={path}", f"--source={shared('video', 'bikes.mp4')}",
            f"--output_path={tmp_path}/found")
    found = [one["class"] for row in read_json(tmp_path, "found", "predictions.json") for one in row["objects"]]
    assert all(found.count(name) > 20 for name in ("person", "bicycle", "car"))
