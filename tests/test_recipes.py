"""Every recipe of config/: it resolves, its header says what it is, its learning rates are those computed by hand."""
import glob
import os
import sys

import numpy as np
import pytest
from conftest import ROOT
from easydict import EasyDict
from mindspore import nn

from src.config import read_options
from src.data.policies import build_policy
from src.errors import EnvironmentFault, OptionError
from src.models.ssd import BUILDERS
from src.training.build import OVERFIT, build_loss, build_rates, build_training_model, choose_overfit
from src.training.checks import check_epochs, check_options, check_weights, scaling_hint, start_hint

STEPS = 100  # an epoch in these tests
# {recipe: {step: learning rate}}; the first step, the end of the warm-up, both sides of each milestone. The step after
# the last one of the run has None
RATES = {
    # cosine: half the height half way, at step 200 + (total - 200) / 2
    "ssd_resnet50_fpn_config_gpu.yaml": {0: 0.01333, 100: 0.031665, 200: 0.05, 3100: 0.025, 6000: None},
    "ssd_mobilenet_v1_fpn_config_gpu.yaml": {0: 0.01333, 100: 0.031665, 200: 0.05, 3100: 0.025, 6000: None},
    # half way is step 1000 + (5400 - 1000) / 2
    "ssd_mobilenet_v2_fpnlite_coco.yaml": {0: 0.026666, 500: 0.053333, 1000: 0.08, 3200: 0.04, 5400: None},
    # 14 epochs of STEPS end in the warm-up of 2000
    **dict.fromkeys((f"ssd_{body}_fpn_tf{version}_coco.yaml" for body in ("resnet50", "mobilenet_v1")
                     for version in (1, 2)), {0: 0.013333, 1000: 0.0266665, 1400: None}),
    "ssd300_mobilenet_v2_tf2_coco.yaml": {0: 0.013333, 1000: 0.0466665, 2000: 0.08, 11800: 0.04, 21600: None},
    **dict.fromkeys(("ssd300_mobilenet_v1_tf1_voc.yaml", "ssd300_mobilenet_v2_tf1_voc.yaml"),
                    {0: 0.002, 50: 0.011, 100: 0.02, 1050: 0.01, 2000: None}),
    "ssd300_config_gpu.yaml": {0: 0.001, 100: 0.0255, 200: 0.05, 25100: 0.025025, 50000: None},
    "ssd300_mobilenet_v1_zoo_coco.yaml": {0: 0.001, 100: 0.0255, 200: 0.05, 25100: 0.025025, 50000: None},
    "ssd300_mobilenet_v2_voc.yaml": {0: 0.003, 100: 0.0165, 200: 0.03, 3100: 0.015, 6000: None},
    "ssd300_mobilenet_v2_tf_voc.yaml": {0: 0.002, 50: 0.011, 100: 0.02, 1050: 0.01, 2000: None},
    "ssd_mobilenet_v2_fpnlite_finetune.yaml": {0: 0.0003, 25: 0.00165, 50: 0.003, 2025: 0.0015, 4000: None},
    "ssd_mobilenet_v2_fpnlite_facemask.yaml": {0: 0.0003, 25: 0.00165, 50: 0.003, 2025: 0.0015, 4000: None},
    "ssd_mobilenet_v2_fpnlite_bccd.yaml": {0: 0.0003, 25: 0.00165, 50: 0.003, 2025: 0.0015, 4000: None},
    "auto.yaml": {0: 0.0003, 25: 0.00165, 50: 0.003, 3025: 0.0015, 6000: None},
    "demo.yaml": {0: 0.005, 50: 0.0125, 100: 0.02, 300: 0.01, 500: None},
    # NVIDIA: 2.6e-3 * 8 * 32 / 32
    "ssd300_resnet50_coco.yaml": {0: 0, 150: 0.0104, 299: 0.0208 * 299 / 300, 300: 0.0208, 4299: 0.0208,
                                  4300: 0.00208, 5399: 0.00208, 5400: 0.000208, 6499: 0.000208, 6500: None},
    "ssd300_resnet50_uvipen_coco.yaml": {0: 0.0026, 4299: 0.0026, 4300: 0.00026, 5399: 0.00026, 5400: 0.000026,
                                         6500: None},
    "ssdlite300_mobilenet_v2_coco.yaml": {0: 0.0026, 4299: 0.0026, 4300: 0.00026, 5399: 0.00026, 5400: 0.000026,
                                          6500: None},
    # MLPerf: 2.5e-3 * 8 * 128 / 32
    "ssd300_resnet34_coco.yaml": {0: 0, 150: 0.04, 300: 0.08, 3999: 0.08, 4000: 0.008, 4999: 0.008, 5000: 0.0008,
                                  7000: None},
    # Paddle: the factors are of the first rate
    "ssd300_mobilenet_v1_voc.yaml": {0: 0.001, 3999: 0.001, 4000: 0.0005, 5999: 0.0005, 6000: 0.0005, 7999: 0.0005,
                                     8000: 0.0004, 9999: 0.0004, 10000: 0.0001, 12000: None},
    "ssd300_vgg16_coco.yaml": {0: 0.000002, 500: 0.001001, 1000: 0.002, 7999: 0.002, 8000: 0.0002, 10999: 0.0002,
                               11000: 0.00002, 12000: None},
    # iterations 80,000 and 100,000 of 517 an epoch are epochs 154.7389 and 193.4236
    "ssd300_vgg16_voc.yaml": {0: 0.001 / 3, 250: 0.002 / 3, 500: 0.001, 15473: 0.001, 15474: 0.0001, 19341: 0.0001,
                              19342: 0.00001, 23200: None},
    "ssd512_vgg16_voc.yaml": {0: 0.001 / 3, 500: 0.001, 11610: 0.001, 11611: 0.0001, 14513: 0.0001, 14514: 0.00001,
                              17400: None},
    "ssd512_vgg16_coco.yaml": {0: 0.001 / 3, 500: 0.001, 7304: 0.001, 7305: 0.0001, 9739: 0.0001, 9740: 0.00001,
                               10600: None},
}
# the iterations at which caffe's and lufficc's schedules change, {recipe: (iterations an epoch, first, second)}
ITERATIONS = {"ssd300_vgg16_voc.yaml": (16551 // 32, 80000, 100000),
              "ssd512_vgg16_voc.yaml": (16551 // 24, 80000, 100000),
              "ssd512_vgg16_coco.yaml": (118287 // 24, 360000, 480000)}
PATHS = {os.path.basename(path): path for path in glob.glob(os.path.join(ROOT, "config", "*.yaml"))
         if os.path.basename(path) != "default.yaml"}


def options_of(recipe):
    return read_options([f"--config_path={PATHS[recipe]}"])


def header(recipe):
    """The comment lines before the first option."""
    with open(PATHS[recipe], encoding="utf-8") as file:
        lines = file.read().splitlines()
    return lines[:next(index for index, line in enumerate(lines) if not line.startswith("#"))], lines


def test_every_recipe_and_every_model_is_here():
    assert set(RATES) == set(PATHS)
    assert {options_of(recipe).model for recipe in RATES} == {*BUILDERS, "auto"}


@pytest.mark.parametrize("recipe", RATES)
def test_recipe_resolves(recipe):
    options = options_of(recipe)
    check_options(options)
    assert build_policy(options.augmentation, 300) and build_loss(options, "softmax", np.ones((1, 4), np.float32))


@pytest.mark.parametrize("recipe, expected", RATES.items())
def test_learning_rates(recipe, expected):
    rates = build_rates(options_of(recipe), STEPS)
    for step, rate in expected.items():
        if rate is None:
            assert len(rates) == step
        else:
            assert rates[step] == pytest.approx(rate, rel=1e-5, abs=1e-9), f"step {step}"
    assert np.isfinite(rates).all() and (rates >= 0).all()


@pytest.mark.parametrize("recipe, iterations", ITERATIONS.items())
def test_schedules_counted_in_iterations(recipe, iterations):
    rates = build_rates(options_of(recipe), iterations[0])
    assert np.flatnonzero(np.diff(rates[1000:])).tolist() == [one - 1001 for one in iterations[1:]]


@pytest.mark.parametrize("recipe", RATES)
def test_header(recipe):
    head, lines = header(recipe)
    assert len(lines) <= 35
    text = "\n".join(head)
    assert "train.py" in text and f"config/{recipe}" in text
    assert "Published:" in text and "Ours:" in text
    assert recipe == "demo.yaml" or "https://arxiv.org/" in text


def test_training_from_scratch_with_weights_meant_for_a_backbone_is_told():
    options = read_options([])
    assert "--weight_init=he" in start_hint(options)
    for typed in ("--weight_init=he", "--pre_trained=x.ckpt", "--resume=True"):
        assert start_hint(read_options([typed])) == ""


def test_the_linear_rule_is_told_for_another_batch():
    options = options_of("ssd_resnet50_fpn_config_gpu.yaml")
    assert scaling_hint(options, 8 * options.batch_size) == ""
    assert "--lr=0.00625" in scaling_hint(options, options.batch_size)
    assert "this run has 6" in scaling_hint(options, 6)  # cut to the images there are
    typed = read_options([f"--config_path={PATHS['ssd_resnet50_fpn_config_gpu.yaml']}", "--lr=0.1"])
    assert scaling_hint(typed, 6) == ""


@pytest.mark.parametrize("recipe", [recipe for recipe in PATHS if recipe != "demo.yaml"])
def test_each_recipe_says_the_batch_its_rate_is_for(recipe):
    options = options_of(recipe)
    processes = options.lr_batch / options.batch_size
    assert processes in (1, 2, 8)


def test_the_self_test_leaves_what_was_typed():
    arguments = [f"--config_path={PATHS['ssd300_resnet50_coco.yaml']}", "--overfit=4", "--lr=0.1"]
    before = read_options(arguments)
    options = choose_overfit(before)
    assert before == read_options(arguments), "options are not changed in place"
    assert options.lr == 0.1 and options.batch_size == 4 and options.weight_init == "he" and options.run_eval
    assert options.lr_schedule == OVERFIT["lr_schedule"]
    options = choose_overfit(read_options([*arguments, "--pre_trained=x.pth"]))
    assert options.weight_init == "published"


@pytest.mark.parametrize("recipe", ["ssd300_vgg16_coco.yaml", "ssd300_mobilenet_v2_tf_voc.yaml"])
def test_the_self_test_from_scratch_freezes_nothing(recipe):
    arguments = [f"--config_path={PATHS[recipe]}", "--overfit=8"]
    before = read_options(arguments)
    options = choose_overfit(EasyDict({**before, "batch_norm": "frozen_backbone"}))  # as a recipe may say
    assert (options.freeze_layer, options.filter_weight, options.batch_norm) == ("", False, "own")
    check_weights(options)
    options = choose_overfit(read_options([*arguments, "--pre_trained=x.pth"]))
    assert options.freeze_layer.startswith("backbone")
    typed = choose_overfit(read_options([*arguments, "--freeze_layer=backbone", "--batch_norm=sync"]))
    assert typed.freeze_layer == "backbone" and typed.batch_norm == "sync"


@pytest.mark.parametrize("recipe", PATHS)
def test_the_self_test_is_the_same_for_every_recipe(recipe):
    """Its rate fits its own optimiser alone, and an average would lag behind the weights."""
    options = choose_overfit(read_options([f"--config_path={PATHS[recipe]}", "--overfit=8", "--ema_decay=0"]))
    assert {name: options[name] for name in OVERFIT} == OVERFIT
    assert options.batch_size <= 8
    assert options.norm_momentum == 0.5 ** (options.batch_size / 8), "running statistics are half an epoch old"


@pytest.mark.parametrize("given, momentum", [(0.0, 0.97), (0.9, 0.9)])
def test_norm_momentum_replaces_that_of_every_norm(given, momentum):
    options = read_options(["--model=ssd300_mobilenet_v2", "--image_size=64", "--width=0.25",
                            f"--norm_momentum={given}"])
    model, _ = build_training_model(options, ["a"], log=None, world=1)
    norms = [cell for _, cell in model.network.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    assert {round(1 - norm.momentum, 6) for norm in norms} == {momentum}  # MindSpore keeps the weight of the new value


@pytest.mark.parametrize("skipped, resume, refused", [(59, False, False), (60, False, True), (60, True, False)])
def test_epochs_must_be_left_behind_those_of_the_checkpoint(skipped, resume, refused):
    options = read_options([f"--pre_trained_epoch_size={skipped}", f"--resume={resume}", "--epoch_size=60"])
    if refused:
        with pytest.raises(OptionError, match="pre_trained_epoch_size=60 leaves none of the 60 epochs"):
            check_epochs(options)
    else:
        check_epochs(options)


@pytest.mark.parametrize("dataset", ["coco", "voc", "other"])
def test_an_engine_that_is_missing_is_told_for_every_data_set(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)  # its import then fails
    options = [f"--dataset={dataset}", "--model=ssd300_mobilenet_v2", "--metric_engine=hotcoco"]
    check_options(read_options([*options, "--run_eval=False"]))
    with pytest.raises(EnvironmentFault, match="use --metric_engine=pycocotools"):
        check_options(read_options([*options, "--run_eval=True"]))
