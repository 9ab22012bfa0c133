"""Fills the tables of docs/costs.md: what training with each recipe costs in steps, hours and memory.

    python scripts/recipe_costs.py

Recipes are those of config/ that name a published training split; network sizes come from src/models/facts.json
(scripts/model_facts.py), speeds from the sources listed below. Run it when one of them has changed. The text around the
tables is written by hand; a table stands between `<!-- NAME -->` and `<!-- end -->`.
"""
from __future__ import annotations

import glob
import os
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.arguments import ArgumentParser
from src.config import read_options
from src.errors import DataError, run_main
from src.files import write_atomic
from src.models.facts import read_facts
from src.text import wrap

if TYPE_CHECKING:
    from easydict import EasyDict

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "docs", "costs.md")
IMAGES = {"train2017": ("COCO train2017", 118_287), "trainval": ("VOC 07+12 trainval", 16_551)}
OTHERS = ("Not in these tables, because their images are your own: {}. Steps = images / batch, rounded up, x epochs; "
          "what was run with them: [results.md](results.md).")
WARM_STEPS = 300  # NVIDIA's, for rates that the linear rule raises
BACKBONES = {"ssd_resnet50_fpn_config_gpu": "ckpt/resnet50-11ad3fa6.pth",  # where the recipe's own command has none
             "ssd300_config_gpu": "ckpt/mobilenet_v2-b0353104.pth"}
# the sources of speeds, by their number on the page
ZOO, DEEPSPARK, NVIDIA, MMDETECTION, LUFFICC = range(1, 6)


class Speed(NamedTuple):
    """A published training speed."""
    recipe: str
    cards: int
    kind: str        # of card, and precision
    counted: str     # the images a second as a reader can check them, "" where the source states them
    rate: float      # images a second, all cards together
    total: str       # the source's own time for its own number of epochs, "" for none
    source: int      # its number on the page
    twin: str = ""   # the recipe whose speed this is, where the recipe has none of its own


