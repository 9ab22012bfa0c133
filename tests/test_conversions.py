"""What a run reads stays whatever is converted meanwhile; what nobody reads goes; changed images are noticed."""
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from conftest import Caller, picture, rows_of, txt_tree

from src.data import conversions, prepare
from src.data.loader import EvalLoader
from src.data.prepare import describe_split
from src.errors import EnvironmentFault


@pytest.fixture(name="tree")
def small_tree(tmp_path):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\nb.png 0,0,9,9,cat\n")
    return tmp_path


def annotate(tree, text):
    """Another content of train.txt."""
    (tree / "train.txt").write_text(text)


def repaint(path, value):
    """Another picture of the same size in pixels and in bytes, a second later."""
    before, size = os.stat(path), os.path.getsize(path)
    data = cv2.imencode(".bmp", np.full((20, 40, 3), value, np.uint8))[1].tobytes()
    path.write_bytes(data)
    assert os.path.getsize(path) == size, "the test must change the time alone"
    later = before.st_mtime_ns + 10 ** 9
    os.utime(path, ns=(later, later))


def colours(split):
    """The first pixel of every image as the loader gives it."""
    loader = EvalLoader(split.files, rows=split.count, image_size=8, batch_size=1, workers=1)
    return [int(images[0, 0, 0, 0]) for images, _ in loader]


# --- what is in use

def test_a_run_keeps_its_data_while_edited_annotations_are_converted(tree, call):
    first = call.txt()
    names = {name: os.path.getmtime(os.path.join(first.folder, name)) for name in os.listdir(first.folder)}
    annotate(tree, "a.png 0,0,9,9,dog\n")
    second = call.txt()
    assert second.folder != first.folder and (first.count, second.count) == (2, 1)
    assert len(rows_of(first)) == 2 and len(rows_of(second)) == 1
    assert names == {name: os.path.getmtime(os.path.join(first.folder, name)) for name in os.listdir(first.folder)}
    annotate(tree, "a.png 0,0,9,9,cat\nb.png 0,0,9,9,cat\n")
    again = call.txt()
    assert not again.converted and again.folder == first.folder, "edited back: it is there still"


def test_what_nobody_reads_goes_when_the_source_is_converted_again(tree, call):
    first = call.txt()
    annotate(tree, "a.png 0,0,9,9,dog\n")
    second = call.txt()
    other = call.txt(["dog"])  # another list of classes has folders of its own
    del first
    annotate(tree, "b.png 0,0,9,9,dog\n")
    third = call.txt()
    assert set(call.kept()) == {os.path.basename(split.folder) for split in (second, other, third)}
    assert any(text.startswith("removed ") for text in call.said)
    del second
    annotate(tree, "b.png 0,0,9,9,ox\n")
    fourth = call.txt()
    assert set(call.kept()) == {os.path.basename(split.folder) for split in (other, third, fourth)}


def test_nothing_is_removed_where_locks_cannot_tell(tree, call, monkeypatch):
    call.txt()

    def refuse(*_):
        raise OSError(95, "Operation not supported")
    monkeypatch.setattr(conversions.fcntl, "flock", refuse)
    annotate(tree, "a.png 0,0,9,9,dog\n")
    assert call.txt().converted and len(call.kept()) == 2
    assert not call.txt().converted


def test_a_damaged_conversion_in_use_is_not_replaced_but_followed(tree, call):
    first = call.txt()
    os.remove(first.ground_truth)
    second = call.txt()
    assert second.converted and second.folder == first.folder + "_2" and "ground_truth.json is missing" in call.why()
    assert os.path.isfile(first.files[0]) and len(rows_of(first)) == 2
    assert call.txt().folder == second.folder and call.txt(rank=1).folder == second.folder


def test_leftovers_of_killed_conversions_of_other_annotations_go(tree, call):
    first = call.txt().folder
    os.rename(first, first + conversions.TEMPORARY)
    annotate(tree, "a.png 0,0,9,9,dog\n")
    assert call.kept() != [] and call.txt().converted and len(call.kept()) == 1


def test_folders_of_others_are_let_be(tree, call):
    target = call.txt().folder
    others = [f"{target}_old", f"{target}x", target[:-9], target[:-1]]
    for path in others:
        os.mkdir(path)
    annotate(tree, "a.png 0,0,9,9,dog\n")
    assert call.txt().converted and all(map(os.path.isdir, others)) and not os.path.exists(target)


