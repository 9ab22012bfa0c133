"""bench/ablation.py: which options a row of the table stands for, and what its table says."""
import json
import os
from types import SimpleNamespace

import pytest
import yaml

from src.config import read_options

TABLE = {"base": ["--lr=0.1", "--loss=focal", "--pre_trained={data}/w.pth"],
         "data": {"cells": ["--lr=0.2", "--voc_root={data}/cells"], "masks": ["--coco_root={data}/masks"]},
         "rows": {"base": [], "softmax": ["--loss=multibox", "--lr=0.3"]}}


@pytest.fixture
def ablation(in_bench):
    return in_bench("ablation")


@pytest.fixture
def options(tmp_path):
    return SimpleNamespace(data="/DATA", output=str(tmp_path))


def test_a_row_replaces_options_of_the_data_set_and_of_the_base(ablation, options):
    run = ablation.Run(TABLE, "cells", "softmax", 3, options)
    assert {"--lr=0.3", "--loss=multibox", "--pre_trained=/DATA/w.pth", "--voc_root=/DATA/cells",
            "--seed=3"} <= set(run.options)
    names = [option.partition("=")[0] for option in run.options]
    assert len(names) == len(set(names))
    assert "--lr=0.2" in ablation.Run(TABLE, "cells", "base", 1, options).options


def finish(run, score):
    """What a finished training leaves."""
    os.makedirs(run.folder)
    rows = [{"step": 1, "AP": 0.9}, {"step": 2, "AP": score, "AP50": 2 * score}, {"step": 3, "loss": 1.0}]
    with open(os.path.join(run.folder, "log.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    with open(os.path.join(run.folder, "ablation.json"), "w", encoding="utf-8") as file:
        json.dump({"minutes": 1}, file)


def test_the_last_evaluation_counts_not_the_best(ablation, options):
    runs = [ablation.Run(TABLE, "masks", "base", seed, options) for seed in (1, 2)]
    assert runs[0].result() is None
    for run, score in zip(runs, (0.2, 0.3)):
        finish(run, score)
    rows = [run.result() for run in runs]
    assert [row["AP"] for row in rows] == [0.2, 0.3]
    assert ablation.markdown(rows, ["base", "softmax"], ["masks"]).splitlines() == [
        "| | masks AP | masks AP50 | seeds |", "|---|---|---|---|",
        "| base | 0.250 ± 0.050 | 0.500 ± 0.100 | 2 |", "| softmax | not yet run | not yet run | 0 |"]


def test_every_row_of_the_table_is_a_command_that_train_takes(ablation, options):
    with open(ablation.TABLE, encoding="utf-8") as file:
        table = yaml.safe_load(file)
    for data in table["data"]:
        for name in table["rows"]:
            read_options(ablation.Run(table, data, name, 1, options).options)
