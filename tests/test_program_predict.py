"""predict.py on pictures, folders and videos."""
import os
import re
import signal

import cv2
import numpy as np
import pytest
from programs import CLASSES, interrupt, read_json, run, succeed, write_video

# --- prediction

def predict(place, exported, source, out, *more):
    """Runs predict.py and returns its output and predictions.json by file name."""
    text = succeed(place, "predict.py", f"--checkpoint_file_path={exported.path}", f"--source={source}",
                   f"--output_path={out}", *more)
    return text, {os.path.basename(row["file"]): row["objects"] for row in read_json(out, "predictions.json")}


def test_prediction_on_one_picture(place, exported, tmp_path):
    source = place.coco / "val2017" / "000001.jpg"
    text, found = predict(place, exported, source, tmp_path / "out", "--draw_score=0.01")
    assert sorted(os.listdir(tmp_path / "out")) == ["000001.png", "detections.json", "predictions.json"]
    height, width = cv2.imread(str(source)).shape[:2]
    assert len(found["000001.jpg"]) > 0 and f"{len(found['000001.jpg'])} object(s)" in text
    for one in found["000001.jpg"]:
        x1, y1, x2, y2 = one["box"]
        assert one["class"] in CLASSES and 0.01 <= one["score"] <= 1
        assert 0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height
    assert cv2.imread(str(tmp_path / "out" / "000001.png")).shape[:2] == (height, width)
    row, = read_json(tmp_path, "out", "predictions.json")
    assert row["drawing"] == "000001.png" and row["image_id"] == 1
    results = read_json(tmp_path, "out", "detections.json")
    assert [CLASSES[result["category_id"] - 1] for result in results] == [one["class"] for one in row["objects"]]
    assert row["thresholds"] == {"draw_score": 0.01, "min_score": 0.01, "nms_threshold": 0.6, "max_boxes": 100}


def test_prediction_on_a_folder_goes_on_after_a_broken_picture(place, exported, tmp_path):
    source = tmp_path / "pictures"
    source.mkdir()
    data = [(place.coco / "val2017" / f"00000{number}.jpg").read_bytes() for number in (1, 2, 3)]
    for name, content in (("a.jpg", data[0]), ("a.jpeg", data[1]), ("broken one.jpg", data[2][:2000]),
                          ("größe 1.JPG", data[2]), ("notes.txt", b"no picture")):
        (source / name).write_bytes(content)
    (source / "deeper" / ".hidden").mkdir(parents=True)
    (source / "deeper" / "a.jpg").write_bytes(data[1])
    (source / "deeper" / ".hidden" / "b.jpg").write_bytes(data[1])
    out = source / "found"  # inside of the source: what an earlier run left is no picture of it
    for _ in range(2):
        done = run(place, "predict.py", f"--checkpoint_file_path={exported.path}", f"--source={source}",
                   f"--output_path={out}")
        assert done.returncode == 3 and "left out: " in done.stdout and "in 4 picture(s)" in done.stdout
        assert done.stderr.startswith("error: 1 of 5 file(s) cannot be read or are damaged, see 'left out'")
        assert "broken one.jpg" in done.stdout and done.stderr.count("\n") == 1
        # two pictures of the same stem keep both drawings
        assert [row["drawing"] for row in read_json(out, "predictions.json")] == \
            ["a.jpeg.png", "a.jpg.png", "größe 1.png", "deeper/a.png"]
        assert sorted(os.listdir(out)) == ["a.jpeg.png", "a.jpg.png", "deeper", "detections.json", "größe 1.png",
                                           "predictions.json"]


def test_prediction_of_some_classes_in_tiles(place, exported, tmp_path):
    source = place.coco / "val2017"
    text, found = predict(place, exported, source, tmp_path / "out", "--save=csv,yolo", "--only_classes=star,circle",
                          "--score_threshold=0.02,star:0.5", "--tiles=2x1")
    assert sorted(os.listdir(tmp_path / "out")) == ["predictions.csv", "predictions.json", "yolo"]
    assert len(found) == 7 and len(os.listdir(tmp_path / "out" / "yolo" / "labels")) == 7
    objects = [one for objects in found.values() for one in objects]
    assert {one["class"] for one in objects} <= {"star", "circle"}
    assert all(one["score"] >= (0.5 if one["class"] == "star" else 0.02) for one in objects)
    assert f"{len(objects)} object(s) with at least the score of their class (0.02 to 0.5) in 7 picture(s)" in text
    for option, words in (("only_classes=sta", "did you mean 'star'"), ("tiles=2", "such as 2x2"),
                          ("save=coco,Yolo", "did you mean yolo"), ("score_threshold=x:1", "'x' is not a class")):
        done = run(place, "predict.py", f"--checkpoint_file_path={exported.path}", f"--source={source}",
                   f"--output_path={tmp_path / 'no'}", f"--{option}")
        assert done.returncode == 2 and words in done.stderr and not os.path.exists(tmp_path / "no")


def test_prediction_spares_its_source(place, exported):
    done = run(place, "predict.py", f"--checkpoint_file_path={exported.path}", f"--source={place.coco}/val2017",
               f"--output_path={place.coco}/val2017/.")
    assert done.returncode == 2 and "folder of the source" in done.stderr
    assert len(os.listdir(place.coco / "val2017")) == 7


def test_prediction_on_videos_and_pictures(place, exported, tmp_path):
    (tmp_path / "in" / "b").mkdir(parents=True)
    write_video(tmp_path / "in" / "b" / "video.mp4", 5)
    write_video(tmp_path / "in" / "a.avi", 3)
    cv2.imwrite(str(tmp_path / "in" / "c.png"), np.zeros((30, 50, 3), np.uint8))
    (tmp_path / "in" / "list.txt").write_text("b/video.mp4\n\nc.png\nb/../a.avi\n")
    out = tmp_path / "out"
    text = succeed(place, "predict.py", f"--checkpoint_file_path={exported.path}", f"--output_path={out}",
                   f"--source={tmp_path / 'in' / 'list.txt'}")
    rows = read_json(out, "predictions.json")
    assert "in 9 picture(s)" in text and [os.path.basename(row["file"]) for row in rows] == \
        ["video.mp4"] * 5 + ["c.png"] + ["a.avi"] * 3
    assert [row.get("frame") for row in rows] == [0, 1, 2, 3, 4, None, 0, 1, 2]
    assert rows[4]["time"] == 0.4 and rows[5]["drawing"] == "c.png" and "drawing" not in rows[0]
    for name, count in (("b/video.mp4", 5), ("a.mp4", 3)):
        assert cv2.VideoCapture(str(out / name)).get(cv2.CAP_PROP_FRAME_COUNT) == count
    text = succeed(place, "predict.py", f"--checkpoint_file_path={exported.path}", f"--output_path={out}",
                   f"--source={tmp_path / 'in' / '**' / '*.mp4'}")
    assert "in 5 picture(s)" in text


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_video_is_kept_so_far(place, exported, tmp_path, number):
    write_video(tmp_path / "clip.mp4", 5000)
    code, errors = interrupt(place, "predicting: ", "predict.py", f"--checkpoint_file_path={exported.path}",
                             f"--source={tmp_path / 'clip.mp4'}", f"--output_path={tmp_path / 'out'}", number=number)
    assert code == 130 and re.fullmatch(r"error: interrupted before the end of '.*clip.mp4': .*\n", errors)
    frames = len(read_json(tmp_path, "out", "predictions.json"))
    assert 50 <= frames < 5000 and sorted(os.listdir(tmp_path / "out")) == \
        ["clip.mp4", "detections.json", "predictions.json"]
    assert cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == frames