SPEEDS = (
    Speed("ssd_resnet50_fpn_config_gpu", 8, "V100 PCIe, float32", "128 / 0.877 s", 128 / 0.877, "12 h", ZOO),
    Speed("ssd_resnet50_fpn_config_gpu", 8, "V100S, float32", "128 / 0.797 s", 128 / 0.797, "", DEEPSPARK),
    Speed("ssd_resnet50_fpn_config_gpu", 8, "Ascend 910, float16", "256 / 0.345 s", 256 / 0.345, "4.1 h", ZOO),
    Speed("ssd_mobilenet_v1_fpn_config_gpu", 8, "V100 PCIe, float32", "128 / 0.640 s", 128 / 0.640, "9.7 h", ZOO),
    Speed("ssd_mobilenet_v1_fpn_config_gpu", 8, "Ascend 910, float16", "256 / 0.408 s", 256 / 0.408, "4.5 h", ZOO),
    Speed("ssd300_config_gpu", 8, "V100 PCIe, float16", "256 / 0.121 s", 256 / 0.121, "12.31 h (800 epochs)", ZOO),
    Speed("ssd300_config_gpu", 8, "Ascend 910, float16", "256 / 0.090 s", 256 / 0.090, "4.81 h", ZOO),
    Speed("ssd300_mobilenet_v1_zoo_coco", 8, "V100 PCIe, float16", "256 / 0.108 s", 256 / 0.108, "6.87 h", ZOO),
    Speed("ssd300_mobilenet_v1_voc", 2, "V100 PCIe, float16", "2370 x 2 / 8", 256 / 0.108 * 2 / 8, "", ZOO,
          "ssd300_mobilenet_v1_zoo_coco"),
    Speed("ssdlite300_mobilenet_v2_coco", 1, "V100 PCIe, float16", "2116 / 8", 256 / 0.121 / 8, "", ZOO,
          "ssd300_config_gpu"),
    Speed("ssd300_resnet50_coco", 1, "V100, float32", "", 107.22, "20:04:48 h", NVIDIA),
    Speed("ssd300_resnet50_coco", 8, "V100, float32", "", 840.35, "2:35:00 h", NVIDIA),
    Speed("ssd300_resnet50_coco", 8, "V100, float16, 64 images each", "", 2520.50, "53:52 min", NVIDIA),
    Speed("ssd300_resnet50_coco", 1, "A100, float16, 128 images", "", 724.41, "3:03:50 h", NVIDIA),
    Speed("ssd300_resnet50_coco", 8, "A100, float16, 128 images each", "", 5733.98, "23:46 min", NVIDIA),
    Speed("ssd300_resnet50_uvipen_coco", 1, "V100, float32", "", 107.22, "", NVIDIA, "ssd300_resnet50_coco"),
    Speed("ssd300_resnet34_coco", 8, "BI-V100, 192 images each", "", 2858, "", DEEPSPARK),
    Speed("ssd300_vgg16_coco", 8, "V100, float32, 8 images each", "64 / 0.286 s", 64 / 0.286, "", MMDETECTION),
    Speed("ssd300_vgg16_coco", 2, "unnamed", "400,000 x 32 / 34.24 h", 12.8e6 / 123_252, "34.24 h", LUFFICC),
    Speed("ssd300_vgg16_voc", 1, "TITAN Xp, float32", "32 / 0.4 s", 32 / 0.4, "", LUFFICC),
    Speed("ssd300_vgg16_voc", 8, "V100, float32, 4 images each", "32 / 0.189 s", 32 / 0.189, "", MMDETECTION),
    Speed("ssd512_vgg16_coco", 8, "V100, float32, 8 images each", "64 / 0.458 s", 64 / 0.458, "", MMDETECTION),
    Speed("ssd512_vgg16_coco", 4, "unnamed", "520,000 x 24 / 48.21 h", 12.48e6 / 173_539, "48.21 h", LUFFICC),
    Speed("ssd512_vgg16_voc", 8, "V100, float32, 4 images each", "32 / 0.261 s", 32 / 0.261, "", MMDETECTION),
)


