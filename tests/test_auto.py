"""--model=auto: what is compared, what is chosen and why, and the options that go with it."""
import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from programs import run, succeed
from stepping import Log

from src.config import AUTO_PATH, read_options
from src.errors import DataError, OptionError
from src.models.ssd import build_model
from src.training import auto
from src.training.auto import Candidate, Means, ModelChooser, choose, how_filled, line_of, means_of
from src.training.checks import check_options
from src.weights.files import WeightFile

MEANS = Means("CPU", 1, 4e9, 1000.0, 20, 16, True)


def one(share, seconds, *, memory=1e9, filled=False, model="net"):
    return Candidate(model, 300, share, seconds, memory, filled)


# --- the choice: 100 images, 1000 seconds, 20 epochs -> at most half a second an image

def test_the_least_work_among_the_best():
    found = [one(0.90, 0.1), one(0.97, 0.3), one(0.98, 0.2), one(0.99, 0.4), one(1.0, 0.6)]  # the last one is too slow
    chosen, why = choose(found, MEANS, images=100)
    assert chosen == found[2] and "20 epochs" in why and "2% less" in why
    assert choose(found, MEANS._replace(seconds=2000.0), images=100)[0] == found[2]  # .98 is 2 % less than 1
    assert choose(found[:2], MEANS, images=100)[0] == found[1]


def test_memory_and_time_that_do_not_do():
    found = [one(0.9, 0.3, memory=5e9), one(0.8, 0.2, memory=3e9), one(0.7, 0.1, memory=3.5e9)]
    assert choose(found, MEANS, images=100)[0] == found[1]  # the first one needs too much memory
    chosen, why = choose(found, MEANS, images=10**6)
    assert chosen == found[2] and why == "the fastest: none has time for 20 epochs"  # the quickest
    chosen, why = choose(found, MEANS._replace(memory=1e9), images=100)
    assert chosen == found[1] and why.endswith("the least memory: none has enough in 1.0 GB")  # the smallest


def test_weights_that_fill_a_network_are_worth_a_tenth_of_the_boxes():
    found = [one(0.85, 0.2, filled=True), one(0.92, 0.1)]
    chosen, why = choose(found, MEANS, images=100)
    assert chosen == found[0] and "the weights fill it" in why
    assert choose([found[0], one(0.98, 0.1)], MEANS, images=100)[0].share == 0.98
    chosen, why = choose([one(0.98, 0.1), found[0]], MEANS, images=10**6)
    assert chosen == found[0] and why == "the fastest that the weights fill: none has time for 20 epochs"
    with pytest.raises(OptionError, match="none of them fits --image_size and --pre_trained; give --model=NAME"):
        choose([], MEANS, images=100)


def test_a_candidate_in_words():
    line = line_of(one(0.875, 0.25, memory=2.5e9, filled=True), MEANS, 100)
    assert line.split() == "net 300 87.5% 0.250 2.5 GB 40.0 filled by the weights".split()
    assert auto.heading(MEANS).endswith("memory  epochs in --minutes")


def test_without_minutes_it_says_how_long_the_epochs_take():
    """100 images of 0.252 s in 20 epochs are 504 s, and 0.7 of the time is for steps: 720 s."""
    night = MEANS._replace(timed=False)
    assert line_of(one(0.875, 0.252), night, 100).endswith("  0.2 hours") and auto.heading(night).endswith("20 epochs")
    assert "with time for 20 epochs in 8 hours that match" in choose([one(0.9, 0.1), one(0.5, 0.1)], night, images=9)[1]


def test_the_means_of_this_machine():
    half_an_hour = means_of("CPU", 30, epochs=60, batch=8)
    assert half_an_hour.seconds == pytest.approx(30 * 60 * 0.7) and half_an_hour.epochs == 20
    assert half_an_hour.timed and half_an_hour.batch == 8
    assert half_an_hour.cores >= 1 and 1e6 < half_an_hour.memory < 1e13
    night = means_of("GPU", 0, epochs=60, batch=8)
    assert night.seconds == pytest.approx(8 * 3600 * 0.7) and night.epochs == 60 and night.memory == 11e9
    assert not night.timed


# --- what is compared

