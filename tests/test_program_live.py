"""predict.py --serve and --view as programs."""
import importlib
import json
import os
import signal
import sys
import urllib.request
from types import SimpleNamespace

import pytest
from programs import CLASSES, ROOT, environment, free_port, run, started, write_video

from src.errors import DataError


def test_a_served_model_answers_and_streams_until_ctrl_c(place, exported, tmp_path):
    pytest.importorskip("waitress", reason="pip install -r requirements-serve.txt")
    write_video(tmp_path / "grey.mp4", 5)
    command = [sys.executable, os.path.join(ROOT, "predict.py"), f"--serve={free_port()}", "--draw_score=0.01",
               f"--checkpoint_file_path={exported.path}", f"--source={tmp_path / 'grey.mp4'}"]
    with started(*command, cwd=place.folder, env=environment()) as process:
        address = next(line.split()[0] for line in process.stdout if line.startswith("http://"))
        data = (place.coco / "val2017" / "000001.jpg").read_bytes()
        with urllib.request.urlopen(address + "predict", data, timeout=60) as answer:
            found = json.load(answer)
        with urllib.request.urlopen(address + "stream", timeout=60) as stream:
            assert b"--frame\r\nContent-Type: image/jpeg" in stream.read(60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert found["objects"] and {one["class"] for one in found["objects"]} <= set(CLASSES)


def test_a_window_needs_a_screen_and_is_no_page(place):
    done = run(place, "predict.py", "--view=True", "--serve=8000")
    assert done.returncode == 2 and done.stderr.startswith("error: --view=True shows a window, --serve a web page")
    done = run(place, "predict.py", "--view=True", "--source=0", QT_QPA_PLATFORM="xcb", DISPLAY="")
    assert done.returncode == 4 and done.stderr.startswith("error: no window can open here (")


def test_an_empty_host_is_not_all_of_them(place):
    done = run(place, "predict.py", "--serve=8000", "--host=")
    assert done.returncode == 2 and done.stderr.startswith("error: --host is empty; 127.0.0.1 serves this machine only")


def test_a_window_still_needs_a_source(place):
    pytest.importorskip("PySide6", reason="pip install -r requirements-view.txt")
    done = run(place, "predict.py", "--view=True", QT_QPA_PLATFORM="offscreen")
    assert done.returncode == 2 and "--source is empty" in done.stderr


def test_a_stream_that_is_gone_is_opened_again_for_browsers_only(monkeypatch, capsys):
    predict = importlib.import_module("predict")
    closed, answers = [], ["newer", DataError("gone"), DataError("gone"), "back"]
    live = SimpleNamespace(live=True, video=SimpleNamespace(close=lambda: closed.append(True)))

    def open_source(text, skip):
        answer = answers.pop(0)
        if isinstance(answer, DataError):
            raise answer
        return answer
    monkeypatch.setattr("src.inference.sources.open_source", open_source)
    sources = predict.open_repeatedly(live, SimpleNamespace(source="rtsp://x", output_path="y", serve=8000))
    assert [next(sources) for _ in range(4)] == ["newer", (), (), "back"] and closed == [True]
    assert capsys.readouterr().out == "gone; trying again\n"
    answers += ["newer", DataError("gone")]
    sources = predict.open_repeatedly(live, SimpleNamespace(source="rtsp://x", output_path="y", serve=0))
    assert next(sources) == "newer"
    with pytest.raises(DataError):
        next(sources)
    video = SimpleNamespace(live=False)
    answers.append("again")
    sources = predict.open_repeatedly(video, SimpleNamespace(source="v.mp4", output_path="y", serve=8000))
    assert [next(sources), next(sources)] == [video, "again"]