def test_a_conversion_that_only_can_be_read_is_used(tree, call):
    call.txt()
    for path, mode in ((tree / "mr", 0o555), (tree / "mr" / call.kept()[0], 0o555)):
        os.chmod(path, mode)
    try:
        assert not call.txt().converted and not call.txt(rank=1).converted
    finally:
        os.chmod(tree / "mr", 0o755)


# --- changed images

@pytest.fixture(name="bmps")
def tree_of_bmps(tmp_path):
    txt_tree(tmp_path, "a.bmp 0,0,9,9,cat\nb.bmp 0,0,9,9,cat\n", ["a.bmp", "b.bmp"])
    return tmp_path


def test_an_image_replaced_on_disk_is_converted_again(bmps, call):
    first = call.txt()
    repaint(bmps / "images/b.bmp", 200)
    second = call.txt()
    assert second.converted and "image 'b.bmp' has changed since" in call.why()
    assert colours(second) == [90, 200] and colours(first) == [90, 90], "the first one's reader sees what it saw"
    assert first.fingerprint == second.fingerprint and describe_split(first) != describe_split(second)
    assert not call.txt().converted


def test_an_image_of_another_size_is_noticed_by_every_rank(bmps, call, monkeypatch):
    monkeypatch.setattr(prepare, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(prepare, "SILENCE_SECONDS", 0.1)
    call.txt()
    picture(bmps / "images/b.bmp", 30, 30)
    with pytest.raises(EnvironmentFault, match="must share --mindrecord_dir"):
        call.txt(rank=1)
    assert call.txt().converted and not call.txt(rank=1).converted


def test_a_rank_on_another_host_takes_copies_of_other_times(bmps, call, monkeypatch):
    monkeypatch.setattr(prepare, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(prepare, "POLL_SECONDS", 0.01)
    split = call.txt()
    os.utime(bmps / "images/a.bmp", ns=(1, 1))
    assert call.txt(rank=1).folder == split.folder, "its host has copies, and it must not wait for ever"
    assert call.txt().converted, "rank 0 goes by its own images"


def test_a_rank_beside_rank_0_waits_while_that_may_convert_replaced_images(bmps, call, monkeypatch):
    monkeypatch.setattr(prepare, "GRACE_SECONDS", 0)
    monkeypatch.setattr(prepare, "POLL_SECONDS", 0.01)
    split = call.txt()
    repaint(bmps / "images/b.bmp", 200)
    polls, find = [], prepare.find_conversion
    monkeypatch.setattr(prepare, "find_conversion", lambda *args, **more: polls.append(more) or find(*args, **more))
    with conversions.conversion_lock(str(bmps / "mr")):  # as rank 0 does while it converts
        waiter = ThreadPoolExecutor(1).submit(Caller(bmps).txt, rank=1)
        while len(polls) < 5 and not waiter.done():
            time.sleep(0.01)
        assert not waiter.done() and polls == [{}] * len(polls), "times count as well"
    assert waiter.result(60).folder == split.folder


def test_images_that_were_missing_and_still_are_change_nothing(bmps, call):
    os.remove(bmps / "images/a.bmp")
    assert call.txt().count == 1 and not call.txt().converted
    picture(bmps / "images/a.bmp")
    assert call.txt().count == 2 and "a.bmp' could not be used and has changed" in call.why()


def test_one_image_that_has_gone_is_a_change_all_of_them_are_none(bmps, call):
    call.txt()
    os.remove(bmps / "images/a.bmp")
    assert call.txt().count == 1 and "image 'a.bmp' has changed since" in call.why()
    picture(bmps / "images/a.bmp")
    assert call.txt().count == 2
    shutil.rmtree(bmps / "images")
    os.mkdir(bmps / "images")
    split = call.txt()
    assert split.count == 2 and not split.converted, "the conversion stands for them"


def test_processes_hold_what_they_read(tree):
    """A Caller of its own holds its lock as another process would."""
    held, other = Caller(tree).txt(), Caller(tree)
    annotate(tree, "a.png 0,0,9,9,dog\n")
    other.txt()
    assert not conversions.remove_unread(held.folder) and os.path.isdir(held.folder)
    target = held.folder
    del held
    assert conversions.remove_unread(target) and not os.path.exists(target)
