"""What --resume takes over from the options, what it refuses, and that it does so before any data is converted."""
import json
import os

import mindspore as ms
import numpy as np
import pytest
from easydict import EasyDict
from programs import read_rows, read_weights, run, succeed
from stepping import build
from stepping import run as run_step

from src.config import read_options
from src.errors import OptionError
from src.training import resume
from src.training.build import build_rates, build_state
from src.training.checks import check_options
from src.training.log import RunLog
from src.training.state import RunState
from src.weights import checkpoint

META = {"model": "ssd300_mobilenet_v2", "classes": ["a", "b"], "image_size": 300, "width": 1.0, "best": 0.5,
        "steps_done": 12, "steps_per_epoch": 6, "settled": True}


def options_of(folder, *typed):
    return read_options(["--resume=True", f"--output_path={folder}", *typed])


@pytest.fixture
def kept(tmp_path):
    """Function: writes a run of options into a folder, its last.ckpt with or without them, and returns the folder."""
    def keep(*typed, within=True, **meta):
        (tmp_path / "ckpt").mkdir(exist_ok=True)
        options = read_options(["--model=ssd300_mobilenet_v2", "--epoch_size=2", *typed])
        options = {key: value for key, value in options.items() if key != "typed"}
        (tmp_path / "config.yaml").write_text(json.dumps(options))
        checkpoint.save(str(tmp_path / "ckpt" / "last.ckpt"), [ms.Parameter(np.ones(2, np.float32), name="w")],
                        {**META, **({"options": options} if within else {}), **meta})
        return tmp_path
    return keep


# --- refused before data is converted

@pytest.mark.parametrize("typed, words", [
    ("--image_size=320", "holds image_size 300, the options give 320"),
    ("--width=0.5", "holds width 1.0, the options give 0.5"),
    ("--model=ssd300_vgg16", "holds model ssd300_mobilenet_v2, the options give ssd300_vgg16"),
    ("--classes=[b,a]", r"holds classes \['a', 'b'\], the options give \['b', 'a'\]"),
    ("--optimizer=rmsprop", "optimizer momentum -> rmsprop: .* does not hold the optimiser's state")])
@pytest.mark.parametrize("within", [True, False])
def test_what_cannot_change(kept, typed, words, within):
    folder = kept(within=within, steps_done=3)
    with pytest.raises(OptionError, match=words) as caught:
        resume.find_saved(options_of(folder, typed), print)
    assert "another --output_path" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("before, now, refused", [
    ("--batch_norm=frozen", "--batch_norm=own", True), ("--batch_norm=own", "--batch_norm=frozen", False),
    ("--batch_norm=frozen_backbone", "--batch_norm=own", True),
    ("--freeze_layer=backbone", "--freeze_layer=backbone.layer1", True),
    ("--freeze_layer=backbone,neck", "--freeze_layer=neck", True),
    ("--freeze_layer=backbone", "--freeze_layer=", True),
    ("--freeze_layer=backbone.layer1", "--freeze_layer=backbone", False),
    ("--freeze_layer=", "--freeze_layer=neck", False), ("--optimizer=momentum", "--optimizer=nesterov", False),
    ("--optimizer=rmsprop", "--optimizer=momentum", True)])
def test_parameters_without_a_moment_are_not_thawed(kept, before, now, refused):
    folder = kept(before, steps_done=3)
    if refused:
        with pytest.raises(OptionError, match="does not hold the optimiser's state"):
            resume.find_saved(options_of(folder, now), print)
    else:
        assert resume.find_saved(options_of(folder, now), print).meta["steps_done"] == 3


@pytest.mark.parametrize("before, now, words", [
    ("", "auto", r"anchors \(published\) -> auto"), ("auto", "", r"anchors auto -> \(published\)"),
    ("a.json", "b.json", "anchors a.json -> b.json"), ("a.json", "a.json", ""), ("auto", "auto", "")])
