"""The data of a run is taken with its checkpoint; output folders that stay empty go after an error."""
import os

import pytest
import yaml

from src.config import on_run_data, read_options, run_of, take_run_data
from src.data.labels import OtherClasses, classes_from
from src.errors import DataError, EnvironmentFault, OptionError
from src.files import names_in, open_aside, output_folder

OWN = {"dataset": "voc", "voc_root": "data/voc", "classes": ["on", "c: d"], "val_data_type": "test", "lr": 0.5,
       "batch_size": 3, "augmentation": "flip", "num_workers": 7,
       "device_target": "GPU", "run_distribute": True, "no_longer_known": 1}


@pytest.fixture(name="run")
def make_run(tmp_path):
    """A run folder with OWN as its options; the path of its checkpoint."""
    (tmp_path / "run" / "ckpt").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(OWN))
    return tmp_path / "run" / "ckpt" / "best.ckpt"


def read(path, *typed):
    return take_run_data(read_options([f"--checkpoint_file_path={path}", *typed], "eval.py"))


def test_data_of_the_run_alone_is_taken(run):
    options, line = read(run)
    assert (options.dataset, options.voc_root, options.val_data_type) == ("voc", "data/voc", "test")
    assert options.classes == ["on", "c: d"] and options.typed == ["checkpoint_file_path"]
    assert (options.lr, options.device_target, options.run_distribute) == (0.05, "CPU", False)
    assert (options.augmentation, options.num_workers) == ("zoo", 0)
    assert line.startswith("data of the run, from ") and line.count("\n") == 0
    assert "run/config.yaml: --dataset=voc" in line and "--voc_root=data/voc" in line and "--lr" not in line


def test_a_file_at_the_top_of_the_run_is_of_it_too(run):
    assert read(run.parent.parent / "ssd.mindir")[0].voc_root == "data/voc"
    assert run_of(run.parent.parent / "export" / "ssd.mindir") is None


def test_what_is_typed_wins(run):
    options, line = read(run, "--voc_root=other", "--classes=[a]")
    assert options.voc_root == "other" and options.classes == ["a"] and options.val_data_type == "test"
    assert "--voc_root" not in line and "--val_data_type=test" in line


def test_a_recipe_wins(run, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("val_data_type: mine\n")
    options, _ = read(run, f"--config_path={recipe}")
    assert options.val_data_type == "mine" and options.voc_root == "data/voc"


def test_another_kind_of_data_takes_nothing(run):
    options, line = read(run, "--dataset=coco", "--coco_root=x")
    assert (options.dataset, options.voc_root, options.val_data_type, line) == ("coco", "", "", "")


@pytest.mark.parametrize("typed, own", [
    ([], True), (["--voc_root=data/voc"], True), (["--mindrecord_dir=x", "--strict=True"], True),
    (["--voc_root=data/other"], False), (["--val_data_type=train"], False), (["--val_share=0.2"], False),
    (["--dataset=coco", "--coco_root=data/voc"], False)])
def test_whether_it_is_the_data_of_the_run(run, typed, own):
    assert on_run_data(read(run, *typed)[0]) is own
    assert on_run_data(read(run.parent / "deeper" / "best.ckpt", *typed)[0]) is False


def test_where_there_is_no_run(tmp_path):
    assert read(tmp_path / "a.ckpt")[1] == "" and read(tmp_path / "a.ckpt")[0].voc_root == ""
    assert take_run_data(read_options([], "eval.py"))[1] == ""


@pytest.mark.parametrize("content", ["[1]", "{", "dataset: vox\n", "dataset: [voc]\n"])
def test_a_broken_config_is_named(run, content):
    (run.parent.parent / "config.yaml").write_text(content)
    with pytest.raises(OptionError, match="config.yaml"):
        read(run)


def test_strict_refuses_what_is_not_used(capsys):
    name = "scripts/model_info.py"
    assert read_options(["--model=ssd300_vgg16"], name, strict=True).model == "ssd300_vgg16"
    with pytest.raises(OptionError, match=f"^--lr is not used by {name}, which takes --config_path, --model, "):
        read_options(["--lr=1"], name, strict=True)
    with pytest.raises(SystemExit) as ended:
        read_options(["--help", "--lr=1"], name, doc="what x does", strict=True)
    text = capsys.readouterr().out
    assert ended.value.code == 0 and text.startswith(f"usage: python {name}") and "\n\nwhat x does\n" in text
    assert "\ndata:\n  --classes=[]" in text and "--lr=" not in text and "\nevaluation" not in text


# --- folders

def test_a_folder_of_failed_work_is_removed_as_far_as_it_was_made(tmp_path):
    with pytest.raises(DataError), output_folder(str(tmp_path / "a" / "b" / "c")):
        assert (tmp_path / "a" / "b" / "c").is_dir()
        raise DataError("no data")
    assert os.listdir(tmp_path) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyboardInterrupt), output_folder(str(tmp_path / "mine" / "eval")):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["mine"] and os.listdir(tmp_path / "mine") == []
    with pytest.raises(DataError), output_folder(str(tmp_path / "mine")):
        raise DataError("no data")
    assert os.listdir(tmp_path) == ["mine"]


def test_a_folder_with_a_result_stays(tmp_path):
    with pytest.raises(DataError), output_folder(str(tmp_path / "a" / "b")):
        (tmp_path / "a" / "file").write_text("")
        raise DataError("no data")
    assert os.listdir(tmp_path / "a") == ["file"]
    with output_folder(str(tmp_path / "b")):
        pass
    assert (tmp_path / "b").is_dir()


def test_what_was_being_written_goes_with_the_folder(tmp_path):
    (tmp_path / "old").mkdir()
    for folder, left in (("new", []), ("old", [".writing.rows.json~"])):  # the old one may be in use
        with pytest.raises(KeyboardInterrupt), output_folder(str(tmp_path / folder)):
            open_aside(str(tmp_path / folder / "rows.json")).close()
            raise KeyboardInterrupt
        assert names_in(tmp_path / folder) == left
    assert os.listdir(tmp_path) == ["old"]


def test_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot be made or"), output_folder(str(tmp_path / "file" / "a")):
        pass


# --- where a list of classes comes from

def test_the_origin_of_a_list_of_classes_is_told():
    from src.data.findings import Report
    from src.data.labels import label_records
    from src.data.records import Box, Record
    record = Record(1, "a.jpg", "here", boxes=[Box(1, "mask", (0, 0, 1, 1))])
    with pytest.raises(OtherClasses, match="correct --classes or leave it out$"):
        label_records([record], ["face"], file="a.json", report=Report())
    told = r"^none of the classes \[face\] is in 'a.json', which has \[mask\]; that is it$"
    with pytest.raises(DataError, match=told), classes_from("that is it"):
        label_records([record], ["face"], file="a.json", report=Report())
    with pytest.raises(DataError, match="^other$"), classes_from("that is it"):
        raise DataError("other")
