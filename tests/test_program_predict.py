"""predict.py on pictures, folders and videos."""
import os

import cv2
import pytest
from programs import CLASSES, read_json, run, succeed, write_video

# --- prediction

def predict(place, exported, source, out, *more):
    """Runs predict.py and returns its output and predictions.json by file name."""
    text = succeed(place, "predict.py", f"--checkpoint_file_path={exported.path}", f"--source={source}",
                   f"--output_path={out}", *more)
    return text, {os.path.basename(row["file"]): row["objects"] for row in read_json(out, "predictions.json")}


def test_prediction_on_one_picture(place, exported, tmp_path):
    source = place.coco / "val2017" / "000001.jpg"
    text, found = predict(place, exported, source, tmp_path / "out", "--draw_score=0.01")
    assert sorted(os.listdir(tmp_path / "out")) == ["000001.png", "predictions.json"]
    height, width = cv2.imread(str(source)).shape[:2]
    assert len(found["000001.jpg"]) > 0 and f"{len(found['000001.jpg'])} object(s)" in text
    for one in found["000001.jpg"]:
        x1, y1, x2, y2 = one["box"]
        assert one["class"] in CLASSES and 0.01 <= one["score"] <= 1
        assert 0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height
    assert cv2.imread(str(tmp_path / "out" / "000001.png")).shape[:2] == (height, width)
    row, = read_json(tmp_path, "out", "predictions.json")
    assert row["drawing"] == "000001.png"
    assert row["thresholds"] == {"draw_score": 0.01, "min_score": 0.01, "nms_threshold": 0.6, "max_boxes": 100}


def test_prediction_on_a_folder_goes_on_after_a_broken_picture(place, exported, tmp_path):
    source = tmp_path / "pictures"
    source.mkdir()
    data = [(place.coco / "val2017" / f"00000{number}.jpg").read_bytes() for number in (1, 2, 3)]
    for name, content in (("a.jpg", data[0]), ("a.jpeg", data[1]), ("broken one.jpg", data[2][:2000]),
                          ("größe 1.JPG", data[2]), ("notes.txt", b"no picture")):
        (source / name).write_bytes(content)
    text, found = predict(place, exported, source, tmp_path / "out")
    assert sorted(found) == ["a.jpeg", "a.jpg", "größe 1.JPG"] and "left out: " in text and "broken one.jpg" in text
    # two pictures of the same stem keep both drawings
    assert sorted(os.listdir(tmp_path / "out")) == ["a.jpeg.png", "a.jpg.png", "größe 1.png", "predictions.json"]


def test_prediction_spares_its_source(place, exported):
    done = run(place, "predict.py", f"--checkpoint_file_path={exported.path}", f"--source={place.coco}/val2017",
               f"--output_path={place.coco}/val2017/.")
    assert done.returncode == 2 and "folder of the source" in done.stderr
    assert len(os.listdir(place.coco / "val2017")) == 7


@pytest.mark.long
def test_prediction_on_a_video(place, exported, tmp_path):
    write_video(tmp_path / "video.mp4", 5)
    succeed(place, "predict.py", f"--checkpoint_file_path={exported.path}", f"--source={tmp_path / 'video.mp4'}",
            f"--output_path={tmp_path / 'out'}")
    assert [row["frame"] for row in read_json(tmp_path, "out", "predictions.json")] == [0, 1, 2, 3, 4]
    assert cv2.VideoCapture(str(tmp_path / "out" / "video.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 5
