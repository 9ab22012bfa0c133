"""LabelMe JSON files: shapes, names of images, files that cannot be read."""
import math
import os

import pytest
from conftest import found, picture
from data_forms import put

from src.data.annotations import Place, SplitMissing
from src.data.findings import Report, Unusable
from src.data.labelme import extent, labelme_split
from src.errors import DataError

CAT = {"label": "cat", "points": [[10, 5], [30, 15]], "shape_type": "rectangle"}


def read(root, files, classes=()):
    """-> ({stem: boxes as (class, x, y, w, h)}, names, report) of {stem: shapes, or all of the file}."""
    for stem, content in files.items():
        picture(os.path.join(root, f"{stem}.png"))
        content = content if isinstance(content, (str, dict)) else {
            "shapes": content, "imagePath": f"{stem}.png", "imageHeight": 20, "imageWidth": 40}
        put(root, f"{stem}.json", content)
    report = Report()
    records, names, _ = labelme_split("train", Place(anno_path=str(root))).read(classes=list(classes), report=report)
    assert all((record.height, record.width) == (20, 40) for record in records)
    return {os.path.relpath(record.path, root): [(names[box.label - 1], box.pixels) for box in record.boxes]
            for record in records}, names, report


@pytest.mark.parametrize("kind, points, box", [
    ("rectangle", [[30, 5], [10, 15]], (10, 5, 20, 10)), ("polygon", [[3, 4], [9, 1.5], [5, 8]], (3, 1.5, 6, 6.5)),
    ("circle", [[10, 10], [13, 14]], (5, 5, 10, 10)),  # 3 and 4 away: a radius of 5
    ("mask", [[1, 2], [3, 5]], (1, 2, 2, 3)), ("rectangle", [["1", "2"], [3, 4]], (1, 2, 2, 2))])
def test_the_box_around_a_shape(kind, points, box):
    assert extent(kind, points) == pytest.approx(box)


@pytest.mark.parametrize("points", [None, [], [[1, 2]], [[1, 2], [3]], [1, 2, 3], "abc", [[1, "x"], [2, 3]]])
def test_points_that_are_no_shape(points):
    with pytest.raises(Unusable):
        extent("rectangle", points)
    assert all(map(math.isnan, extent("rectangle", [[1, math.nan], [2, 3]])))


def test_images_and_shapes(tmp_path):
    polygon = {"label": "ant", "points": [[1, 1], [5, 1], [5, 9]], "difficult": True}  # an old file: no shape_type
    images, names, report = read(tmp_path, {"a": [CAT, polygon], "b": [], "cam1/c": [CAT]})
    assert names == ["ant", "cat"] and not report.findings
    assert images == {"a.png": [("cat", (10, 5, 20, 10)), ("ant", (1, 1, 4, 8))], "b.png": [],
                      "cam1/c.png": [("cat", (10, 5, 20, 10))]}
    images, _, report = read(tmp_path, {}, ["cat"])
    assert len(images["a.png"]) == 1 and found(report) == [("unknown class", "#2")]


def test_what_is_wrong_is_named_with_file_and_shape(tmp_path):
    shapes = [CAT, {**CAT, "shape_type": "line"}, {**CAT, "points": [[1, 1]]}, {**CAT, "label": " "}, 7,
              {**CAT, "difficult": "perhaps"}]
    images, _, report = read(tmp_path, {"a": shapes, "b": "{", "c": "[]", "d": {"version": 1}})
    assert list(images) == ["a.png"] and len(images["a.png"]) == 2
    assert found(report) == [("box dropped", f"#{number}") for number in (2, 3, 4, 5)] + [
        ("difficult unusable", "#6")] + [("annotation unreadable", None)] * 3
    assert all(finding.file == f"{tmp_path}/a.json" for finding in report.findings[:5])
    assert "a line has no area; draw a rectangle or a polygon" in report.findings[0].reason


def test_the_image_is_named_like_the_file_or_as_it_says(tmp_path):
    def names(path):
        return {"shapes": [CAT], "imagePath": path, "imageHeight": 20, "imageWidth": 40}
    picture(str(tmp_path / "other.png"))
    images, _, report = read(tmp_path, {"a": names("C:\\me\\a.png"), "b": names("a.png")})
    assert list(images) == ["a.png", "b.png"] and found(report) == [("image name unclear", None)]
    assert "imagePath says 'a.png'; 'b.png', named as the annotation file, is taken" in report.findings[0].reason
    put(tmp_path, "c.json", names("../other.png"))
    assert "other.png" in read(tmp_path, {})[0]


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="holds no JSON file"):
        labelme_split("train", Place(anno_path=str(tmp_path)))
    with pytest.raises(DataError, match="--anno_path is empty"):
        labelme_split("train", Place())
    with pytest.raises(SplitMissing, match="--val_anno_path is empty"):
        labelme_split("val", Place(image_dir=str(tmp_path)))
    with pytest.raises(DataError, match="anno_path 'none' is not a folder"):
        labelme_split("train", Place(anno_path="none"))
    put(tmp_path, "a.json", "{}")
    with pytest.raises(DataError, match="has no usable annotation: .*a.json: it has no list 'shapes'"):
        read(tmp_path, {})