class Recipe(NamedTuple):
    """A recipe for a published data set, and the counts of its network."""
    name: str
    options: EasyDict
    header: str          # its comment lines
    data: str            # name of its training split
    images: int          # in it
    facts: dict          # of src/models/facts.json

    @property
    def processes(self) -> int:
        """For which its batch is published."""
        return self.options.lr_batch // self.options.batch_size

    @property
    def seen(self) -> int:
        """Images of all epochs."""
        return self.images * self.options.epoch_size

    @property
    def steps(self) -> int:
        """Of all epochs; the last batch of an epoch is filled up."""
        return -(-self.images // self.options.lr_batch) * self.options.epoch_size

    @property
    def gflops(self) -> float:
        """Of one training image: forward 2 operations a multiply-accumulate, backward twice the forward pass."""
        return 3 * 2 * self.facts["macs"] / 1e9


def main() -> None:
    """Writes the page."""
    ArgumentParser(__doc__).parse_args()
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    write_atomic(PAGE, fill_tables(text).encode())
    print(f"wrote {os.path.relpath(PAGE)}")


def read_recipes() -> tuple[list[Recipe], list[str]]:
    """The recipes with a published training split, and the names of the others."""
    facts, recipes, others = read_facts(), [], []
    for path in sorted(glob.glob(os.path.join(ROOT, "config", "*.yaml"))):
        name = os.path.basename(path)[:-len(".yaml")]
        options = read_options([f"--config_path={path}"])
        if options.train_data_type in IMAGES and options.model in facts:
            split = IMAGES[options.train_data_type]
            recipes.append(Recipe(name, options, read_header(path), *split, facts[options.model]))
        elif name != "default":
            others.append(f"`{name}`")
    return sorted(recipes, key=lambda recipe: (-recipe.images, recipe.facts["macs"])), others


def read_header(path: str) -> str:
    """The comment lines of a recipe as one."""
    with open(path, encoding="utf-8") as file:
        return "".join(line[1:].strip() + " " for line in file if line.startswith("#"))


def published_in(header: str) -> str:
    """The results that the header of a recipe names, "none .." where there are none."""
    found = re.search(r"Published: (.*?)\.? Ours:", header)
    return found[1] if found else "none"


def fill_tables(text: str) -> str:
    """The page with its tables as they are now."""
    recipes, others = read_recipes()
    example = next(recipe for recipe in recipes if recipe.name == "ssd300_resnet50_coco")
    tables = {"example": [arithmetic(example)], "work": work_table(recipes), "hours": hour_table(recipes),
              "commands": command_table(recipes), "memory": memory_table(recipes),
              "others": [wrap(OTHERS.format(", ".join(others)))]}
    for name, lines in tables.items():
        text = fill(text, name, lines)
    return text


def fill(text: str, name: str, lines: list[str]) -> str:
    """A page with lines between `<!-- name -->` and `<!-- end -->`. Raises DataError where there is no such place."""
    block = "\n".join([f"<!-- {name} -->", *lines, "<!-- end -->"])
    text, count = re.subn(f"<!-- {name} -->.*?<!-- end -->", lambda found: block, text, flags=re.DOTALL)
    if count != 1:
        raise DataError(f"the page has {count} tables '<!-- {name} -->', expected one")
    return text


def arithmetic(recipe: Recipe) -> str:
    """The paragraph that computes one recipe in the open."""
    options, speed = recipe.options, next(row for row in SPEEDS if row.recipe == recipe.name and row.cards == 8)
    seconds, gmacs = recipe.seen / speed.rate, recipe.facts["macs"] / 1e9
    batch, steps = options.lr_batch, recipe.steps // options.epoch_size
    return wrap(
        f"Example, `{recipe.name}` on 8 V100: {recipe.images:,} images x {options.epoch_size} epochs = "
        f"{recipe.seen:,} images. In batches of 8 x {options.batch_size} = {batch} an epoch has {recipe.images:,} / "
        f"{batch} = {steps} steps, all epochs {recipe.steps:,}. NVIDIA's code trained {speed.rate} images/s in "
        f"float32: {recipe.seen:,} / {speed.rate} = {seconds:.0f} s = {seconds / 3600:.2f} h (its own total is "
        f"{speed.total}). The network takes {gmacs:.2f} GMACs an image, so training takes 3 x 2 x {gmacs:.2f} = "
        f"{recipe.gflops:.0f} GFLOPs, and each card did {speed.rate} / 8 x {recipe.gflops:.0f} GFLOPs = "
        f"{speed.rate / 8 * recipe.gflops / 1e3:.1f} TFLOPs a second, of 15.7 at most.")


def work_table(recipes: list[Recipe]) -> list[str]:
    """Work of each recipe, and the speed that finishes it in a day."""
    lines = ["| recipe | data | epochs | batch | steps | GFLOPs an image | EFLOPs in all | images/s for 24 h | "
             "expected, as published |", "|---|---|---|---|---|---|---|---|---|"]
    for recipe in recipes:
        lines.append(f"| `{recipe.name}` | {recipe.data} | {recipe.options.epoch_size} | {recipe.options.lr_batch} | "
                     f"{recipe.steps:,} | {recipe.gflops:.1f} | {recipe.seen * recipe.gflops / 1e9:.2f} | "
                     f"{recipe.seen / 86_400:.0f} | {published_in(recipe.header)} |")
    return lines


def hour_table(recipes: list[Recipe]) -> list[str]:
    """Hours by each published speed."""
    lines = ["| recipe | cards | images/s | hours | TFLOPs/s a card | source's own total | source |",
             "|---|---|---|---|---|---|---|"]
    known = {recipe.name: recipe for recipe in recipes}
    for speed in SPEEDS:
        recipe, rate = known[speed.recipe], f"{speed.rate:.4g}"
        counted = f"{speed.counted} = {rate}" if speed.counted else rate
        hours = recipe.seen / float(rate) / 3600
        source = f"({speed.source})" + (f", speed of `{speed.twin}`" if speed.twin else "")
        lines.append(f"| `{recipe.name}` | {speed.cards} x {speed.kind} | {counted} | {recipe.seen:,} / {rate} / 3600 "
                     f"= {hours:.2f} | {speed.rate * recipe.gflops / 1e3 / speed.cards:.1f} | {speed.total or '-'} | "
                     f"{source} |")
    lines += [f"| `{name}` | - | not published | {recipe.seen:,} images / images/s / 3600 | - | - | - |"
              for name, recipe in known.items() if name not in {speed.recipe for speed in SPEEDS}]
    return lines


def command_table(recipes: list[Recipe]) -> list[str]:
    """What to add for one card and for eight."""
    lines = ["| RECIPE | DATA | WEIGHTS | 1 GPU: add | 8 GPUs: add |", "|---|---|---|---|---|"]
    for recipe in recipes:
        weights = weights_of(recipe.name, recipe.header)
        cells = [f"`{text}`" if text else "nothing" for text in (changes(recipe, 1), changes(recipe, 8))]
        cells = [f"`{recipe.name}`", f"`--{recipe.options.dataset}_root=DATA`", f"`{weights}`", *cells]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def weights_of(name: str, header: str) -> str:
    """The value of --pre_trained in the command of a recipe's header, and --filter_weight where it stands there."""
    found = re.search(r"--pre_trained=(\S+)(.*?--filter_weight=True)?", header)
    if not found:
        return BACKBONES.get(name, "")
    return found[1] + (" --filter_weight=True" if found[2] else "")


def changes(recipe: Recipe, cards: int) -> str:
    """The options that differ from the recipe on so many cards, "" for none."""
    options = recipe.options
    if cards == recipe.processes:
        return ""
    if not recipe.facts["batch_norm"]:  # the batch of all stays, so does the rate
        return f"--batch_size={options.lr_batch // cards}"
    words, batch = [], options.batch_size
    if batch > 64 and cards == 1:  # MLPerf's batch for one card
        batch = 32
        words.append(f"--batch_size={batch}")
    factor = cards * batch / options.lr_batch
    words.append(f"--lr={options.lr * factor:g}")
    if options.lr_init and (options.warmup_steps or options.warmup_epochs):
        words.append(f"--lr_init={options.lr_init * factor:g}")
    if factor > 1:
        words.append(f"--warmup_steps={WARM_STEPS} --lr_init=0")
    elif options.warmup_steps and batch != options.batch_size:
        words.append(f"--warmup_steps={round(options.warmup_steps / factor)}")
    return " ".join(words)


def memory_table(recipes: list[Recipe]) -> list[str]:
    """Bytes of weights and activations in float32."""
    lines = ["| recipe | images a card | weights, gradients, optimiser, MB | activations an image, MB | in all, GB |",
             "|---|---|---|---|---|"]
    for recipe in recipes:
        copies = 4 if recipe.options.optimizer == "rmsprop" else 3  # weights, gradients, one or two moments
        weights, image = copies * 4 * recipe.facts["parameters"] / 1e6, 4 * recipe.facts["activations"] / 1e6
        each = recipe.options.batch_size
        lines.append(f"| `{recipe.name}` | {each} | {copies} x 4 x {recipe.facts['parameters'] / 1e6:.1f} M = "
                     f"{weights:.0f} | 4 x {recipe.facts['activations'] / 1e6:.1f} M = {image:.0f} | "
                     f"{(weights + each * image) / 1e3:.1f} |")
    return lines


if __name__ == "__main__":
    run_main(main)
