"""--data: every form is found and read, the split that is made where none is given, and what cannot be found."""
import os
import shlex

import pytest
from conftest import picture
from data_forms import ALL, CLASSES, FORMS, TRAIN, TRUTH, VAL, each, images, put, voc, whole, yolo
from data_forms import coco as coco_json

from src.config import read_options, split_options, take_data, take_run_data
from src.data.findings import Report
from src.data.formats import identify, split_files
from src.data.parts import choose_validation
from src.data.prepare import prepare_split
from src.data.records import finish_record
from src.errors import DataError, OptionError


def options_of(*typed):
    """(Options, line) of --data."""
    return take_data(read_options(list(typed), "prepare_data.py"), identify)


def read(options, split, classes=()):
    """What a split holds -> ({stem: boxes as (class, x1, y1, x2, y2)}, class names, report)."""
    place = {name: value for name, value in split_options(options, split).items()
             if name not in ("mindrecord_dir", "strict")}
    report = Report()
    records, names, _ = split_files(**place).read(classes=list(classes), report=report)
    found = {}
    for record in records:
        assert os.path.isfile(record.path), record.path
        boxes = [(names[box.label - 1], *box.pixels) for box in finish_record(record, (20, 40), report).boxes]
        stem = os.path.splitext(os.path.basename(record.path))[0]
        found[stem] = [(name, round(x, 4), round(y, 4), round(x + w, 4), round(y + h, 4)) for name, x, y, w, h in boxes]
    return found, names, report


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_found_and_read(tmp_path, name):
    form, root = FORMS[name], str(tmp_path / "data set")
    form.write(root)
    expected = {option: value.replace("ROOT", root) for option, value in form.options.items()}
    found = identify(root)
    assert (found.dataset, found.options, found.has_val) == (form.dataset, expected, form.has_val)

    options, line = options_of(f"--data={root}")
    assert line.startswith(f"--data={root} holds {found.words}, the same as --dataset={form.dataset} --")
    assert "\n" not in line and ("--val_share=0.2" in line) == (not form.has_val)
    assert options.data == "" and options.val_share == (0.0 if form.has_val else 0.2)
    (train, names, first), (val, _, second) = (read(options, split, names) for split, names in (("train", ()),
                                                                                               ("val", CLASSES)))
    assert names == CLASSES and not first.findings and not second.findings
    assert {**train, **val} == TRUTH and not {*train} & {*val} and train and val
    if form.has_val:
        assert "".join(train) == TRAIN and "".join(val) == VAL


@pytest.mark.parametrize("name", FORMS)
def test_the_options_that_are_said_give_the_same(tmp_path, name):
    FORMS[name].write(str(tmp_path))
    options, line = options_of(f"--data={tmp_path}")
    said = line.partition("the same as ")[2].partition(" (no validation")[0]
    again = read_options(shlex.split(said), "prepare_data.py")
    for split in ("train", "val"):
        assert split_options(again, split) == split_options(options, split)


def test_a_file_may_be_named(tmp_path):
    FORMS["yolo with data.yaml"].write(str(tmp_path))
    assert identify(f"{tmp_path}/data.yaml").options["val_anno_path"] == f"{tmp_path}/data.yaml"
    FORMS["cvat coco"].write(str(tmp_path / "cvat"))
    path = f"{tmp_path}/cvat/annotations/instances_default.json"
    assert identify(path).options == {"anno_path": path, "image_dir": f"{tmp_path}/cvat/images"}
    FORMS["txt"].write(str(tmp_path / "txt"))
    found = identify(f"{tmp_path}/txt/train.txt")
    assert (found.dataset, found.has_val) == ("other", False)


def test_test_stands_in_for_val_and_what_is_not_used_is_said(tmp_path):
    splits = [("train", "ab"), ("test", "c")]
    each(voc, "xml", splits=splits)(tmp_path)
    assert identify(str(tmp_path)).options["val_anno_path"] == f"{tmp_path}/test"
    each(voc, "xml", splits=[("valid", "d")])(tmp_path)
    found = identify(str(tmp_path))
    assert found.options["val_anno_path"] == f"{tmp_path}/valid" and found.unused == [f"{tmp_path}/test"]
    assert options_of(f"--data={tmp_path}")[1].endswith(f"; not used: {tmp_path}/test")


def test_conversions_runs_and_hidden_folders_are_not_data(tmp_path):
    FORMS["voc beside the images"].write(str(tmp_path))
    for folder in ("mindrecord/a", "run/eval", ".git", "__MACOSX"):
        images(tmp_path, folder, "x")
        put(tmp_path, f"{folder}/ground_truth.json", coco_json("a"))
    put(tmp_path, "mindrecord/a/manifest.json", "{}")
    put(tmp_path, "run/config.yaml", "")
    put(tmp_path, "run/log.jsonl", "")
    assert identify(str(tmp_path)).dataset == "voc"


def test_annotations_of_other_tasks_are_left_alone(tmp_path):
    FORMS["coco tree"].write(str(tmp_path))
    put(tmp_path, "annotations/person_keypoints_train2017.json", coco_json("abc"))
    put(tmp_path, "annotations/captions_train2017.json", {"images": [], "annotations": []})
    assert identify(str(tmp_path)).options == {"coco_root": str(tmp_path)}


