"""What a source stands for: files, folders, patterns, lists, addresses, and where the results of each file go."""
import os

import av
import cv2
import numpy as np
import pytest
from conftest import picture
from programs import write_video

from src.errors import DataError
from src.inference.outputs import output_stems
from src.inference.sources import open_source


@pytest.fixture
def tree(tmp_path):
    """Files in folders, with what is not to be read among them."""
    for name in ("b.png", "a.JPG", "sub/a.png", "sub/.hidden/x.png", "sub/._a.png", "out/old.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.md").write_text("no picture")
    os.symlink(tmp_path, tmp_path / "sub" / "loop")
    write_video(tmp_path / "sub" / "v.mp4", 2)
    return tmp_path


def names(source, root):
    return [os.path.relpath(path, root) for path in source.paths]


def test_a_folder_is_read_with_the_folders_in_it(tree):
    source = open_source(str(tree), skip=str(tree / "out"))
    assert names(source, tree) == ["a.JPG", "b.png", "sub/a.png", "sub/v.mp4"]
    assert source.total is None and not source.live and source.unit == "picture"
    assert list(output_stems(source).values()) == ["a", "b", "sub/a", "sub/v"]
    rows = [picture.row for picture in source]
    assert [os.path.basename(row["file"]) for row in rows] == ["a.JPG", "b.png", "a.png", "v.mp4", "v.mp4"]
    assert [(row.get("frame"), row.get("time")) for row in rows[-2:]] == [(0, 0.0), (1, 0.1)] and not source.broken
    for skip in (tree / "out", tree, ""):  # results may lie above their source
        assert open_source(str(tree / "out"), skip=str(skip)).total == 1
        assert open_source(str(tree / "out" / "*"), skip=str(skip)).total == 1


@pytest.mark.parametrize("pattern, expected", [
    ("*.*", ["a.JPG", "b.png"]), ("**/a.*", ["a.JPG", "sub/a.png"]), ("sub/*", ["sub/a.png", "sub/v.mp4"]),
    ("[b]*", ["b.png"])])
def test_a_pattern(tree, pattern, expected):
    source = open_source(str(tree / pattern), skip=str(tree / "out"))
    assert names(source, tree) == expected


def test_a_name_that_looks_like_a_pattern(tmp_path):
    picture(tmp_path / "a[1].png")
    assert names(open_source(str(tmp_path / "a[1].png")), tmp_path) == ["a[1].png"]


@pytest.mark.parametrize("typed, near", [
    ("b.pngg", "b.png"), ("a.jpg", "a.JPG"), ("subb", "sub"), ("subb/", "sub"), ("subb/x/a.png", "sub"), ("qqq", "")])
def test_a_source_that_is_not_there(tree, typed, near, monkeypatch):
    monkeypatch.chdir(tree)
    for folder in ("", f"{tree}/"):
        with pytest.raises(DataError, match="does not exist; .*give an image, a video, a folder") as error:
            open_source(folder + typed)
        hint = f"did you mean '{folder}{near}'? give" if near else "exist; give"
        assert hint in str(error.value) and "\n" not in str(error.value)


def test_a_list(tree, monkeypatch):
    monkeypatch.chdir(tree / "sub")
    (tree / "list.txt").write_text("\ufeffsub/a.png\r\n\n  b.png  \nv.mp4\nb.png\nmissing.png\n", encoding="utf-8")
    source = open_source(str(tree / "list.txt"))
    assert source.paths == [str(tree / "sub/a.png"), str(tree / "b.png"), "v.mp4", "missing.png"]
    stems = output_stems(source)
    assert [stems[path] for path in source.paths] == ["sub/a", "b", "sub/v", "sub/missing"]
    assert len(list(source)) == 4 and len(source.broken) == 1 and "missing.png" in source.broken[0]


def test_what_is_broken_is_named_and_the_rest_is_read(tmp_path, capsys):
    picture(tmp_path / "a.png")
    picture(tmp_path / "d.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "c.mp4").write_text("no video")
    write_video(tmp_path / "e.avi", 50)
    data = (tmp_path / "e.avi").read_bytes()
    (tmp_path / "e.avi").write_bytes(data[:len(data) // 3])
    source = open_source(str(tmp_path))
    read = [os.path.basename(picture.row["file"]) for picture in source]
    assert read[:2] == ["a.png", "d.png"] and set(read[2:]) == {"e.avi"} and 10 < len(read) < 40
    assert [name for name, text in zip(("b.png", "c.mp4", "e.avi"), source.broken) if name in text] == \
        ["b.png", "c.mp4", "e.avi"]
    said = capsys.readouterr().out
    assert said.count("left out: ") == 2 and said.count("damaged: ") == 1


@pytest.mark.parametrize("content, words", [
    (b"", "is empty"), (b"\n \n", "is empty"), (b"\xff\xfe\x00", "cannot be read")])
def test_a_list_that_is_none(tmp_path, content, words):
    (tmp_path / "l.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"list '.*l.txt' {words}.*; a list has the path of a picture or video"):
        open_source(str(tmp_path / "l.txt"))


def test_nothing_to_read(tmp_path):
    with pytest.raises(DataError, match="holds no pictures or videos"):
        open_source(str(tmp_path))
    with pytest.raises(DataError, match="no picture or video fits the pattern"):
        open_source(str(tmp_path / "*.jpg"))
    with pytest.raises(DataError, match="does not exist"):
        open_source(str(tmp_path / "a.jpg"))


def test_one_picture_and_one_video(tmp_path):
    picture(tmp_path / "a.png")
    write_video(tmp_path / "v.mp4", 3)
    one, video = open_source(str(tmp_path / "a.png")), open_source(str(tmp_path / "v.mp4"))
    assert (one.total, one.unit, one.live) == (1, "picture", False)
    assert (video.total, video.unit, video.live) == (3, "frame", False)
    assert output_stems(video) == {str(tmp_path / "v.mp4"): "v"} and len(list(video)) == 3


def test_a_stream(tmp_path, monkeypatch):
    """An address is opened by FFmpeg; here its own for a file. What has an end is live too where it is RTSP."""
    write_video(tmp_path / "v.mp4", 3)
    opened = []
    real = av.open
    monkeypatch.setattr(av, "open", lambda file, **how: opened.append((file, how)) or real(str(tmp_path / "v.mp4")))
    source = open_source("rtsp://me:secret@cam.local:554/s1")
    (address, how), = opened
    assert address == "rtsp://me:secret@cam.local:554/s1" and min(how["timeout"]) > 0
    assert source.live and not open_source("http://cam.local/v.mp4").live
    assert {picture.row["file"] for picture in source} == {"rtsp://cam.local:554/s1"} and "secret" not in source.name
    assert output_stems(source) == {"rtsp://cam.local:554/s1": "cam_local_554_s1"}


def test_a_camera(monkeypatch):
    class Capture:
        def __init__(self, number):
            assert number == 7
            self.left = 2

        def isOpened(self):  # noqa: N802
            return True

        def get(self, _):
            return 0.0

        def read(self):
            self.left -= 1
            return self.left >= 0, np.full((2, 2, 3), (255, 0, 0), np.uint8) if self.left >= 0 else None

        def release(self):
            self.left = None
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    source = open_source("7")
    assert source.live and source.total is None and output_stems(source) == {"7": "camera7"}
    found = list(source)
    assert [one.row["frame"] for one in found] == [0, 1] and found[0].row["time"] == 0
    assert found[0].pixels[0, 0].tolist() == [0, 0, 255] and source.video.capture.left is None
