"""Videos that are read as a player shows them and written whole, and names of drawings that never meet."""
import os
import struct
import wave
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from programs import ROOT

from src.errors import DataError, EnvironmentFault
from src.inference.outputs import unique_stems
from src.inference.videos import VideoReader, VideoWriter, open_video, plain_url

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
    return [pixels for pixels, _ in VideoReader(str(path))]


def draw(path, drawings, rate=10.0, *, seconds=None, ratio=Fraction(1)):
    """A video of drawings by VideoWriter, which is returned."""
    writer = VideoWriter(str(path), rate, ratio)
    for number, drawing in enumerate(drawings):
        writer.write(drawing, seconds[number] if seconds else number / 10)
    writer.close()
    return writer


def grey(width, height, value=200):
    return np.full((height, width, 3), value, np.uint8)


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
    drawn = draw(tmp_path / "a.mp4", [grey(*size)] * 4)
    even = tuple(side + side % 2 for side in size)
    found = frames(tmp_path / "a.mp4")
    assert len(found) == 4 and found[0].shape[1::-1] == even and found[0][-1, -1].min() > 150
    assert len(drawn.notes) == (size != even)
    assert not drawn.notes or f"{size[0]} x {size[1]} pixels are {even[0]} x {even[1]}" in drawn.notes[0]


