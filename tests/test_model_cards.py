"""scripts/model_cards.py: the pages are up to date, every network has one, and rows of results come out as they are."""
import json
import os
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, os.path.join(ROOT, "scripts"))
import model_cards

from src.errors import DataError
from src.models.ssd import BUILDERS

MACHINE = {"machine": "2 cores of X", "date": "2026-11-30", "commit": "abc1234"}


def test_the_pages_are_up_to_date():
    pages = model_cards.all_pages()
    for name, text in pages.items():
        with open(os.path.join(model_cards.FOLDER, name), encoding="utf-8") as file:
            assert file.read() == text, f"{name}: run python scripts/model_cards.py"
    written = {name for name in os.listdir(model_cards.FOLDER) if name.endswith(".md")}
    assert written == set(pages), "a card of a network that is not here any more"


def test_every_network_has_a_card_of_one_screen():
    cards = {card.name: card for card in model_cards.read_cards()}
    assert list(cards) == list(BUILDERS), "run scripts/model_facts.py, then scripts/model_cards.py"
    for name, card in cards.items():
        text = model_cards.page(card)
        assert text.count("\n") <= 60, name
        assert f"{card.facts['anchors']:,}" in text and f"--config_path=config/{card.recipes[0].name}.yaml" in text


def test_rows_as_they_stand(monkeypatch, tmp_path):
    for name in ("words.yaml", "README.md"):
        (tmp_path / name).write_bytes(open(os.path.join(model_cards.FOLDER, name), "rb").read())
    monkeypatch.setattr(model_cards, "FOLDER", str(tmp_path))
    card = next(card for card in model_cards.read_cards() if card.name == "ssd300_resnet50")
    assert "| latency of the detector, one picture | not yet measured |" in model_cards.page(card)
    assert "| here | - | - | not yet measured |" in model_cards.page(card)
    row = {"model": "ssd300_resnet50", "data": "cells", "recipe": "demo", "AP": None, "AP50": 0.8764, "minutes": 39.5,
           "note": "seed 1", **MACHINE}
    (tmp_path / "results.json").write_text(json.dumps([row]))
    times = [{"model": "ssd300_resnet50", "form": form, "milliseconds": value, **MACHINE}
             for form, value in (("checkpoint", 284.4), ("ONNX", 135.2))]
    (tmp_path / "latency.json").write_text(json.dumps(times))
    pages = model_cards.all_pages()
    assert ("| here | cells | [`demo`](../../config/demo.yaml) | AP50 0.876 (seed 1; 39.5 minutes of training; 2 cores "
            "of X, 2026-11-30, commit abc1234) |") in pages["ssd300_resnet50.md"]
    assert ("checkpoint 284 ms, MindIR not yet measured, ONNX 135 ms (2 cores of X, 2026-11-30, commit abc1234"
            ) in pages["ssd300_resnet50.md"]
    assert "| 284, -, 135 | AP .271 | 0.88 cells |" in pages["README.md"]


def test_a_result_of_an_unknown_network_is_refused(monkeypatch):
    known = model_cards.read_table
    row = {"model": "ssd301"}
    monkeypatch.setattr(model_cards, "read_table", lambda name: [row] if name == "results.json" else known(name))
    with pytest.raises(DataError, match="a result of ssd301, which is not in facts.json; known are ssd_resnet50_fpn"):
        model_cards.read_cards()


def test_a_network_of_which_nothing_is_said_is_refused(monkeypatch):
    monkeypatch.setattr(model_cards, "read_yaml", lambda path: {})
    with pytest.raises(DataError, match="words.yaml says nothing of ssd_resnet50_fpn; add it there"):
        model_cards.read_cards()


def test_latency_rows_replace_those_of_the_same_network(in_bench, tmp_path):
    latency = in_bench("latency")
    path = str(tmp_path / "latency.json")
    latency.write(path, [{"model": "a", "form": "ONNX", "milliseconds": 1}, {"model": "b", "form": "ONNX"}])
    latency.write(path, [{"model": "a", "form": "ONNX", "milliseconds": 2}])
    assert json.loads((tmp_path / "latency.json").read_text()) == [
        {"model": "b", "form": "ONNX"}, {"model": "a", "form": "ONNX", "milliseconds": 2}]
