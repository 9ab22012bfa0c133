"""Where the splits of COCO data lie: image folder and annotation file named apart, for each split."""
import json
import os

import pytest
from conftest import ROOT, coco_tree
from programs import run

from src.config import read_options, save_options, split_options
from src.data.annotations import SplitMissing
from src.data.prepare import prepare_split
from src.errors import DataError
from src.option_rules import RULES

PLACES = [name for name, rule in RULES.items() if rule.split == "place"]


class Here:
    """A tree of which train2017 has a file of another name, with validation images of its own elsewhere."""

    def __init__(self, folder):
        self.folder, self.tree, self.other = folder, folder / "tree", folder / "other"
        for place in (self.tree, self.other):
            place.mkdir()
            coco_tree(place, [(5, [1, 1, 9, 9], 7, {})])
        os.rename(self.tree / "annotations/instances_train2017.json", self.tree / "custom_train.json")
        os.rename(self.other / "annotations/instances_train2017.json", self.other / "val.json")

    def split(self, split, *typed):
        options = read_options(["--dataset=coco", f"--mindrecord_dir={self.folder}/mr", *map(str, typed)])
        return prepare_split(**split_options(options, split), classes=options.classes, log=lambda text: None)


@pytest.fixture
def here(tmp_path):
    return Here(tmp_path)


def test_a_file_of_another_name_beside_the_usual_images(here):
    split = here.split("train", f"--coco_root={here.tree}", f"--anno_path={here.tree}/custom_train.json")
    assert (split.name, split.count, split.image_dir) == ("train", 2, str(here.tree / "train2017"))


def test_both_are_named_and_there_is_no_root(here):
    typed = (f"--anno_path={here.tree}/custom_train.json", f"--image_dir={here.tree}/train2017",
             f"--val_anno_path={here.other}/val.json", f"--val_image_dir={here.other}/train2017")
    train, val = (here.split(split, *typed) for split in ("train", "val"))
    assert (train.image_dir, val.image_dir) == (str(here.tree / "train2017"), str(here.other / "train2017"))
    assert train.folder != val.folder and val.count == 2


def test_one_folder_for_both_files(here):
    val = here.split("val", f"--image_dir={here.tree}/train2017", f"--val_anno_path={here.other}/val.json")
    assert val.image_dir == str(here.tree / "train2017")


def test_the_usual_validation_split_has_its_own_folder(here):
    os.rename(here.other / "train2017", here.other / "val2017")
    os.rename(here.other / "val.json", here.other / "annotations/instances_val2017.json")
    typed = (f"--coco_root={here.other}", f"--image_dir={here.tree}/train2017")
    assert here.split("val", *typed, f"--anno_path={here.tree}/custom_train.json").image_dir.endswith("other/val2017")
    moved = here.split("val", *typed, f"--val_image_dir={here.tree}/train2017")
    assert moved.image_dir == str(here.tree / "train2017") and moved.name == "val2017"


@pytest.mark.parametrize("split, typed, words", [
    ("train", ["--coco_root=TREE"], "--coco_root, --instances_set and --train_data_type, or name it by --anno_path"),
    ("train", ["--coco_root=TREE", "--anno_path=TREE/gone.json"], "gone.json' is missing; check --anno_path"),
    ("val", ["--coco_root=TREE", "--val_anno_path=TREE/gone.json"], "gone.json' is missing; check --val_anno_path"),
    ("train", ["--coco_root=OTHER", "--anno_path=TREE/custom_train.json", "--image_dir=TREE/gone"],
     "gone' is not a folder; check --image_dir"),
    ("val", ["--coco_root=OTHER", "--val_anno_path=OTHER/val.json"],
     "val2017' is not a folder; check --coco_root and --val_data_type, or name it by --val_image_dir"),
    ("train", ["--image_dir=TREE/train2017"], "--coco_root is empty")])
def test_errors_name_the_option(here, split, typed, words):
    typed = [option.replace("TREE", str(here.tree)).replace("OTHER", str(here.other)) for option in typed]
    with pytest.raises(DataError) as error:
        here.split(split, *typed)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_training_split_alone(here):
    with pytest.raises(SplitMissing, match="--coco_root is empty; .* by --val_anno_path and --val_image_dir"):
        here.split("val", f"--anno_path={here.tree}/custom_train.json", f"--image_dir={here.tree}/train2017")
    prepared = run(here, "prepare_data.py", "--dataset=coco", f"--anno_path={here.tree}/custom_train.json",
                   f"--image_dir={here.tree}/train2017", f"--mindrecord_dir={here.folder}/mr")
    assert prepared.returncode == 0 and "only one split: --coco_root is empty" in prepared.stdout


def test_txt_may_have_validation_images_elsewhere():
    typed = ["--dataset=other", "--image_dir=a", "--anno_path=t.txt", "--val_anno_path=v.txt"]
    assert split_options(read_options(typed), "val")["image_dir"] == "a"
    val = split_options(read_options([*typed, "--val_image_dir=b"]), "val")
    assert (val["image_dir"], val["anno_path"]) == ("b", "v.txt")


def test_places_are_kept_and_belong_to_a_host_and_a_data_set(tmp_path):
    options = read_options(["--dataset=other", *(f"--{key}=/x/{key}" for key in PLACES)])
    save_options(options, tmp_path / "config.yaml")
    again = read_options([f"--config_path={tmp_path}/config.yaml"])
    assert all(again[key] == f"/x/{key}" for key in PLACES) and all(RULES[name].per_host for name in PLACES)
    other = read_options([f"--config_path={tmp_path}/config.yaml", "--dataset=coco", "--image_dir=/y"])
    assert [other[key] for key in PLACES] == ["/y", "", "", ""], "a TXT file is none of COCO's"
    (tmp_path / "recipe.yaml").write_text("image_dir: /x\nanno_path: t.txt\n")
    zoo = read_options([f"--config_path={tmp_path}/recipe.yaml", "--dataset=other"])
    assert (zoo.image_dir, zoo.anno_path) == ("/x", "t.txt"), "a recipe that leaves the data set to the command line"


def test_the_tools_take_them_too(here):
    typed = (f"--anno_path={here.tree}/custom_train.json", f"--image_dir={here.tree}/train2017",
             f"--val_anno_path={here.other}/val.json", f"--val_image_dir={here.other}/train2017", "--dataset=coco")
    listed = run(here, os.path.join(ROOT, "scripts/list_categories.py"), *typed)
    assert listed.returncode == 0 and listed.stdout.count("2 images, 1 of them without boxes; 1 boxes") == 2
    prepared = run(here, "prepare_data.py", *typed, f"--mindrecord_dir={here.folder}/mr")
    assert prepared.returncode == 0 and "train: 2 images" in prepared.stdout and "val: 2 images" in prepared.stdout
    with open(here.other / "val.json", encoding="utf-8") as file:
        assert len(json.load(file)["images"]) == 2
