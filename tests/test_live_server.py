"""The web page and POST /predict: answers, what is refused and how, slow and stuck clients."""
import contextlib
import io
import itertools
import json
import socket
import threading
import zlib

import cv2
import numpy as np
import pytest
from programs import until

pytest.importorskip("waitress", reason="pip install -r requirements-serve.txt")
from watching import CLASSES, detect, frames
from werkzeug.test import Client

from src.errors import EnvironmentFault
from src.inference.videos import VideoReader
from src.live import server as servers
from src.live.server import App, serve
from src.live.stream import Busy, Stream

SCORES = np.array([0.2, 0.4, 0.4])  # of CLASSES


def png(height=40, width=60):
    return cv2.imencode(".png", np.full((height, width, 3), 128, np.uint8))[1].tobytes()


@pytest.fixture(scope="module")
def app():
    with Stream(detect, frames) as stream:
        yield App(stream, CLASSES, title="a video", about="a model", scores=SCORES, score=0.4, host="127.0.0.1")


@pytest.fixture
def client(app):
    return Client(app)


def test_the_page_names_what_is_shown(client):
    page = client.get("/", headers={"Host": "127.0.0.1:8000"})
    assert page.status_code == 200 and page.mimetype == "text/html"
    for text in ("a video", "a model", '["cat", "dog", "doormat"]', 'value="0.4"', 'id="stream"', "up to 20 MiB"):
        assert text in page.text
    assert page.headers["X-Frame-Options"] == "DENY" and page.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_names_of_classes_cannot_become_code():
    with Stream(detect) as stream:
        page = Client(App(stream, ["</script><script>alert(1)"], title="<b>", about="", scores=SCORES[:1], score=0.4,
                          host="::1")).get("/")
    assert "<script>alert" not in page.text and "<b>" not in page.text and 'id="stream"' not in page.text


@pytest.mark.parametrize("how", ["body", "curl", "form"])
def test_predict_answers_with_boxes_in_pixels(client, how):
    sent = {"body": {"data": png()}, "curl": {"data": png(), "content_type": "application/x-www-form-urlencoded"},
            "form": {"data": {"image": (io.BytesIO(png()), "../../a.png")}}}[how]
    answer = client.post("/predict", **sent)
    assert answer.status_code == 200
    assert answer.json["width"] == 60 and answer.json["height"] == 40
    dog = {"class": "dog", "score": 0.875, "box": [15.0, 20.0, 45.0, 40.0]}
    assert answer.json["objects"][0] == dog and len(answer.json["objects"]) == 2, "each class from its own score on"
    assert client.post("/predict?score=0.3", data=png()).json["objects"] == [dog], "one score for all classes"
    assert len(client.post("/predict?score=0", data=png()).json["objects"]) == 2
    assert client.post("/predict?score=1", data=png()).json["objects"] == []


@pytest.mark.parametrize("method, path, sent, status, text", [
    ("GET", "/predict", {}, 405, "POST /predict"),
    ("DELETE", "/", {}, 405, "POST /predict"),
    ("GET", "/../../etc/passwd", {}, 404, "Not Found"),
    ("GET", "/%2e%2e/etc/passwd", {}, 404, "Not Found"),
    ("GET", "/static/x", {}, 404, "Not Found"),
    ("GET", "/", {"headers": {"Host": "evil.example"}}, 400, "asked under 127.0.0.1"),
    ("POST", "/predict", {}, 400, "no picture"),
    ("POST", "/predict", {"data": {"image": "no file"}, "content_type": "multipart/form-data"}, 400, "no picture"),
    ("POST", "/predict", {"data": b"hello"}, 415, "what was sent cannot be used: it is text ('hello')"),
    ("POST", "/predict?scor=0.5", {"data": png()}, 400, "parameter of POST /predict; did you mean 'score'"),
    ("POST", "/predict?hide=1", {"data": png()}, 400, "hide is not a parameter of POST /predict, which takes score\n"),
    ("GET", "/stream?threshold=0.5", {}, 400, "GET /stream, which takes score, hide, viewer"),
    ("GET", "/status?x", {}, 400, "x is not a parameter of GET /status, which takes none"),
    ("POST", "/predict", {"data": png()[:-40]}, 415, "PNG"),
    ("POST", "/predict", {"data": b"\0" * 1000}, 415, "zero"),
    ("POST", "/predict", {"data": b"%!PS-Adobe-3.0 EPSF-3.0\n"}, 415, "PostScript"),
    ("POST", "/predict?score=2", {"data": png()}, 400, "score=2"),
    ("POST", "/predict?score=nan", {"data": png()}, 400, "score=nan"),
    ("POST", "/predict?score=much", {"data": png()}, 400, "score=much"),
    ("GET", "/stream?hide=4", {}, 400, "hide=4"),
    ("GET", "/stream?hide=1,,2", {}, 400, "hide=1,,2"),
    ("GET", "/stream?hide=" + "9" * 5000, {}, 400, "hide=999"),
    ("GET", "/stream?hide=\u0661", {}, 400, "hide="),
])
def test_what_is_refused_gets_one_line(client, method, path, sent, status, text):
    answer = client.open(path, method=method, **sent)
    assert answer.status_code == status, answer.text
    assert text in answer.text and answer.text.count("\n") == 1 and len(answer.text) < 300