def test_other_anchors_are_refused_and_their_file_is_not_read_again(kept, before, now, words):
    folder = kept(f"--anchors={before}", steps_done=3)
    if words:
        with pytest.raises(OptionError, match=f"{words}: .* another --output_path"):
            resume.find_saved(options_of(folder, f"--anchors={now}"), print)
    else:
        assert resume.find_saved(options_of(folder, f"--anchors={now}"), print).meta["steps_done"] == 3


def test_a_run_from_before_anchors_was_an_option_goes_on(kept):
    folder = kept(within=False, steps_done=3)
    options = json.loads((folder / "config.yaml").read_text())
    del options["anchors"]
    (folder / "config.yaml").write_text(json.dumps(options))
    assert resume.find_saved(options_of(folder), print)
    with pytest.raises(OptionError, match="-> auto"):
        resume.find_saved(options_of(folder, "--anchors=auto"), print)


@pytest.mark.parametrize("typed, words", [
    ("--lr=0.01", r"--lr 0.05 -> 0.01 would change nothing; a larger --epoch_size goes on"),
    ("--batch_size=8", r"--batch_size 16 -> 8 would change nothing"), ("--loss_scale=2", "--loss_scale 1.0 -> 2.0")])
def test_a_finished_run_that_shall_change_is_told_to_be_finished(kept, typed, words):
    with pytest.raises(OptionError, match=f"this run is finished, all its steps are done, so that {words}"):
        resume.find_saved(options_of(kept(), typed), print)


@pytest.mark.parametrize("more, meta", [(("--epoch_size=3",), {}), ((), {"steps_done": 11}),
                                        ((), {"settled": False})])
def test_a_run_with_something_left_to_do_may_change(kept, more, meta):
    assert resume.find_saved(options_of(kept(**meta), "--lr=0.01", *more), print)


def test_a_finished_run_may_be_resumed_as_it_was_elsewhere(kept):
    folder = kept("--lr=0.02")
    assert resume.find_saved(options_of(folder, "--lr=0.02", "--coco_root=moved", "--num_workers=3"), print)


@pytest.mark.parametrize("before, meta, words", [
    ("--max_steps=4", {"steps_done": 4}, "all its steps are done, so that --lr .* a larger --max_steps"),
    ("--early_stop=2", {"steps_done": 6, "since_best": 2}, "--early_stop has ended it, .* a larger --early_stop")])
def test_other_ends_are_named(kept, before, meta, words):
    with pytest.raises(OptionError, match=words):
        resume.find_saved(options_of(kept(before, **meta), "--lr=0.01"), print)


def test_a_resumed_run_does_not_ask_for_the_weights_it_began_with(kept):
    options = options_of(kept("--pre_trained=gone.ckpt"))
    assert options.pre_trained == "gone.ckpt"
    check_options(options)
    with pytest.raises(OptionError, match="gone.ckpt' is not a file"):
        check_options(EasyDict({**options, "resume": False}))


def test_changes_are_told_with_what_they_do(kept):
    folder = kept("--lr=0.02", steps_done=3)
    options = options_of(folder, "--lr=0.03", "--pre_trained=other.ckpt", "--log_interval=7")
    saved = resume.find_saved(options, print)
    assert list(resume.changes(saved, options, {"steps_per_epoch": 3})) == [
        "steps_per_epoch 6 -> 3", "--lr 0.02 -> 0.03",
        "--pre_trained  -> other.ckpt, which counts at the start of a run only and is not used"]


# --- taken over

def scaled(scale, before, now, typed=(), dynamic=True):
    """The loss scale after restoring a step at `scale` of a run that began with `before` into one of `now`."""
    old, _ = build([0.1] * 4, scale, dynamic=True)
    old.good_steps.set_data(ms.Tensor(7, ms.int32))
    step, _ = build([0.1] * 4, now, dynamic=dynamic)
    values = {one.name: one.asnumpy() for one in old.get_parameters()}
    saved = resume.Saved(values, {}, "x.ckpt", {} if before is None else {"loss_scale": before})
    resume.restore(step, saved, EasyDict(loss_scale=now, dynamic_loss_scale=dynamic, typed=list(typed)))
    return float(step.loss_scale.asnumpy()), int(step.good_steps.asnumpy())


