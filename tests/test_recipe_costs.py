"""scripts/recipe_costs.py and scripts/model_facts.py: the page is up to date, and its numbers are those by hand."""
import os
import sys

import mindspore as ms
import pytest
from conftest import ROOT
from mindspore import nn

sys.path.insert(0, os.path.join(ROOT, "scripts"))
import model_facts
import recipe_costs

from src.errors import DataError
from src.models.facts import read_facts
from src.models.ssd import BUILDERS


@pytest.fixture(scope="module")
def recipes():
    return {recipe.name: recipe for recipe in recipe_costs.read_recipes()[0]}


@pytest.fixture(autouse=True)
def graph_mode():
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


def page():
    with open(recipe_costs.PAGE, encoding="utf-8") as file:
        return file.read()


def test_the_page_is_up_to_date():
    assert recipe_costs.fill_tables(page()) == page(), "run python scripts/recipe_costs.py"
    assert "As published; not yet run by us" in page()


def test_a_page_without_a_table_is_refused():
    with pytest.raises(DataError, match="has 0 tables '<!-- work -->'"):
        recipe_costs.fill_tables(page().replace("<!-- work -->", ""))


def test_every_network_is_counted():
    facts = read_facts()
    assert list(facts) == list(BUILDERS), "run python scripts/model_facts.py"
    for name, values in facts.items():
        assert sum(side * side * shapes for side, shapes in values["levels"]) == values["anchors"], name


def test_counts_of_a_small_network():
    assert model_facts.count("ssd300_mobilenet_v2") == read_facts()["ssd300_mobilenet_v2"]


@pytest.mark.long
@pytest.mark.parametrize("name", BUILDERS)
def test_counts_of_every_network(name):
    assert model_facts.count(name) == read_facts()[name]


def test_activations_by_hand():
    class Small(nn.Cell):
        """8 x 8 pixels -> 4 x 4; the norm and the activation run twice."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3, 2)
            self.rest = nn.SequentialCell(nn.BatchNorm2d(5), nn.ReLU())

        def construct(self, x):
            return self.rest(self.rest(self.conv(x)))

    assert model_facts.count_activations(Small(), 8) == 5 * 16 + 2 * 2 * 5 * 16


def test_steps_and_work(recipes):
    recipe = recipes["ssd300_resnet50_coco"]
    # 118,287 / 256 = 462.06: 463 steps of 65 epochs
    assert (recipe.steps, recipe.seen, recipe.processes) == (463 * 65, 118_287 * 65, 8)
    assert recipe.gflops == pytest.approx(6 * 20.15, rel=1e-3)
    # 7,688,655 images / 840.35 a second = 9149 s
    assert "840.35 = 9149 s = 2.54 h" in recipe_costs.arithmetic(recipe).replace("\n", " ")
    assert recipes["ssd300_vgg16_voc"].steps == 518 * 232  # 16,551 / 32 = 517.2


@pytest.mark.parametrize("name, one, eight", [
    ("ssd_resnet50_fpn_config_gpu", "--lr=0.00625 --lr_init=0.00166625", ""),           # .05 / 8, .01333 / 8
    ("ssd300_resnet50_coco", "--lr=0.0026", ""),                                        # NVIDIA's on one card
    ("ssd300_resnet34_coco", "--batch_size=32 --lr=0.0025 --warmup_steps=9600", ""),    # as the recipe says
    ("ssd300_resnet50_uvipen_coco", "", "--lr=0.0208 --warmup_steps=300 --lr_init=0"),  # .0026 * 8
    ("ssd300_vgg16_coco", "--batch_size=32", ""),                                       # no BatchNorm: the rate stays
    ("ssd300_vgg16_voc", "", "--batch_size=4"),
    ("ssd300_mobilenet_v1_voc", "--lr=0.0005", "--lr=0.004 --warmup_steps=300 --lr_init=0"),  # published on two cards
])
def test_options_for_other_cards(recipes, name, one, eight):
    assert recipe_costs.changes(recipes[name], 1) == one
    assert recipe_costs.changes(recipes[name], 8) == eight


def test_memory_is_near_what_was_measured(recipes):
    # mmdetection's table of VOC models, 4 images a card: 1.2 and 2.9 GB
    for name, measured in (("ssd300_vgg16_voc", 1.2), ("ssd512_vgg16_voc", 2.9)):
        facts = recipes[name].facts
        assert (3 * 4 * facts["parameters"] + 4 * 4 * facts["activations"]) / 1e9 == pytest.approx(measured, rel=0.05)


def test_no_card_computes_more_than_it_can(recipes):
    assert {speed.recipe for speed in recipe_costs.SPEEDS} <= set(recipes)
    peaks = {"V100": 15.7, "TITAN Xp": 12.1 * 2.25, "A100": 312, "Ascend 910": 256}  # TFLOPs/s; 2.25: Winograd's 3x3
    for speed in recipe_costs.SPEEDS:
        peak = 125 if "V100" in speed.kind and "float32" not in speed.kind else next(
            (peaks[card] for card in peaks if speed.kind.startswith(card)), 125)
        assert speed.rate * recipes[speed.recipe].gflops / 1e3 / speed.cards < peak, speed