def test_too_many_pixels_are_refused_before_they_are_decoded(client):
    data = png(1, 1)
    header = data[12:16] + (9000).to_bytes(4, "big") * 2 + data[24:29]
    answer = client.post("/predict", data=data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:])
    assert answer.status_code == 413 and "9000 x 9000 pixels" in answer.text


def test_too_many_bytes_are_refused(client, monkeypatch):
    monkeypatch.setattr(servers, "MAX_BYTES", 100)
    form = {"image": (io.BytesIO(png() + b"\0" * 1000), "a.png")}
    for sent in ({"data": png() + b"\0" * 1000}, {"data": form}):
        assert client.post("/predict", **sent).status_code == 413


def test_a_busy_model_is_said(client, app, monkeypatch):
    def ask(pixels, seconds):
        raise Busy("4 pictures wait already")
    monkeypatch.setattr(app.stream, "ask", ask)
    answer = client.post("/predict", data=png())
    assert answer.status_code == 503 and answer.text == "busy: 4 pictures wait already; try again\n"
    assert answer.headers["Retry-After"] == "1"


def parts(answer, count):
    """The first JPEG pictures of a stream."""
    data, found = b"", []
    for piece in answer.response:
        data += piece
        found = [part.partition(b"\r\n\r\n")[2] for part in data.split(b"--frame\r\n")[1:]]
        if len(found) > count:
            break
    answer.close()
    return [cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR) for part in found[:count]]


def test_the_stream_has_boxes_that_can_be_hidden(client):
    drawn = parts(client.get("/stream", buffered=False), 2)
    assert [picture.shape for picture in drawn] == [(48, 64, 3)] * 2
    assert all(picture.std() > 10 for picture in drawn)
    plain, = parts(client.get("/stream?score=0&hide=1,2", buffered=False), 1)
    assert plain.std() < 3


def test_large_frames_are_made_smaller_for_the_stream(app):
    shot = servers.Shot(0, "frame 0", np.zeros((1000, 5120, 3), np.uint8), app.stream.wait(None, 60).found, 0.1)
    assert cv2.imdecode(np.frombuffer(app.draw(shot, SCORES), np.uint8), 1).shape == (250, 1280, 3)


def test_a_viewer_too_many_is_refused_and_one_that_leaves_makes_room(client):
    watching = [client.get("/stream", buffered=False) for _ in range(servers.MAX_VIEWERS)]
    refused = client.get("/stream")
    assert refused.status_code == 503 and "4 viewers" in refused.text
    watching.pop().close()
    assert client.head("/stream").status_code == 200  # takes no place
    again = client.get("/stream", buffered=False)
    assert again.status_code == 200
    for answer in (*watching, again):
        answer.close()


def test_without_a_source_there_is_no_stream():
    with Stream(detect) as stream:
        client = Client(App(stream, CLASSES, title="", about="", scores=SCORES, score=0.4, host="0.0.0.0"))
        assert client.get("/stream").status_code == 404
        status = client.get("/status", headers={"Host": "any.name"}).json
    assert status == dict.fromkeys(("frames_per_second", "ended", "frame", "name", "model_ms"))