@pytest.mark.parametrize("scale, before, now, typed, dynamic, expected", [
    (64.0, 1024.0, 1024.0, (), True, (64, 7)), (64.0, 1024.0, 1024.0, ("loss_scale",), True, (64, 7)),
    (64.0, 1024.0, 8.0, ("loss_scale",), True, (8, 0)), (64.0, 1024.0, 8.0, (), True, (8, 0)),
    (1024.0, 1024.0, 8.0, ("loss_scale",), False, (8, 0)), (64.0, 1024.0, 1024.0, (), False, (1024, 0)),
    (64.0, None, 8.0, ("loss_scale",), True, (8, 0)), (64.0, None, 8.0, (), True, (64, 7))])
def test_a_changed_loss_scale_is_taken_over(scale, before, now, typed, dynamic, expected):
    assert scaled(scale, before, now, typed, dynamic) == expected


def state_of(**more):
    step, _ = build([0.1] * 4, **more)
    run_step(step)
    return {one.name: one.asnumpy().copy() for one in step.get_parameters()}


OPTIONS = EasyDict(loss_scale=1.0, dynamic_loss_scale=False, typed=[])


@pytest.mark.parametrize("before", ["momentum", "nesterov"])
@pytest.mark.parametrize("now", ["momentum", "nesterov"])
def test_the_momentum_is_that_of_the_options(before, now):
    """MindSpore's own Momentum keeps it in a parameter, which the checkpoint holds."""
    values = state_of(kind=before)
    step, weight = build([0.1] * 4, kind=now, momentum=0.5)
    resume.restore(step, resume.Saved(values, {}, "x.ckpt", {}), OPTIONS)
    start = weight.asnumpy().copy()
    step.start_at(1)
    run_step(step)  # moment .5 * 1 + 1; nesterov looks .5 * that ahead
    assert np.allclose(weight.asnumpy(), start - 0.1 * (1.5 if now == "momentum" else 1.75))


def test_an_average_that_begins_with_the_resumed_run_begins_at_its_weights():
    values = state_of()
    step, weight = build([0.1] * 4, average=True)
    resume.restore(step, resume.Saved(values, {}, "x.ckpt", {}), OPTIONS)
    assert np.allclose(step.average.averages[0].asnumpy(), [2.9, 3.9]) and step.average.updates.asnumpy() == 0
    follow = state_of(average=True)
    resume.restore(step, resume.Saved(follow, {}, "x.ckpt", {}), OPTIONS)
    assert np.allclose(step.average.averages[0].asnumpy(), follow["ema.weight"]) and step.average.updates.asnumpy() == 1
    assert not np.allclose(follow["ema.weight"], follow["weight"])


def test_a_state_that_does_not_fit_names_what_has_changed():
    values = {name: value for name, value in state_of().items() if not name.startswith("moments")}
    step, _ = build([0.1] * 4)
    options = EasyDict(OPTIONS, freeze_layer="")
    with pytest.raises(OptionError, match="does not fit this run: moments.weight; changed since: --freeze_layer w ->"):
        resume.restore(step, resume.Saved(values, {}, "x.ckpt", {"freeze_layer": "w"}), options)


# --- where a run begins

def started(steps_done=None, skipped_epochs=0, **meta):
    """A run of six steps an epoch that took a step -> its TrainStep, its state."""
    options = EasyDict(OPTIONS, resume=steps_done is not None, pre_trained_epoch_size=skipped_epochs, early_stop=0,
                       epoch_size=4, max_steps=0, minutes=0, output_path="x", pre_trained="")
    facts = {"model": "line", "classes": ["a"], "image_size": 2, "width": 1.0, "processes": 1, "train_images": 6,
             "annotations": "f", "mindspore": ms.__version__}
    saved = None
    if steps_done:
        meta = {**facts, "best": 0.5, "steps_done": steps_done, "steps_per_epoch": 6, **meta}
        saved = resume.Saved(state_of(), meta, "x.ckpt", {})
    step, _ = build([0.1] * 24)
    state = build_state(options, 6, saved)
    resume.begin_run(step, state, saved, now=options, facts=facts, log=RunLog(first=False), rank=0, world=1)
    return step, state


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_epochs_that_the_checkpoint_saw_count_for_the_schedule(epochs):
    step, state = started(skipped_epochs=epochs)
    assert state.steps_done == 6 * epochs == int(step.optimizer.global_step.asnumpy()[0])


