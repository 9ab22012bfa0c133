"""One tiny data set in every form that --data knows: what tests write, and what they expect to be found."""
import json
import os
from typing import NamedTuple

from annotation_files import BNDBOX
from conftest import picture

WIDTH, HEIGHT = 40, 20
CLASSES = ["cat", "dog"]  # sorted, and in the order of the class numbers
# image: its boxes as class, x1, y1, x2, y2 in pixels; numbers that fractions of 40 and 20 hold exactly
TRUTH = {"a": [("cat", 5, 5, 15, 15)], "b": [("dog", 0, 0, 40, 20), ("cat", 10, 5, 20, 10)],
         "c": [("dog", 30, 5, 40, 15)], "d": [("cat", 5, 0, 10, 20)], "e": [("dog", 20, 10, 30, 15)]}
TRAIN, VAL, ALL = "abc", "de", "abcde"


class Form(NamedTuple):
    """A form of annotations, written by `write` into a folder."""
    write: object   # function of that folder
    dataset: str
    options: dict   # those that --data stands for; ROOT is the folder
    has_val: bool = True


def put(root, path, text):
    """Writes a file below root."""
    path = os.path.join(root, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text if isinstance(text, str) else json.dumps(text))


def images(root, folder, stems, ending="png"):
    for stem in stems:
        picture(os.path.join(root, folder, f"{stem}.{ending}"), HEIGHT, WIDTH)