# --- over a real connection

@pytest.fixture(scope="module")
def address(app):
    """Where a server of the app listens, which looks all the time for connections to end."""
    patch = pytest.MonkeyPatch()
    patch.setattr(servers, "CLEANUP_SECONDS", 0)
    made = []

    def work():
        with contextlib.suppress(SystemExit):
            serve(app, host="127.0.0.1", port=0)
    patch.setattr(servers.Server, "run", lambda self, run=servers.Server.run: (made.append(self), run(self)))
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    until(lambda: made or not thread.is_alive())
    yield "127.0.0.1", int(made[0].effective_port)
    app.stream.error = SystemExit("the test is over")
    thread.join(60)
    patch.undo()


def talk(address, data, seconds=60):
    """Everything that a server answers to bytes."""
    with socket.create_connection(address, seconds) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def request(line, body=b"", **headers):
    lines = [line, "Host: localhost", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_an_answer_over_the_wire(address):
    body = png()
    head, _, answer = talk(address, request("POST /predict HTTP/1.1", body, Content_Length=len(body))).partition(
        b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and b"Connection: close" in head and b"waitress" not in head
    assert json.loads(answer)["objects"][0]["class"] == "dog"


def test_the_stream_is_a_source_for_another_program(address):
    """MJPEG has no times, so those of its frames are when they came."""
    reader = VideoReader(f"http://127.0.0.1:{address[1]}/stream")
    with contextlib.closing(iter(reader)) as pictures:
        found = list(itertools.islice(pictures, 5))
    assert reader.live and {pixels.shape for pixels, _ in found} == {(48, 64, 3)}
    seconds = [second for _, second in found]
    assert seconds == sorted(seconds) and seconds != pytest.approx([number / 25 for number in range(5)], abs=1e-6)


@pytest.mark.parametrize("data, status", [
    (b"GARBAGE\r\n\r\n", b"400"), (request("GET / HTTP/1.1", Content_Length="many"), b"400"),
    (request("POST /predict HTTP/1.1", Content_Length=10 ** 12), b"413"),
    (request("GET / HTTP/1.1", X="a" * 20000), b"431"),
    (request("POST /predict HTTP/1.1", Transfer_Encoding="gzip"), b"501")])
def test_broken_requests_get_one_line(address, data, status):
    head, _, text = talk(address, data).partition(b"\r\n\r\n")
    assert head.split()[1] == status and text.count(b"\n") == 1 and text.endswith(b"\n")


def test_a_request_that_never_ends_is_cut_off(address, monkeypatch):
    monkeypatch.setattr(servers, "REQUEST_SECONDS", 0.5)
    for data in (b"", b"GET / HT", request("POST /predict HTTP/1.1", b"abc", Content_Length=1000)):
        assert talk(address, data) == b""


def test_a_viewer_that_takes_nothing_is_cut_off_and_one_that_leaves_is_noticed(app, address, monkeypatch):
    def watch():
        connection = socket.create_connection(address)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request("GET /stream HTTP/1.1"))
        return connection

    def wait_for_viewers(count):
        until(lambda: servers.MAX_VIEWERS - app.viewers._value == count)
    leaving = watch()
    wait_for_viewers(1)
    leaving.close()
    wait_for_viewers(0)
    monkeypatch.setattr(app, "draw", lambda *args: bytes(10 ** 6))
    with watch():
        wait_for_viewers(1)
        monkeypatch.setattr(servers, "REQUEST_SECONDS", 0.5)
        wait_for_viewers(0)


def test_an_address_that_is_none_is_said(app):
    with pytest.raises(EnvironmentFault, match="cannot listen at no address:8000"):
        serve(app, host="no address", port=8000)


def test_a_port_that_is_taken_is_said(app, address):
    with pytest.raises(EnvironmentFault, match=r"cannot listen at 127\.0\.0\.1:\d+ \(Address already in use\)"):
        serve(app, host="127.0.0.1", port=address[1])