@pytest.mark.parametrize("meta, expected", [({}, 9), ({"steps_per_epoch": 12}, 4), ({"steps_per_epoch": 3}, 18)])
def test_a_resumed_run_goes_on_in_the_schedule_where_it_is_in_its_epochs(meta, expected):
    """Whatever count of the optimiser the checkpoint has: older ones left out the steps that were skipped."""
    step, state = started(9, **meta)
    assert state.steps_done == expected == int(step.optimizer.global_step.asnumpy()[0])


@pytest.mark.parametrize("meta, due, unlogged", [
    ({}, False, []), ({"settled": True}, False, []),
    ({"settled": False, "unlogged": [{"loss": 1}]}, True, [{"loss": 1}]),
    ({"settled": False, "steps_done": 9}, False, []), ({"unlogged": [{"loss": 1}], "steps_per_epoch": 3}, False, [])])
def test_what_a_checkpoint_leaves_to_do(meta, due, unlogged):
    """Of older ones some keys are absent: nothing is left to do then."""
    meta = {"best": 0.5, "steps_done": 12, "steps_per_epoch": 6, **meta}
    state = RunState.from_meta(meta, steps_per_epoch=6, total_steps=24)
    assert state.epoch_end_due == due and state.unlogged == unlogged and state.since_best == 0
    assert RunState.from_meta(state.to_meta(), steps_per_epoch=6, total_steps=24) == state


# --- train.py

@pytest.mark.long
def test_skipped_epochs_through_the_program(place, trained, tmp_path):
    folder = tmp_path / "run"
    options = ("--epoch_size=3", "--pre_trained_epoch_size=1", "--run_eval=False", "--log_interval=1")
    succeed(place, "train.py", *place.data, f"--output_path={folder}", f"--pre_trained={trained.last}", *options)
    rates = build_rates(read_options([*place.data, *options]), 6)
    rows = [row for row in read_rows(folder) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(7, 19))
    assert [row["lr"] for row in rows] == pytest.approx(rates[6:].tolist(), abs=1e-6)
    assert read_weights(folder / "ckpt" / "last.ckpt")["global_step"].tolist() == [18]


@pytest.mark.long
def test_resume_refuses_before_it_converts_and_leaves_a_finished_run_alone(place, trained, tmp_path):
    config = (trained.folder / "config.yaml").read_bytes()
    for typed, words in (("--width=0.5", "holds width 0.25"), ("--classes=[x]", "the options give ['x']"),
                         ("--lr=0.01", "this run is finished")):
        done = run(place, "train.py", *place.data, f"--output_path={trained.folder}", "--resume=True", typed,
                   f"--mindrecord_dir={tmp_path / 'data'}")
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
        assert "converting" not in done.stdout and not os.path.exists(tmp_path / "data")
    assert (trained.folder / "config.yaml").read_bytes() == config


@pytest.mark.long
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_lower_loss_scale_ends_an_overflow(place, tmp_path, dynamic):
    folder = tmp_path / "run"
    more = ("--run_eval=False", "--log_interval=1", "--epoch_size=1", "--save_checkpoint_steps=1",
            f"--dynamic_loss_scale={dynamic}", f"--output_path={folder}")
    done = run(place, "train.py", *place.data, "--loss_scale=1e30", *more, "--max_steps=2")
    assert done.returncode == (0 if dynamic else 5), done.stdout + done.stderr  # a static one ends the run
    text = succeed(place, "train.py", *place.data, "--resume=True", "--loss_scale=4", *more)
    assert "changed since: --loss_scale 1e+30 -> 4.0" in text
    resumed = int(text.split("resumed after step ")[1].split(",")[0])
    rows = [(row["loss_scale"], row["skipped"]) for row in read_rows(folder) if "loss" in row]
    assert len(rows) == 6 and rows[resumed:] == [(4, 0)] * (6 - resumed) and rows[0][1] == 1