def test_a_drawn_video_is_what_browsers_show(tmp_path):
    draw(tmp_path / "a.mp4", [grey(64, 48, 20 * number) for number in range(10)], ratio=Fraction(4, 3))
    with av.open(str(tmp_path / "a.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p") and stream.frames == 10
        assert file.duration == 1_000_000 and stream.sample_aspect_ratio == Fraction(4, 3)
    assert (tmp_path / "a.mp4").read_bytes()[:200].find(b"moov") > 0, "the index is in front"
    assert [abs(int(frame.mean()) - 20 * number) <= 3 for number, frame in enumerate(frames(tmp_path / "a.mp4"))]
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_frames_keep_their_times(tmp_path):
    seconds = [0, 0.1, 0.5, 0.5, 0.4, 2.0]  # two of them at one time, or before the last: as near as it goes
    draw(tmp_path / "a.mp4", [grey(32, 32)] * 6, seconds=seconds)
    found = [second for _, second in VideoReader(str(tmp_path / "a.mp4"))]
    assert found == pytest.approx([0, 0.1, 0.5, 0.5, 0.5, 2.0], abs=1e-4) and sorted(set(found)) == found


@pytest.mark.parametrize("rate, written, told", [(10, 10, 0), (100000, 25, 1), (0, 25, 0), (float("nan"), 25, 0),
                                                 (float("inf"), 25, 1), (-3, 25, 0)])
def test_a_rate_that_no_player_has(tmp_path, rate, written, told):
    drawn = draw(tmp_path / "a.mp4", [grey(16, 16)] * 3, rate, seconds=[0, 1 / written, 2 / written])
    found = VideoReader(str(tmp_path / "a.mp4"))
    assert found.rate == pytest.approx(written, rel=1e-3) and len(drawn.notes) == told
    assert [second for _, second in found] == pytest.approx([0, 1 / written, 2 / written], abs=1e-4)


def test_frames_of_another_size_are_kept(tmp_path):
    draw(tmp_path / "a.mp4", [grey(side, side) for side in (16, 32, 17)])
    assert [frame.shape for frame in frames(tmp_path / "a.mp4")] == [(16, 16, 3)] * 3


def test_a_video_that_cannot_be_written(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    (tmp_path / "a.mp4" / "x").write_text("in the way")
    with pytest.raises(EnvironmentFault, match="a.mp4 cannot be written: Is a directory"):
        draw(tmp_path / "a.mp4", [grey(16, 16)])
    with pytest.raises(EnvironmentFault, match="too much for a video"):
        draw(tmp_path / "b.mp4", [grey(40000, 2)])


def test_nothing_is_written_without_frames(tmp_path):
    draw(tmp_path / "a.mp4", [])
    assert os.listdir(tmp_path) == []


def test_a_video_that_is_cut_short_gives_what_it_has(tmp_path):
    rng = np.random.default_rng(1)
    draw(tmp_path / "a.mp4", [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(40)])
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:len(data) // 2])
    found = []
    with pytest.raises(DataError, match=r"cut.mp4': .*, (\d+) frame\(s\) were read"):
        found.extend(VideoReader(str(tmp_path / "cut.mp4")))
    assert 5 < len(found) < 35


def test_what_is_no_video(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(DataError, match="nor a video that opens"):
        VideoReader(str(tmp_path / "a.mp4"))
    (tmp_path / "begun.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(2000))  # a recording that did not end
    with pytest.raises(DataError, match="it is a video that cannot be used .*; fetch or copy it again"):
        VideoReader(str(tmp_path / "begun.mp4"))
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(2000))
    with pytest.raises(DataError, match="nor a video that opens: it is HEIC"):
        VideoReader(str(tmp_path / "a.jpg"))
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    with pytest.raises(DataError, match="nor a video that opens: it is sound"):
        VideoReader(str(tmp_path / "a.wav"))
    with pytest.raises(DataError, match="no such camera"):
        open_video("99")
    for name in ("9" * 5000, "\u00b2"):  # digits, but no number of a camera
        with pytest.raises(DataError, match="nor a video that opens"):
            open_video(name)
    with pytest.raises(DataError, match=r"source 'http://127.0.0.1:9/x' cannot be opened \(Connection refused"):
        open_video("http://me:secret@127.0.0.1:9/x")
    assert plain_url("rtsp://me:s@cam.local/a@b") == "rtsp://cam.local/a@b" and plain_url("a@b.mp4") == "a@b.mp4"


# --- pictures

@pytest.mark.parametrize("names, stems", [
    (["a.jpg", "b.jpg"], ["a", "b"]),
    (["a.jpg", "a.png", "b.jpg"], ["a.jpg", "a.png", "b"]),
    (["a.jpg", "a.jpg.jpg"], ["a", "a.jpg"]),
    (["a.jpg", "a.jpg.jpg", "a.png"], ["a.jpg_2", "a.jpg", "a.png"]),
    (["a.jpg", "A.jpg"], ["a.jpg", "A.jpg_2"]),
    (["a.jpg", "A.png"], ["a.jpg", "A.png"]),
    (["stra\u00dfe.jpg", "STRASSE.jpg"], ["stra\u00dfe.jpg", "STRASSE.jpg_2"]),
    (["\u00fc.jpg", "u\u0308.jpg"], ["\u00fc.jpg", "u\u0308.jpg_2"]),
])
def test_no_two_drawings_have_one_name(names, stems):
    found = unique_stems([os.path.join("in", name) for name in names])
    assert [found[os.path.join("in", name)] for name in names] == stems


def test_the_page_names_all_that_is_written():
    """docs/outputs.md has every key of the files."""
    from src.metrics import COCO_NAMES, VOC_MEANINGS, describe_evaluation
    with open(os.path.join(ROOT, "docs", "outputs.md"), encoding="utf-8") as file:
        page = file.read()
    meta = dict.fromkeys(("model", "min_score", "nms_threshold", "nms_candidates", "max_boxes", "resize"))
    keys = {"image_id", "category_id", "bbox", "score", "file", "frame", "time", "drawing", "objects", "class", "box",
            "thresholds", "draw_score", "per_class", "boxes", "evaluation", "AP_11point", "AP_area", *COCO_NAMES,
            *VOC_MEANINGS, *describe_evaluation("coco", split_name="", images=0, meta=meta)}
    assert [key for key in keys if f"`{key}`" not in page and f'"{key}"' not in page] == []
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        assert "docs/outputs.md" in file.read()