def coco(stems, name="{}.png", key=int):
    """key: how ids are written; VIA writes texts."""
    ids = {stem: number for number, stem in enumerate(stems, 1)}
    boxes = [(stem, *box) for stem in stems for box in TRUTH[stem]]
    return {"images": [{"id": ids[stem], "file_name": name.format(stem), "width": WIDTH, "height": HEIGHT}
                       for stem in stems],
            "annotations": [{"id": number, "image_id": key(ids[stem]), "category_id": CLASSES.index(label) + 1,
                             "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
                            for number, (stem, label, x1, y1, x2, y2) in enumerate(boxes, 1)],
            "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]}


def voc(stem):
    objects = "".join(f"<object><name>{label}</name>{BNDBOX.format(*box)}</object>" for label, *box in TRUTH[stem])
    return f"<annotation><filename>{stem}.png</filename>{objects}</annotation>"


def yolo(stem):
    return "\n".join(f"{CLASSES.index(label)} {(x1 + x2) / 2 / WIDTH} {(y1 + y2) / 2 / HEIGHT} {(x2 - x1) / WIDTH} "
                     f"{(y2 - y1) / HEIGHT}" for label, x1, y1, x2, y2 in TRUTH[stem])


def labelme(stem):
    shapes = [{"label": label, "points": [[x2, y1], [x1, y2]], "shape_type": "rectangle", "flags": {}}
              for label, x1, y1, x2, y2 in TRUTH[stem]]
    return {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"..\\{stem}.png", "imageData": None,
            "imageHeight": HEIGHT, "imageWidth": WIDTH}


def txt(stems, name="{}.png"):
    return "".join(" ".join([name.format(stem), *(f"{','.join(map(str, box))},{label}" for label, *box in TRUTH[stem])])
                   + "\n" for stem in stems)


# --- the forms: each writes images and annotations

def each(of, ending, *, annotations="{}", pictures="{}", splits=(("train", TRAIN), ("val", VAL)), more=()):
    """A writer of one file an image, `of`(stem). annotations, pictures: folders, {} is the split; more: path, text."""
    def write(root):
        for split, stems in splits:
            images(root, pictures.format(split), stems)
            for stem in stems:
                put(root, os.path.join(annotations.format(split), f"{stem}.{ending}"), of(stem))
        for path, text in more:
            put(root, path, text)
    return write


def whole(of, path, *, pictures="{}", splits=(("train", TRAIN), ("val", VAL)), **how):
    """A writer of one file a split, `of`(stems). path, pictures: {} is the split."""
    def write(root):
        for split, stems in splits:
            images(root, pictures.format(split), stems)
            put(root, path.format(split), of(stems, **how))
    return write


def voc_lists(lists):
    """VOC's tree with lists: {name: stems}."""
    more = [(f"ImageSets/Main/{name}.txt", "\n".join(stems)) for name, stems in lists.items()]
    return each(voc, "xml", annotations="Annotations", pictures="JPEGImages", splits=[("", ALL)], more=more)


ONE = [("", ALL)]
CAMERAS = [("cam1", TRAIN), ("cam2", VAL)]  # folders that are no splits
ROBOFLOW = [("train", TRAIN), ("valid", VAL)]
DATA_YAML = "train: {}\nval: {}\nnc: 2\nnames: [cat, dog]\n"
NAMES = ("classes.txt", "cat\ndog\n")
FOLDERS = {"anno_path": "ROOT/train", "image_dir": "ROOT/train", "val_anno_path": "ROOT/val",
           "val_image_dir": "ROOT/val"}


def two(*places):
    """The options of two splits: annotations and images of training, then of validation."""
    names = ("anno_path", "image_dir", "val_anno_path", "val_image_dir")
    return {name: f"ROOT/{place}" if place else "ROOT" for name, place in zip(names, places) if place is not None}


FORMS = {
    "coco tree": Form(
        whole(coco, "annotations/instances_{}2017.json", pictures="{}2017"), "coco", {"coco_root": "ROOT"}),
    "coco tree of other names": Form(
        whole(coco, "annotations/instances_{}.json", pictures="{}"), "coco",
        {"coco_root": "ROOT", "train_data_type": "train", "val_data_type": "val"}),
    "coco tree in a folder": Form(
        whole(coco, "my/annotations/instances_{}2017.json", pictures="my/{}2017"), "coco", {"coco_root": "ROOT/my"}),
    "one json, images beside it": Form(
        whole(coco, "boxes.json", pictures="", splits=ONE), "coco", two("boxes.json", ""), False),
    "one json, images in a folder": Form(
        whole(coco, "labels.json", pictures="data", splits=ONE), "coco", two("labels.json", "data"), False),
    "roboflow coco": Form(whole(coco, "{}/_annotations.coco.json", splits=ROBOFLOW), "coco",
                          two("train/_annotations.coco.json", "train", "valid/_annotations.coco.json", "valid")),
    "cvat coco": Form(whole(coco, "annotations/instances_default.json", pictures="images", splits=ONE), "coco",
                      two("annotations/instances_default.json", "images"), False),
    "cvat coco of two subsets": Form(
        whole(coco, "annotations/instances_{}.json", pictures="images/{}"), "coco",
        two("annotations/instances_train.json", "images/train", "annotations/instances_val.json", "images/val")),
    "label studio coco": Form(
        whole(coco, "result.json", pictures="images", splits=ONE, name="images\\{}.png"), "coco",
        two("result.json", ""), False),
    "via coco": Form(whole(coco, "via_project_coco.json", pictures="pictures", splits=ONE, key=str), "coco",
                     two("via_project_coco.json", "pictures"), False),
    "voc tree": Form(voc_lists({"train": TRAIN, "val": VAL, "trainval": ALL}), "voc", {"voc_root": "ROOT"}),
    "voc tree of trainval and test": Form(
        voc_lists({"trainval": TRAIN, "test": VAL}), "voc", {"voc_root": "ROOT", "train_data_type": "trainval"}),
    "voc tree of one list": Form(
        voc_lists({"default": ALL}), "voc", {"voc_root": "ROOT", "train_data_type": "default"}, False),
    "voc without lists": Form(each(voc, "xml", annotations="annotations", pictures="images", splits=ONE), "voc",
                              two("annotations", "images"), False),
    "voc of the model zoo": Form(
        each(voc, "xml", annotations="{}/Annotations", pictures="{}/Images", splits=[("train", TRAIN), ("eval", VAL)]),
        "voc", two("train/Annotations", "train/Images", "eval/Annotations", "eval/Images")),
    "voc beside the images": Form(each(voc, "xml", splits=ONE), "voc", two("", ""), False),
    "voc in folders": Form(
        each(voc, "xml", annotations="Annotations/{}", pictures="JPEGImages/{}", splits=CAMERAS), "voc",
        two("Annotations", "JPEGImages"), False),
    "voc, train and val": Form(each(voc, "xml"), "voc", FOLDERS),
    "yolo with data.yaml": Form(
        each(yolo, "txt", annotations="{}/labels", pictures="{}/images", splits=ROBOFLOW,
             more=[("data.yaml", DATA_YAML.format("../train/images", "../valid/images")), ("README.txt", "0")]),
        "yolo", {"anno_path": "ROOT/data.yaml", "val_anno_path": "ROOT/data.yaml"}),
    "yolo with data.yaml and path": Form(
        each(yolo, "txt", annotations="labels/{}", pictures="images/{}",
             more=[("coco8.yaml", "path: ../datasets/coco8\ntrain: images/train\nval: images/val\n"
                                  "names:\n  0: cat\n  1: dog\n")]),
        "yolo", {"anno_path": "ROOT/coco8.yaml", "val_anno_path": "ROOT/coco8.yaml"}),
    "yolo with data.yaml and lists": Form(
        each(yolo, "txt", annotations="labels", pictures="images", splits=ONE,
             more=[("data.yaml", DATA_YAML.format("train.txt", "val.txt")),
                   ("train.txt", "./images/a.png\nimages/b.png\nimages/c.png\n"),
                   ("val.txt", "images/d.png\nimages/e.png\n")]),
        "yolo", {"anno_path": "ROOT/data.yaml", "val_anno_path": "ROOT/data.yaml"}),
    "yolo of cvat": Form(
        each(yolo, "txt", annotations="labels/{}", pictures="images/{}",
             more=[("data.yaml", "path: ./\ntrain: train.txt\nval: val.txt\nnames:\n  0: cat\n  1: dog\n"),
                   ("train.txt", "".join(f"data/images/train/{stem}.png\n" for stem in TRAIN)),
                   ("val.txt", "".join(f"data/images/val/{stem}.png\n" for stem in VAL))]),
        "yolo", {"anno_path": "ROOT/data.yaml", "val_anno_path": "ROOT/data.yaml"}),
    "yolo with the data.yaml of another machine": Form(
        each(yolo, "txt", annotations="labels/{}", pictures="images/{}",
             more=[("mine.yaml", "train: /home/me/x/train\nval: /home/me/x/val\nnames: [cat, dog]\n")]), "yolo",
        two(None, "images/train", None, "images/val")),
    "yolo without data.yaml": Form(
        each(yolo, "txt", annotations="labels/{}", pictures="images/{}", more=[NAMES]), "yolo",
        two(None, "images/train", None, "images/val")),
    "yolo without a split": Form(
        each(yolo, "txt", annotations="labels", pictures="images", splits=ONE, more=[NAMES]), "yolo",
        two(None, "images"), False),
    "yolo in folders": Form(
        each(yolo, "txt", annotations="labels/{}", pictures="images/{}", splits=CAMERAS, more=[NAMES]), "yolo",
        two(None, "images"), False),
    "yolo in folders with images/ and labels/": Form(
        each(yolo, "txt", annotations="{}/labels", pictures="{}/images", splits=CAMERAS, more=[NAMES]), "yolo",
        two(None, ""), False),
    "yolo beside the images": Form(
        each(yolo, "txt", annotations="obj_train_data", pictures="obj_train_data", splits=ONE,
             more=[("obj.names", "cat\ndog"), ("obj.data", "classes = 2"), ("train.txt", "data/obj_train_data/a.png")]),
        "yolo", two(None, "obj_train_data"), False),
    "yolo in folders of other names": Form(
        each(yolo, "txt", annotations="boxes", pictures="pictures", splits=ONE, more=[("boxes/classes.txt", NAMES[1])]),
        "yolo", two("boxes", "pictures"), False),
    "txt": Form(whole(txt, "{}.txt", pictures="images"), "other", two("train.txt", "images", "val.txt", "images")),
    "txt, one file": Form(
        whole(txt, "boxes.txt", pictures="img", splits=ONE, name="img/{}.png"), "other", two("boxes.txt", ""), False),
    "labelme": Form(each(labelme, "json", splits=ONE), "labelme", two("", ""), False),
    "labelme, train and val": Form(each(labelme, "json"), "labelme", FOLDERS),
    "labelme, images apart": Form(each(labelme, "json", annotations="json", pictures="img", splits=ONE), "labelme",
                                  two("json", "img"), False),
}
