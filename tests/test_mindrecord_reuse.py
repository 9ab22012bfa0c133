"""When data are converted again, how the ranks wait, options that lead nowhere, and prepare_data.py."""
import os
import shutil
import subprocess
import sys
import threading

import pytest
from conftest import ROOT, Caller, rows_of, txt_tree

from src.data import convert, prepare
from src.data.annotations import SplitMissing
from src.data.prepare import prepare_split
from src.errors import DataError, EnvironmentFault, OptionError, SSDError

# --- when data are converted again

def test_reused_until_the_source_changes(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    assert call.txt().converted and not call.txt().converted and not call.txt(["cat"]).converted
    (tmp_path / "train.txt").write_text("a.png 0,0,9,9,cat\nb.png\n")
    split = call.txt()
    assert split.converted and split.count == 2 and "the annotations have changed" in call.why()
    assert len(call.kept()) == 1


def test_two_lists_of_classes_are_kept_side_by_side(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat 0,0,9,9,ox\n")
    assert call.txt(["ox"]).converted and call.txt(["cat"]).converted and len(call.kept()) == 2
    assert call.txt(["ox"]).classes == ["ox"] and call.txt(["cat"]).classes == ["cat"]
    assert len([text for text in call.said if text.startswith("converting")]) == 2


def damage(split, kind):
    """Makes a conversion unusable."""
    manifest = os.path.join(split.folder, "manifest.json")
    if kind == "half":
        with open(split.files[0], "r+b") as file:
            file.truncate(1000)
    elif kind == "schema":
        text = open(manifest, encoding="utf-8").read().replace('"schema": 2', '"schema": 1')
        open(manifest, "w", encoding="utf-8").write(text)
    elif kind == "broken manifest":
        open(manifest, "w", encoding="utf-8").write('{"schema": 1, ')
    else:
        os.remove({"db": split.files[0] + ".db", "manifest": manifest, "truth": split.ground_truth}[kind])


@pytest.mark.parametrize("kind, reason", [
    ("half", "has another size"), ("db", "data.mindrecord000.db is missing"), ("truth", "ground_truth.json is missing"),
    ("manifest", "manifest is missing"), ("broken manifest", "broken"), ("schema", "another version")])
def test_damage_is_seen_and_mended(tmp_path, call, kind, reason):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    damage(call.txt(), kind)
    split = call.txt()
    assert split.converted and reason in call.why() and len(rows_of(split)) == 1
    assert not call.txt().converted


def test_leftovers_of_a_killed_conversion(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    target = call.txt().folder
    os.rename(target, target + ".tmp")
    os.remove(target + ".tmp/manifest.json")
    assert call.txt().converted and call.kept() == [os.path.basename(target)]


def test_an_interrupted_conversion_leaves_nothing(tmp_path, call, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(convert, "mindrecord_row", interrupt)
        call.txt()
    assert call.kept() == [] and call.txt().converted


def test_folder_that_cannot_be_written(tmp_path, call, monkeypatch):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    (tmp_path / "mr").write_text("a file")
    with pytest.raises(EnvironmentFault, match="mindrecord_dir.*cannot be made") as error:
        call.txt()
    assert error.value.exit_code == 4
    (tmp_path / "mr").unlink()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(EnvironmentFault, match="0 MiB left"):
        call.txt()



# --- ranks

@pytest.fixture(name="quick")
def quick_polling(monkeypatch):
    monkeypatch.setattr(prepare, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(prepare, "SILENCE_SECONDS", 0.4)


class Waiter(threading.Thread):
    """Rank 1 in a thread: .result is its Split or its error."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.result = call, None
        self.start()

    def run(self):
        try:
            self.result = self.call.txt(rank=1)
        except SSDError as error:
            self.result = error

    def end(self):
        """The result once it is there."""
        self.join(60)
        assert not self.is_alive()
        return self.result


def test_other_ranks_wait(tmp_path, call, quick, monkeypatch):
    monkeypatch.setattr(prepare, "SILENCE_SECONDS", 60)
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    waiter = Waiter(Caller(tmp_path))
    first = call.txt()
    second = waiter.end()
    assert second.files == first.files and first.converted and not second.converted
    assert call.txt(rank=3).count == 1, "nothing to wait for"


def test_other_ranks_do_not_take_a_stale_conversion(tmp_path, call, quick):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    call.txt()
    (tmp_path / "train.txt").write_text("a.png 0,0,9,9,dog\n")
    error = Waiter(Caller(tmp_path)).end()
    assert isinstance(error, EnvironmentFault) and "must share --mindrecord_dir" in str(error)



# --- options

@pytest.mark.parametrize("dataset, options, message", [
    ("coco", {}, "--coco_root is empty"), ("voc", {}, "--voc_root is empty"),
    ("other", {"anno_path": "x"}, "--image_dir is empty"),
    ("coco", {"coco_root": "/no/such"}, "coco_root '/no/such' is not a folder"),
    ("other", {"anno_path": "no.txt", "image_dir": ROOT}, "anno_path 'no.txt' is missing"),
    ("coco", {"coco_root": ROOT, "split_name": "mine"}, "instances_mine.json' is missing; check --coco_root")])
def test_options_that_lead_nowhere(tmp_path, dataset, options, message):
    with pytest.raises(DataError, match=message) as error:
        prepare_split("train", dataset, mindrecord_dir=str(tmp_path), classes=[], **options)
    assert not isinstance(error.value, SplitMissing)


@pytest.mark.parametrize("dataset, options, hint", [
    ("coco", {"voc_root": ROOT}, "--voc_root is given, is it --dataset=voc"),
    ("coco", {"anno_path": "a.txt"}, "--anno_path is given, is it --dataset=other"),
    ("voc", {"coco_root": ROOT}, "--coco_root is given, is it --dataset=coco")])
def test_the_folder_of_another_data_set_is_a_hint(tmp_path, dataset, options, hint):
    with pytest.raises(DataError, match=f"--{dataset}_root is empty; .*; {hint}"):
        prepare_split("train", dataset, mindrecord_dir=str(tmp_path), classes=[], **options)


def test_a_misspelt_keyword_is_refused(tmp_path):
    with pytest.raises(TypeError, match="coco_rot"):
        prepare_split("train", "coco", mindrecord_dir=str(tmp_path), classes=[], coco_rot=ROOT)


@pytest.mark.parametrize("dataset, options, message", [
    ("coco", {"coco_root": ROOT}, "instances_val2017.json' is missing"),
    ("voc", {"voc_root": ROOT}, "val.txt' is missing"), ("other", {"image_dir": ROOT}, "--val_anno_path is empty")])
def test_a_split_that_nobody_named_may_be_missing(tmp_path, dataset, options, message):
    with pytest.raises(SplitMissing, match=message):
        prepare_split("val", dataset, mindrecord_dir=str(tmp_path), classes=[], **options)


def test_impossible_classes(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    with pytest.raises(OptionError, match="background"):
        call.txt(["background", "cat"])



# --- prepare_data.py

def program(*arguments, python=()):
    """Runs prepare_data.py -> (exit code, stdout, stderr)."""
    done = subprocess.run([sys.executable, *python, os.path.join(ROOT, "prepare_data.py"), *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def test_program_converts_the_split_there_is(tmp_path):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat 5,5,5,5,cat\nb.png 1,1,9,9,dog\n")
    common = ["--dataset=other", f"--image_dir={tmp_path}/images", f"--mindrecord_dir={tmp_path}/mr"]
    code, out, _ = program(*common, f"--anno_path={tmp_path}/train.txt")
    assert code == 0 and "train: 2 images, 2 boxes" in out and "under 1 pixel" in out and "        1  dog" in out
    assert "only one split: --val_anno_path is empty" in out
    code, _, err = program(*common, f"--anno_path={tmp_path}/train.txt", "--strict=True")
    assert code == 3 and err.startswith("error: --strict=True") and err.count("\n") == 1
    code, _, err = program(*common)
    assert code == 3 and "--anno_path is empty" in err


def test_program_help_is_light():
    code, out, err = program("--help", python=["-X", "importtime"])
    assert code == 0 and "--mindrecord_dir" in out and "mindspore" not in err
