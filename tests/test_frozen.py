"""What stays as it is must come from somewhere: frozen layers and statistics without weights are refused."""
import pytest
from programs import run

from src.config import read_options
from src.errors import OptionError
from src.models.ssd import build_model
from src.training.checks import check_weights
from src.weights import checkpoint
from src.weights.files import open_weights
from src.weights.load import load_pretrained

MODEL = "ssd300_mobilenet_v2"
TYPED = (f"--model={MODEL}", "--image_size=96", "--width=0.35", "--metric_engine=pycocotools")
# option, what the message says to type for a training from scratch
KEPT = [("--freeze_layer=backbone,neck", "--freeze_layer= to train"),
        ("--freeze_layer= backbone.features.0", "--pre_trained=FILE"),
        ("--filter_weight=True", "--filter_weight=False to"), ("--batch_norm=frozen", "--batch_norm=own to train"),
        ("--batch_norm=frozen_backbone", "--batch_norm=own to train")]


@pytest.mark.parametrize("option, words", KEPT)
def test_without_weights_it_is_refused(option, words):
    with pytest.raises(OptionError) as caught:
        check_weights(read_options([*TYPED, option]))
    assert words in str(caught.value) and "without --pre_trained" in str(caught.value)


@pytest.mark.parametrize("option, words", KEPT)
def test_with_weights_or_a_run_to_go_on_with_it_passes(option, words, tmp_path):
    (tmp_path / "a.ckpt").touch()
    check_weights(read_options([*TYPED, option, f"--pre_trained={tmp_path / 'a.ckpt'}"]))
    check_weights(read_options([*TYPED, option, "--resume=True", "--config_path="]))


@pytest.mark.parametrize("option", ["--lr=1", "--freeze_layer=", "--freeze_layer=,", "--body_lr=0.1"])
def test_nothing_that_stays_needs_no_weights(option):
    check_weights(read_options([*TYPED, option]))


def test_a_misspelt_layer_is_told_first():
    with pytest.raises(OptionError, match="freeze_layer=bakbone: no parameter starts so; known are backbone"):
        check_weights(read_options([*TYPED, "--freeze_layer=bakbone"]))


@pytest.fixture
def network():
    return build_model(MODEL, 4, image_size=96, width=0.35).network


@pytest.fixture
def body(network, tmp_path):
    """A file with all of the backbone and nothing else."""
    path = str(tmp_path / "body.ckpt")
    checkpoint.save(path, [one for one in network.get_parameters() if one.name.startswith("backbone.")], {})
    return path


def test_frozen_weights_that_the_file_lacks_are_refused(network, body):
    assert load_pretrained(network, open_weights(body), MODEL, frozen=["backbone"]).loaded
    with pytest.raises(OptionError, match=r"freeze_layer=backbone,neck: \d+ of these weights .*\(first: neck\."):
        load_pretrained(network, open_weights(body), MODEL, frozen=["backbone", "neck"])


def test_frozen_class_layers_that_are_filtered_out_are_refused(network, tmp_path):
    path = str(tmp_path / "whole.ckpt")
    checkpoint.save(path, network.get_parameters(), {})
    load_pretrained(network, open_weights(path), MODEL, by_class=True, frozen=["backbone"])
    with pytest.raises(OptionError, match=r"freeze_layer=head: 6 of these weights .*first: head\.cls"):
        load_pretrained(network, open_weights(path), MODEL, by_class=True, frozen=["head"])


def test_norms_that_the_file_lacks_do_not_start_at_random(network, tmp_path):
    path = str(tmp_path / "folded.ckpt")
    checkpoint.save(path, [one for one in network.get_parameters() if one.name.endswith((".weight", ".bias"))], {})
    load_pretrained(network, open_weights(path), MODEL, frozen=["backbone", "neck"])


def test_the_program_refuses_before_it_converts(place):
    done = run(place, "train.py", *place.data, "--freeze_layer=backbone", "--output_path=frozen",
               "--mindrecord_dir=not_made")
    assert done.returncode == 2 and done.stderr.startswith("error: --freeze_layer=backbone without --pre_trained keeps")
    assert done.stderr.count("\n") == 1 and not (place.folder / "not_made").exists()
    assert not (place.folder / "frozen").exists()
