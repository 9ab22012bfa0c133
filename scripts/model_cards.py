"""Writes docs/models/: a card for every network, and the table of all in README.md.

    python scripts/model_cards.py

From files there: latency.json (bench/latency.py), words.yaml (what no table can say) and results.json, a list of what
was evaluated here: model, data, recipe, AP, AP50, minutes of training, machine, date, commit, note; null is unknown.
And from src/models/facts.json (scripts/model_facts.py) and the recipes of config/. Run it when one of them has changed.
The text of README.md is written by hand around its table.
"""
from __future__ import annotations

import glob
import os
import re
import sys
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.arguments import ArgumentParser
from src.config import read_options
from src.errors import DataError, run_main
from src.files import read_json, write_atomic
from src.models.facts import read_facts
from src.recipes import read_yaml
from src.text import wrap
from src.weights.catalogue import read_catalogue

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, "docs", "models")
FORMS = ("checkpoint", "MindIR", "ONNX")  # of bench/latency.py
UNKNOWN = "not yet measured"
SPLITS = {"train2017": "COCO", "trainval": "VOC 07+12"}  # of recipes; others are for data of your own
FOOT = ("[All networks](README.md) · [recipes and their sources](../recipes.md) · [what training costs](../costs.md) · "
        "[export](../export.md) · [weights](../../ckpt/README.md) · [results](../results.md)")


class Recipe(NamedTuple):
    """A recipe as a card shows it."""
    name: str
    dataset: str    # the option
    data: str       # in words
    published: str  # results in the words of its header, "" for none
    weights: str    # of --pre_trained in its header, with --filter_weight where it stands there


class Card(NamedTuple):
    """What is known of a network."""
    name: str
    facts: dict            # of src/models/facts.json
    words: dict            # of words.yaml
    recipes: list[Recipe]
    results: list[dict]    # rows of results.json
    latency: list[dict]    # rows of latency.json

    @property
    def published(self) -> list[str]:
        """Results of the sources."""
        return [recipe.published for recipe in self.recipes if recipe.published] or [self.words.get("published", "-")]


def main() -> None:
    """Writes all pages."""
    ArgumentParser(__doc__).parse_args()
    pages = all_pages()
    for name, text in pages.items():
        write_atomic(os.path.join(FOLDER, name), text.encode())
    print(f"wrote {len(pages)} pages into {os.path.relpath(FOLDER)}")


def all_pages() -> dict[str, str]:
    """{file name: text} of the cards and of their table."""
    from recipe_costs import fill
    cards = read_cards()
    with open(os.path.join(FOLDER, "README.md"), encoding="utf-8") as file:
        text = file.read()
    return {**{f"{card.name}.md": page(card) for card in cards}, "README.md": fill(text, "networks", table(cards))}


def read_cards() -> list[Card]:
    """Raises DataError for a network of which nothing is said, and for a row of an unknown one."""
    facts, results, latency = read_facts(), *map(read_table, ("results.json", "latency.json"))
    words, recipes = read_yaml(os.path.join(FOLDER, "words.yaml")), read_recipes()
    silent = [name for name in facts if name not in words]
    if silent:
        raise DataError(f"docs/models/words.yaml says nothing of {silent[0]}; add it there")
    strange = [row["model"] for row in (*results, *latency) if row["model"] not in facts]
    if strange:
        raise DataError(f"docs/models/ has a result of {strange[0]}, which is not in facts.json; known are "
                        f"{', '.join(facts)}")
    return [Card(name, values, words[name], recipes.get(name, []), results=of_model(results, name),
                 latency=of_model(latency, name)) for name, values in facts.items()]


def read_table(name: str) -> list[dict]:
    """A JSON list file of docs/models/, [] where it does not exist."""
    path = os.path.join(FOLDER, name)
    return read_json(path) if os.path.exists(path) else []


def of_model(rows: list[dict], name: str) -> list[dict]:
    """The rows of one network."""
    return [row for row in rows if row["model"] == name]


def read_recipes() -> dict[str, list[Recipe]]:
    """{network: its recipes}, without that of the demo."""
    from recipe_costs import published_in, read_header, weights_of
    recipes = {}
    for path in sorted(glob.glob(os.path.join(ROOT, "config", "*.yaml"))):
        name = os.path.basename(path)[:-len(".yaml")]
        if name in ("default", "demo"):
            continue
        options, header = read_options([f"--config_path={path}"]), read_header(path)
        published = published_in(header)
        recipes.setdefault(options.model, []).append(
            Recipe(name, options.dataset, SPLITS.get(options.train_data_type, "your own"),
                   "" if published.startswith("none") else published, weights_of(name, header)))
    return recipes


