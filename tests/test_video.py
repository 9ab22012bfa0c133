"""Videos that are read as a player shows them and written whole, and names of drawings that never meet."""
import os
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from programs import ROOT, write_video

import predict
from src.errors import DataError, EnvironmentFault
from src.inference import drawings
from src.inference.drawings import VideoWriter, drawing_names, video_path
from src.inference.sources import VideoReader, open_source

# of a tkhd box: the matrix a b u c d v x y w, which turns by so many degrees clockwise (ISO/IEC 14496-12, 8.3.2)
MATRICES = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0), 0: (1, 0, 0, 1)}


def marked_video(path, turn):
    """A video of 48 x 32 pixels whose upper left quarter is red, with a rotation tag."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (48, 32))
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:16, :24] = (0, 0, 255)
    for _ in range(3):
        writer.write(frame)
    writer.release()
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version and flags, times and ids, reserved to volume
    a, b, c, d = (value * 65536 for value in MATRICES[turn])
    struct.pack_into(">9i", data, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def frames(path):
    source = VideoReader(str(path))
    found = [picture.pixels for picture in source]
    return found


@pytest.mark.parametrize("turn, shape, corner", [(0, (32, 48), (8, 12)), (90, (48, 32), (12, 24)),
                                                 (180, (32, 48), (24, 36)), (270, (48, 32), (36, 8))])
def test_a_rotation_tag_is_followed(tmp_path, turn, shape, corner):
    marked_video(tmp_path / "a.mp4", turn)
    found = frames(tmp_path / "a.mp4")
    assert len(found) == 3 and found[0].shape == (*shape, 3)
    red = (found[0][..., 0] > 128) & (found[0][..., 2] < 90)
    rows, columns = np.nonzero(red)
    assert abs(rows.mean() + 0.5 - corner[0]) < 2 and abs(columns.mean() + 0.5 - corner[1]) < 2


@pytest.mark.parametrize("size", [(41, 23), (40, 23), (41, 24), (40, 24)])
def test_sides_are_made_even_and_it_is_told(tmp_path, size):
    drawn = VideoWriter(str(tmp_path / "a.mp4"), 10)
    for _ in range(4):
        drawn.write(np.full((*size[::-1], 3), 200, np.uint8), {})
    drawn.close()
    even = tuple(side + side % 2 for side in size)
    found = frames(tmp_path / "a.mp4")
    assert len(found) == 4 and found[0].shape[1::-1] == even and found[0][-1, -1].min() > 150
    assert len(drawn.notes) == (size != even)
    assert not drawn.notes or f"{size[0]} x {size[1]} pixels are {even[0]} x {even[1]}" in drawn.notes[0]


@pytest.mark.parametrize("rate, written, told", [(10, 10, 0), (100000, 25, 1), (0, 25, 0), (float("nan"), 25, 0),
                                                 (float("inf"), 25, 1), (-3, 25, 0), (29.97, 29.97, 0)])
def test_a_rate_that_no_player_has(tmp_path, rate, written, told):
    drawn = VideoWriter(str(tmp_path / "a.mp4"), rate)
    for _ in range(3):
        drawn.write(np.zeros((16, 16, 3), np.uint8), {})
    drawn.close()
    source = VideoReader(str(tmp_path / "a.mp4"))
    assert source.rate == pytest.approx(written, rel=1e-3) and len(drawn.notes) == told


def test_frames_of_another_size_are_kept(tmp_path):
    drawn = VideoWriter(str(tmp_path / "a.mp4"), 10)
    for side in (16, 32, 17):
        drawn.write(np.zeros((side, side, 3), np.uint8), {})
    drawn.close()
    assert [frame.shape for frame in frames(tmp_path / "a.mp4")] == [(16, 16, 3)] * 3


def test_no_encoder_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(drawings.cv2, "VideoWriter_fourcc", lambda *_: 0)
    drawn = VideoWriter(str(tmp_path / "a.none"), 10)
    with pytest.raises(EnvironmentFault, match="no MPEG-4 encoder"):
        drawn.write(np.zeros((16, 16, 3), np.uint8), {})


def test_a_file_that_lacks_frames_is_an_error(tmp_path):
    drawn = VideoWriter(str(tmp_path / "a.mp4"), 10)
    for _ in range(3):
        drawn.write(np.zeros((16, 16, 3), np.uint8), {})
    drawn.count += 1
    with pytest.raises(EnvironmentFault, match="does not hold all 4 frames"):
        drawn.close()


def test_nothing_is_written_without_frames(tmp_path):
    VideoWriter(str(tmp_path / "a.mp4"), 10).close()
    assert os.listdir(tmp_path) == []


def test_what_is_no_video(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(DataError, match="nor a video that opens"):
        VideoReader(str(tmp_path / "a.mp4"))
    with pytest.raises(DataError, match="no such camera"):
        VideoReader("99")


def test_names_of_drawn_videos():
    assert video_path("0", "out") == os.path.join("out", "camera0.mp4")
    assert video_path("in/a.b.mov", "out") == os.path.join("out", "a.b.mp4")


def test_an_interrupted_video_is_whole_up_to_there(tmp_path):
    write_video(tmp_path / "in.mp4", 6)
    (tmp_path / "out").mkdir()
    calls = iter(range(4))

    def detect(_):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)
    source = open_source(str(tmp_path / "in.mp4"))
    writer = drawings.open_drawings(source, str(tmp_path / "out"))
    predictor = SimpleNamespace(detect=detect, classes=[])
    rows, interrupted = predict.predict_pictures(predictor, source, writer, draw_score=0.5)
    assert interrupted and [row["frame"] for row in rows] == [0, 1, 2, 3]
    assert len(frames(tmp_path / "out" / "in.mp4")) == 4


# --- pictures

@pytest.mark.parametrize("names, drawings", [
    (["a.jpg", "b.jpg"], ["a.png", "b.png"]),
    (["a.jpg", "a.png", "b.jpg"], ["a.jpg.png", "a.png.png", "b.png"]),
    (["a.jpg", "a.jpg.jpg"], ["a.png", "a.jpg.png"]),
    (["a.jpg", "a.jpg.jpg", "a.png"], ["a.jpg_2.png", "a.jpg.png", "a.png.png"]),
    (["a.jpg", "A.jpg"], ["a.jpg.png", "A.jpg_2.png"]),
    (["a.jpg", "A.png"], ["a.jpg.png", "A.png.png"]),
    (["stra\u00dfe.jpg", "STRASSE.jpg"], ["stra\u00dfe.jpg.png", "STRASSE.jpg_2.png"]),
    (["\u00fc.jpg", "u\u0308.jpg"], ["\u00fc.jpg.png", "u\u0308.jpg_2.png"]),
])
def test_no_two_drawings_have_one_name(names, drawings):
    found = drawing_names([os.path.join("in", name) for name in names])
    assert [found[os.path.join("in", name)] for name in names] == drawings


def test_the_page_names_all_that_is_written():
    """docs/outputs.md has every key of the files."""
    from src.metrics import COCO_NAMES, VOC_MEANINGS, describe_evaluation
    with open(os.path.join(ROOT, "docs", "outputs.md"), encoding="utf-8") as file:
        page = file.read()
    meta = dict.fromkeys(("model", "min_score", "nms_threshold", "nms_candidates", "max_boxes", "resize"))
    keys = {"image_id", "category_id", "bbox", "score", "file", "frame", "drawing", "objects", "class", "box",
            "thresholds", "draw_score", "per_class", "boxes", "evaluation", "AP_11point", "AP_area", *COCO_NAMES,
            *VOC_MEANINGS, *describe_evaluation("coco", split_name="", images=0, meta=meta)}
    assert [key for key in keys if f"`{key}`" not in page and f'"{key}"' not in page] == []
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        assert "docs/outputs.md" in file.read()