def split_of(tmp_path, boxes):
    """A Split of one image of 100 x 100 pixels with these boxes x, y, width, height."""
    truth = {"images": [{"id": 1, "width": 100, "height": 100}],
             "annotations": [{"id": number, "image_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
                             for number, box in enumerate(boxes)]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    return SimpleNamespace(ground_truth=str(tmp_path / "truth.json"), name="train", count=1, report="report.json",
                           classes=["a"])


def chooser(log, image_size=0, means=MEANS):
    return ModelChooser(means, image_size=image_size, threshold=0.5, seed=1, log=log, rank=0, world=1)


def test_candidates_of_one_size_and_their_costs(tmp_path):
    """Of 320 pixels; activations of src/models/facts.json at 0.6e9 a second and core."""
    log = Log()
    chosen = chooser(log, 320, MEANS._replace(cores=2))(split_of(tmp_path, [[10, 10, 40, 40]] * 3), None)
    assert chosen == {"model": "ssd300_mobilenet_v2_tf", "image_size": 320}  # both match all, this is less work
    assert [line.split()[0] for line in log.said[1:3]] == list(auto.SMALL)
    assert log.said[2].split()[2:4] == ["100.0%", f"{47289684 / 1.2e9:.3f}"]
    assert f"{4 * (47289684 * 16 + 4 * 2619006) / 1e9:.1f} GB" in log.said[2]
    assert log.said[3].startswith("chosen: ssd300_mobilenet_v2_tf at 320 pixels, the least work")


def test_a_size_that_only_one_can_have_and_a_split_without_boxes(tmp_path):
    log = Log()
    assert chooser(log, 300)(split_of(tmp_path, [[10, 10, 40, 40]]), None)["model"] == "ssd300_mobilenet_v2_tf"
    assert len(log.said) == 3
    with pytest.raises(DataError, match="needs boxes to choose by"):
        chooser(log)(split_of(tmp_path, []), None)


def weights_of(network, kind="torch", keep=lambda name: True):
    arrays = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters() if keep(parameter.name)}
    return WeightFile("weights.bin", kind, arrays, {})


def test_what_a_file_fills():
    model = build_model("ssd_mobilenet_v2_fpnlite", 2, image_size=64)
    other = build_model("ssd_mobilenet_v2_fpnlite", 6, image_size=64).network  # other classes
    assert how_filled(model, None) == "backbone"
    assert how_filled(model, weights_of(other)) == "whole"
    assert how_filled(model, weights_of(other, keep=lambda name: name.startswith("backbone."))) == "backbone"
    assert how_filled(model, weights_of(other, keep=lambda name: name.startswith("neck."))) == "not"


def test_what_the_weights_need(tmp_path):
    network = build_model("ssd_mobilenet_v2_fpnlite", 6, image_size=64).network
    split = split_of(tmp_path, [[10, 10, 40, 40]])
    assert chooser(Log(), 64)(split, weights_of(network, "tfjs")) == {
        "model": "ssd_mobilenet_v2_fpnlite", "image_size": 64, "filter_weight": True, "batch_norm": "frozen"}
    backbone = weights_of(network, "tfjs", lambda name: name.startswith("backbone."))
    assert chooser(Log(), 64)(split, backbone)["batch_norm"] == "frozen_backbone"
    assert "batch_norm" not in chooser(Log(), 64)(split, weights_of(network))
    ours = WeightFile("ours.ckpt", "mindspore", {}, {"model": "ssd300_vgg16", "image_size": 300, "classes": ["a"]})
    assert chooser(Log())(split, ours) == {"model": "ssd300_vgg16", "image_size": 300, "filter_weight": False}
    ours.meta["classes"] = ["b"]
    assert chooser(Log())(split, ours)["filter_weight"]


# --- options

def test_auto_has_a_recipe_unless_another_is_named(tmp_path):
    options = read_options(["--model=auto"])
    assert options.config_path == AUTO_PATH and options.run_eval and options.anchors == "auto"
    assert read_options(["--model=auto", "--lr=1"]).lr == 1
    (tmp_path / "own.yaml").write_text("lr: 0.3\n")
    options = read_options(["--model=auto", f"--config_path={tmp_path}/own.yaml"])
    assert options.lr == 0.3 and not options.run_eval and options.model == "auto"
    assert read_options([]).config_path == "" and read_options(["--model=auto"], "eval.py").config_path == ""
    assert read_options([f"--config_path={AUTO_PATH}"]).model == "auto"


@pytest.mark.parametrize("typed, words", [
    ("--anchors=a.json", "--anchors=a.json with --model=auto"), ("--width=0.5", "width=0.5 with"),
    ("--freeze_layer=backbone", "freeze_layer=backbone with"), ("--resume=True", "what was chosen; leave --model")])
def test_what_fits_one_network_only(typed, words):
    with pytest.raises(OptionError, match=words):
        check_options(read_options(["--model=auto", typed]))
    check_options(read_options(["--model=auto"]))


def test_resuming_where_no_run_is(place):
    """--data alone means --model=auto, but the folder is what is wrong."""
    resumed = run(place, "train.py", f"--data={place.coco}", "--resume=True", f"--output_path={place.folder / 'none'}")
    assert resumed.returncode == 2 and "is --output_path that of the interrupted run?" in resumed.stderr


def test_a_run_of_what_was_chosen(place):
    """The chosen network is in config.yaml and in the checkpoint; the line typed out starts the same training."""
    folder, again = place.folder / "auto", place.folder / "typed_out"
    data = (f"--coco_root={place.coco}", "--max_steps=1", "--batch_size=2", "--image_size=64", "--run_eval=False",
            "--log_interval=1")
    text = succeed(place, "train.py", "--model=auto", *data, f"--output_path={folder}")
    line, = [line for line in text.splitlines() if line.startswith("the same without auto: ")]
    typed = line.removeprefix("the same without auto: ").split()
    chosen = yaml.safe_load((folder / "config.yaml").read_text())
    assert f"--model={chosen['model']}" in typed and chosen["model"] in auto.SMALL and chosen["image_size"] == 64
    losses = [[row for row in output.splitlines() if row.startswith("step 1/1")][0].split("  grad")[0]
              for output in (text, succeed(place, "train.py", *typed, *data, f"--output_path={again}"))]
    assert losses[0] == losses[1]
    resumed = run(place, "train.py", "--model=auto", "--resume=True", f"--output_path={folder}")
    assert resumed.returncode == 2 and "leave --model and --config_path out" in resumed.stderr
    assert "all steps of this run are done" in succeed(place, "train.py", "--resume=True", f"--output_path={folder}")


def test_the_boxes_are_fractions_of_what_is_read(tmp_path):
    """A box below any anchor of the smallest network is matched by none of it."""
    log = Log()
    chooser(log, 256)(split_of(tmp_path, [[50, 50, 0.2, 0.2]]), None)
    share, seconds = log.said[1].split()[2:4]
    assert share == "0.0%" and np.isfinite(float(seconds))