# --- what cannot be found

def test_two_kinds_are_an_error_that_names_both_and_a_typed_one_chooses(tmp_path):
    FORMS["voc beside the images"].write(str(tmp_path))
    FORMS["yolo without a split"].write(str(tmp_path))
    with pytest.raises(DataError) as error:
        options_of(f"--data={tmp_path}")
    text = str(error.value)
    assert "holds VOC XML files and YOLO labels" in text and "\n" not in text
    assert f"--dataset=voc --anno_path={tmp_path}" in text and f"--dataset=yolo --image_dir={tmp_path}/images" in text
    assert options_of(f"--data={tmp_path}", "--dataset=yolo")[0].image_dir == f"{tmp_path}/images"
    with pytest.raises(DataError, match="VOC XML files and YOLO labels"):
        options_of(f"--data={tmp_path}", "--dataset=coco")


@pytest.mark.parametrize("write, text", [
    (lambda root: None, "no annotations of a known form .* has no images and no annotations"),
    (lambda root: images(root, "pictures", "ab"), "no annotations of a known form .* has images in pictures"),
    (lambda root: put(root, "a.json", {"_via_settings": {}}), "'.*a.json' looks like VIA's own JSON; export it as"),
    (lambda root: put(root, "a.json", [{"annotations": [{"result": [{"from_name": "label"}]}]}]), "Label Studio's own"),
    (lambda root: put(root, "a.json", {"images": [], "annotations": []}), "COCO's JSON, but has no list 'categories'"),
    (lambda root: put(root, "a.json", [{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]), "results of a detector"),
    (lambda root: put(root, "a.xml", "<annotations><version/>"), "looks like CVAT's own XML; export it as COCO"),
    (lambda root: put(root, "a.csv", "image,x\n"), "'.*a.csv' looks like a table"),
    (lambda root: put(root, "a.txt", "a.jpg;1;2;3;4;cat\n"), "looks like fields with semicolons"),
    (lambda root: put(root, "a.xml", voc("a")), "holds VOC XML files, but no image; give the folder that holds both"),
    (whole(coco_json, "{}.json", pictures="images", splits=[("first", "ab"), ("second", "c")]),
     "more than one set of COCO JSON, .*first.json', '.*second.json'; name one of them by --data"),
    (lambda root: [FORMS["voc tree"].write(f"{root}/{year}") for year in (2007, 2012)], "several VOC trees: '.*2007'"),
    (lambda root: [FORMS["yolo with data.yaml"].write(f"{root}/{part}") for part in "xy"], "several data.yaml of YOLO"),
    (each(voc, "xml", annotations="all/{}", pictures="all/{}", splits=[("", "a"), ("val", "b")]),
     "of one split are in .*all/val', inside those of another split in '.*all'"),
    (each(yolo, "txt", annotations="{}/l", pictures="{}/p", splits=[("x", "a"), ("y", "b")]),
     "more than one set of YOLO labels")])
def test_what_cannot_be_found_is_one_line(tmp_path, write, text):
    write(str(tmp_path))
    with pytest.raises(DataError, match=text) as error:
        options_of(f"--data={tmp_path}")
    assert "\n" not in str(error.value)


def test_a_path_that_is_not_there():
    with pytest.raises(DataError, match="data 'no/such' is neither a folder nor a file"):
        options_of("--data=no/such")


# --- beside other options

def test_an_old_option_that_says_something_else_is_an_error(tmp_path):
    FORMS["voc tree"].write(str(tmp_path))
    for typed in ("--voc_root=elsewhere", "--coco_root=x", "--image_dir=y", "--val_anno_path=z"):
        with pytest.raises(OptionError, match=f"the same as --dataset=voc --voc_root=.*, but {typed} is given too"):
            options_of(f"--data={tmp_path}", typed)
    with pytest.raises(OptionError, match="a VOC tree with lists, that is --dataset=voc, but --dataset=other is given"):
        options_of(f"--data={tmp_path}", "--dataset=other")
    options, _ = options_of(f"--data={tmp_path}", "--dataset=voc", f"--voc_root={tmp_path}/",
                            "--train_data_type=trainval")
    assert (options.voc_root, options.train_data_type, options.val_share) == (str(tmp_path), "trainval", 0)
    assert "train_data_type" in options.typed and "voc_root" in options.typed


def test_a_recipe_says_nothing_about_where_data_is_but_keeps_its_own_classes(tmp_path):
    FORMS["coco tree"].write(str(tmp_path / "data"))
    put(tmp_path, "recipe.yaml", "dataset: voc\ntrain_data_type: trainval\nvoc_root: x\nclasses: [voc]\nlr: 0.5\n")
    options, line = options_of(f"--config_path={tmp_path}/recipe.yaml", f"--data={tmp_path}/data")
    assert (options.dataset, options.train_data_type, options.voc_root, options.lr) == ("coco", "", "", 0.5)
    assert options.classes == [] and "--classes=[]" in line
    put(tmp_path, "recipe.yaml", f"data: {tmp_path}/data\nclasses: [dog]\n")
    options, line = options_of(f"--config_path={tmp_path}/recipe.yaml")
    assert options.classes == ["dog"] and options.coco_root == f"{tmp_path}/data"
    options, line = options_of(f"--config_path={tmp_path}/recipe.yaml", "--coco_root=mine")
    assert (options.coco_root, line) == ("mine", "")


def test_a_share_and_a_place_of_validation_are_an_error():
    with pytest.raises(OptionError, match="val_share=0.5 takes .*, --val_anno_path says"):
        read_options(["--val_share=0.5", "--val_anno_path=x"])


def test_evaluation_takes_the_share_of_the_run_for_the_same_data_alone(tmp_path):
    FORMS["voc beside the images"].write(str(tmp_path / "data"))
    FORMS["voc beside the images"].write(str(tmp_path / "other"))
    trained, _ = options_of(f"--data={tmp_path}/data", "--val_share=0.4", "--split_seed=5")
    os.makedirs(tmp_path / "run/ckpt")
    from src.config import save_options
    save_options(trained, str(tmp_path / "run/config.yaml"))

    def evaluated(*typed):
        options, _ = take_data(read_options([f"--checkpoint_file_path={tmp_path}/run/ckpt/a.ckpt", *typed], "eval.py"),
                               identify)
        options, _ = take_run_data(options)
        return options.anno_path, options.val_share, options.split_seed
    assert evaluated() == evaluated(f"--data={tmp_path}/data") == (f"{tmp_path}/data", 0.4, 5)
    assert evaluated(f"--data={tmp_path}/other") == (f"{tmp_path}/other", 0.2, 1)
    assert evaluated(f"--data={tmp_path}/data", "--val_share=1") == (f"{tmp_path}/data", 1.0, 5)


# --- the split that is made

def test_further_photos_change_nothing_for_those_that_are_there():
    names = [f"{number}.jpg" for number in range(1000)]
    chosen = choose_validation(names, 0.2, 1)
    assert 150 < len(chosen) < 250 and choose_validation(names[::-1], 0.2, 1) == chosen
    assert choose_validation([*names, *(f"new{number}.jpg" for number in range(500))], 0.2, 1) & {*names} == chosen
    assert choose_validation(names[:500], 0.2, 1) == chosen & {*names[:500]}
    assert chosen < choose_validation(names, 0.3, 1), "a larger share only adds"
    assert choose_validation(names, 0.2, 2) != chosen


def test_each_part_gets_an_image_and_copies_stay_together():
    for names in (["a", "b"], ["a", "b", "c"]):
        assert len(choose_validation(names, 1e-6, 1)) == 1
        assert len(choose_validation(names, 0.999999, 1)) == len(names) - 1
    assert choose_validation(["a"], 0.5, 1) in (set(), {"a"}) and choose_validation([], 0.5, 1) == set()
    assert choose_validation(["a", "b"], 1, 1) == {"a", "b"}
    names = [f"{photo}_jpg.rf.{copy}.jpg" for photo in range(50) for copy in range(3)]
    chosen = choose_validation(names, 0.4, 1)
    assert chosen and all(len({name.split("_")[0] for name in chosen} & {str(photo)}) * 3 ==
                          sum(name.startswith(f"{photo}_") for name in chosen) for photo in range(50))


def test_a_made_split_is_converted_and_written_down(tmp_path):
    FORMS["yolo without a split"].write(str(tmp_path / "data"))
    picture(str(tmp_path / "data/images/negative.png"))
    put(tmp_path, "data/labels/b.txt", yolo("b") + "\n9 0.5 0.5 0.1 0.1\n")
    options, _ = options_of(f"--data={tmp_path}/data", f"--mindrecord_dir={tmp_path}/mr")
    said = []
    splits = {name: prepare_split(**split_options(options, name), classes=CLASSES, log=said.append)
              for name in ("train", "val")}
    listed = {name: open(f"{split.folder}/images.txt").read().split() for name, split in splits.items()}
    assert sorted(listed["train"] + listed["val"]) == sorted(f"{stem}.png" for stem in [*ALL, "negative"])
    assert {name: split.count for name, split in splits.items()} == {name: len(listed[name]) for name in listed}
    found = {name: split.finding_count for name, split in splits.items()}
    assert found == {name: int("b.png" in listed[name]) for name in listed}, "told for the split of its image alone"
    assert any("images.txt" in line and "0.2 of the images for validation (seed 1)" in line for line in said)
    assert not prepare_split(**split_options(options, "val"), classes=CLASSES, log=said.append).converted
    other, _ = options_of(f"--data={tmp_path}/data", f"--mindrecord_dir={tmp_path}/mr", "--split_seed=4")
    assert prepare_split(**split_options(other, "val"), classes=CLASSES, log=said.append).converted
    picture(str(tmp_path / "data/images/new.png"))
    assert prepare_split(**split_options(options, "train"), classes=CLASSES, log=said.append).converted, "a negative"