def page(card: Card) -> str:
    """The page of one network."""
    facts = card.facts
    levels = ", ".join(f"{side} x {side} x {shapes}" for side, shapes in facts["levels"])
    rows = {"source": card.words["source"],
            "input": f"{facts['image_size']} x {facts['image_size']} RGB; a picture of any size is resized to it",
            "anchors": f"{facts['anchors']:,}: {levels} (cells x cells x anchors a cell)",
            "parameters": f"{facts['parameters']:,} with {facts['classes'] - 1} classes",
            "GMACs a picture": f"{facts['macs'] / 1e9:.2f}",
            "scores": facts["score"],
            "latency of the detector, one picture": latency_words(card.latency)}
    lines = [f"# `{card.name}`", "", wrap(card.words["good_for"]), "", "| | |", "|---|---|",
             *(f"| {name} | {value} |" for name, value in rows.items()), "",
             "## Accuracy", "", *accuracy(card), "", "## Use", "", *commands(card), "",
             "`export.py` writes MindIR and ONNX of every network here.", "", "## Limits", "",
             *(wrap(f"- {limit}", indent="  ") for limit in limits(card)), "", wrap(FOOT)]
    return "\n".join([*lines, ""])


def latency_words(rows: list[dict]) -> str:
    """Milliseconds of each form with machine, date and commit."""
    if not rows:
        return UNKNOWN
    times = {row["form"]: row["milliseconds"] for row in rows}
    shown = ", ".join(f"{form} {times[form]:.0f} ms" if form in times else f"{form} {UNKNOWN}" for form in FORMS)
    return f"{shown} ({rows[-1]['machine']}, {rows[-1]['date']}, commit {rows[-1]['commit']}; drawn weights)"


def accuracy(card: Card) -> list[str]:
    """What the sources published and what was reached here."""
    lines = ["| | data | recipe | result |", "|---|---|---|---|"]
    lines += [f"| published | {recipe.data} | {link(recipe.name)} | {recipe.published} |" for recipe in card.recipes
              if recipe.published]
    if "published" in card.words:
        lines.append(f"| published | COCO | - | {card.words['published']} |")
    for row in card.results:
        numbers = ", ".join(f"{name} {row[name]:.3f}" for name in ("AP", "AP50") if row[name] is not None)
        minutes = "" if row["minutes"] is None else f"; {row['minutes']:g} minutes of training"
        lines.append(f"| here | {row['data']} | {link(row['recipe']) if row['recipe'] else '-'} | {numbers} "
                     f"({row['note']}{minutes}; {row['machine']}, {row['date']}, commit {row['commit']}) |")
    return lines if card.results else [*lines, f"| here | - | - | {UNKNOWN} |"]


def link(recipe: str) -> str:
    """A recipe as a link to its file."""
    return f"[`{recipe}`](../../config/{recipe}.yaml)"


def commands(card: Card) -> list[str]:
    """A code block that imports a detector and trains by each recipe."""
    public = [row for row in read_catalogue().values() if row.model == card.name and not row.is_backbone]
    lines = ["# a whole detector, to use, evaluate, export or train on"] if public or "imports" in card.words else []
    for row in public:
        lines.append(f"python scripts/fetch_weights.py {row.name}" if row.address else
                     f"# {row.name}: get it by hand, see ckpt/README.md")
    for file, publisher in card.words.get("imports", {}).items():
        lines += [f"python import_weights.py {file} --from={publisher} --model={card.name} \\",
                  f"    --output=ckpt/{card.name}.ckpt"]
    for recipe in card.recipes:
        weights = f" --pre_trained={recipe.weights}" if recipe.weights else ""
        lines += [f"# training, data: {recipe.data}",
                  f"python train.py --config_path=config/{recipe.name}.yaml --{recipe.dataset}_root=DATA \\",
                  f"   {weights} --output_path=runs/{recipe.name}"]
    return ["```", *lines, "```"]


def limits(card: Card) -> list[str]:
    """What a user should know before choosing the network."""
    size = card.facts["image_size"]
    lines = [f"It takes {size} pixels only: its anchors are a table for that size."]
    if card.facts["other_sizes"]:
        lines = [f"`--image_size` may be {card.words.get('sizes', 'any value')}; what is published holds for {size}."]
    if card.facts["score"] == "softmax":
        lines.append("Scores are a softmax over the classes and the background.")
    else:
        lines.append("Each class has a score of its own (sigmoid, focal loss); after few steps all are low, see "
                     "`--min_score` and `--draw_score`.")
    if card.facts["batch_norm"]:
        lines.append("BatchNorm: nothing is published with fewer than 16 images a card; with fewer see `--batch_norm` "
                     "in [training.md](../training.md).")
    return [*lines, *card.words.get("limits", [])]


def table(cards: list[Card]) -> list[str]:
    """The table of all networks, the least work first."""
    lines = ["| network | input | GMACs | parameters, M | latency: checkpoint, MindIR, ONNX | published | here |",
             "|---|---|---|---|---|---|---|"]
    for card in sorted(cards, key=lambda card: card.facts["macs"]):
        times = {row["form"]: f"{row['milliseconds']:.0f}" for row in card.latency}
        speed = ", ".join(times.get(form, "-") for form in FORMS) if times else UNKNOWN
        published = re.search(r"m?AP \.\d+", card.published[0])
        here = "; ".join(f"{row['AP50']:.2f} {row['data'].split(',')[0]}" for row in card.results)
        lines.append(f"| [`{card.name}`]({card.name}.md) | {card.facts['image_size']} | "
                     f"{card.facts['macs'] / 1e9:.2f} | {card.facts['parameters'] / 1e6:.1f} | {speed} | "
                     f"{published[0] if published else '-'} | {here or UNKNOWN} |")
    return lines


if __name__ == "__main__":
    run_main(main)
