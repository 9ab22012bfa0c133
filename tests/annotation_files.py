"""COCO files and VOC trees that tests write, and what the readers make of them."""
import json
import os

from src.data.coco import read_coco
from src.data.findings import Report
from src.data.voc import read_voc


def put(root, path, content):
    """Writes a file below root: a text as it is, anything else as JSON."""
    path = os.path.join(root, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(content if isinstance(content, str) else json.dumps(content))


# --- COCO

IMAGES = [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80},
          {"id": 2, "file_name": "b.jpg", "width": 100, "height": 80}]
BOX = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 38]}
NAMES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def coco_read(tmp_path, annotations=(BOX,), images=IMAGES, categories=NAMES, classes=()):
    """read_coco on a file with this content -> records, class names, their ids, report."""
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": list(annotations), "categories": categories}))
    report = Report()
    return *read_coco(str(path), str(tmp_path), classes=list(classes), report=report), report


def boxes_by_image(records):
    """{file name: [(class name, pixels)]}."""
    return {record.source: [(box.name, box.pixels) for box in record.boxes] for record in records}


# --- VOC

BNDBOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
CAT = f"<object><name>cat</name>{BNDBOX.format(1, 2, 11, 22)}</object>"


def voc_tree(tmp_path, files, *, images=None, listed=None):
    """A VOC tree of {stem: inside of <annotation>, or all of the file as bytes}; images None: a.jpg for each stem a."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        os.makedirs(tmp_path / folder, exist_ok=True)
    for stem, text in files.items():
        path = tmp_path / "Annotations" / f"{stem}.xml"
        os.makedirs(path.parent, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else f"<annotation>{text}</annotation>".encode())
    for name in images or [f"{stem}.jpg" for stem in files]:
        os.makedirs((tmp_path / "JPEGImages" / name).parent, exist_ok=True)
        (tmp_path / "JPEGImages" / name).write_bytes(b"")
    (tmp_path / "ImageSets/Main/train.txt").write_text(listed or "\n".join(files))
    return str(tmp_path)


def voc_read(root, classes=()):
    """-> ({image: its boxes as (name, pixels)}, report); images relative to JPEGImages."""
    report = Report()
    records, names, _ = read_voc(root, "train", classes=list(classes), report=report)
    base = os.path.join(root, "JPEGImages")
    return {os.path.relpath(record.path, base): [(names[box.label - 1], box.pixels) for box in record.boxes]
            for record in records}, report


# --- one data set in all forms

def write_all_forms(folder, images, image_dir):
    """The same annotations in each form of --dataset -> {name of the form: the options that name it}.

    images: [(file name, width, height, [(class, x1, y1, x2, y2)])]; image_dir: where they lie, a JPEGImages whose
    parent becomes the VOC tree unless it has Annotations. The category ids run against the order of the names.
    """
    names = sorted({name for *_, boxes in images for name, *_ in boxes})
    ids = {name: 10 * (len(names) - index) for index, name in enumerate(names)}
    root = os.path.dirname(image_dir)
    if not os.path.exists(os.path.join(root, "Annotations")):
        os.makedirs(os.path.join(root, "ImageSets", "Main"))
        os.makedirs(os.path.join(root, "Annotations"))
        for name, width, height, boxes in images:
            size = f"<size><width>{width}</width><height>{height}</height></size>"
            objects = "".join(f"<object><name>{label}</name>{BNDBOX.format(*box)}</object>" for label, *box in boxes)
            with open(os.path.join(root, "Annotations", f"{os.path.splitext(name)[0]}.xml"), "w") as file:
                file.write(f"<annotation>{size}{objects}</annotation>")
        with open(os.path.join(root, "ImageSets", "Main", "train.txt"), "w") as file:
            file.write("\n".join(os.path.splitext(name)[0] for name, *_ in images))
    lines = [" ".join([name, *(",".join(map(str, [*box, label])) for label, *box in boxes)])
             for name, _, _, boxes in images]
    (folder / "train.txt").write_text("\n".join(lines))
    written = [(number, label, box) for number, (*_, boxes) in enumerate(images, 1) for label, *box in boxes]
    coco = {"images": [{"id": number, "file_name": name, "width": width, "height": height}
                       for number, (name, width, height, _) in enumerate(images, 1)],
            "annotations": [{"id": number, "image_id": image, "category_id": ids[label], "iscrowd": 0,
                             "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
                            for number, (image, label, (x1, y1, x2, y2)) in enumerate(written, 1)],
            "categories": [{"id": number, "name": name} for name, number in ids.items()]}
    (folder / "train.json").write_text(json.dumps(coco))
    names = [label for label, _ in sorted(ids.items(), key=lambda item: item[1])]
    for name, width, height, boxes in images:
        stem = os.path.splitext(name)[0]
        shapes = [{"label": label, "points": [[x2, y1], [x1, y2]], "shape_type": "rectangle"}
                  for label, x1, y1, x2, y2 in boxes]
        put(folder, f"json/{stem}.json", {"imagePath": name, "imageHeight": height, "imageWidth": width,
                                          "shapes": shapes})
        put(folder, f"yolo/labels/{stem}.txt", "\n".join(
            f"{names.index(label)} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} "
            f"{(y2 - y1) / height}" for label, x1, y1, x2, y2 in boxes))
        os.makedirs(folder / "yolo/images", exist_ok=True)  # every image there is one of the split
        os.symlink(os.path.join(image_dir, name), folder / "yolo/images" / name)
    put(folder, "yolo/classes.txt", "\n".join(names))
    return {"voc": ["--dataset=voc", f"--voc_root={root}"],
            "other": ["--dataset=other", f"--image_dir={image_dir}", f"--anno_path={folder / 'train.txt'}"],
            "coco": ["--dataset=coco", f"--image_dir={image_dir}", f"--anno_path={folder / 'train.json'}"],
            "yolo": ["--dataset=yolo", f"--image_dir={folder / 'yolo/images'}"],
            "labelme": ["--dataset=labelme", f"--image_dir={image_dir}", f"--anno_path={folder / 'json'}"]}
