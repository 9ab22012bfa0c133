"""The web server: damaged pictures and forms, odd paths, queries and headers, and bytes that are no HTTP at all."""
import socket
import threading

import cv2
import numpy as np
import pytest
from harness import check_both, fuzz
from hypothesis import strategies as st
from mutations import EDITS, WORDS, edit_bytes, edit_words

pytest.importorskip("waitress", reason="pip install -r requirements-serve.txt")
from werkzeug.test import EnvironBuilder, run_wsgi_app

from src.errors import SSDError
from src.live.server import App, Server
from src.live.stream import Stream

PICTURES = tuple(
    cv2.imencode(ending, np.full((20, 30, 3), 128, np.uint8))[1].tobytes() for ending in (".png", ".jpg", ".bmp")
)
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    + PICTURES[0]
    + b"\r\n--x--\r\n"
)
REFUSALS = (400, 403, 404, 405, 413, 414, 415, 431, 501, 503)


def detect(pixels):
    return np.float32([[0.25, 0.5, 0.75, 1]]), np.float32([0.875]), np.int32([2])


@pytest.fixture(scope="module")
def app():
    with Stream(detect) as stream:
        yield App(stream, ["cat", "dog"], title="a", about="b", scores=np.float32([0.4, 0.4]), score=0.4,
                  host="127.0.0.1")


def judge(status, body):
    """Raises SSDError for a refusal, as the harness counts them; fails for what is neither."""
    if status != 200:
        assert status in REFUSALS, (status, body[:200])
        assert body.decode().count("\n") <= 1, body[:500]
        raise SSDError(f"{status} {body.decode()[:500] or 'empty'}")


def test_requests(app, examples):
    texts = st.sampled_from([word for word in WORDS if not any("\ud800" <= letter < "\ue000" for letter in word)])
    paths = st.sampled_from(
        ["/", "/status", "/predict", "/stream", "/predict/", "//predict", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
         "/static/..%2f..%2fconfig.yaml", "/predict\0"]
    ) | texts.map(lambda text: f"/{text}")
    queries = st.dictionaries(
        st.sampled_from(["score", "hide", "x", ""]), texts | st.sampled_from(["0.5", "1", "1,2"]), max_size=2
    )
    hosts = st.sampled_from(
        ["127.0.0.1:8000", "localhost", "[::1]:1", "evil.example", "", "127.0.0.1.evil", "a@127.0.0.1", "\xff"]
    )
    kinds = st.sampled_from(
        ["image/png", "multipart/form-data; boundary=x", "multipart/form-data", "text/html", "a" * 300,
         "multipart/form-data; boundary=" + "y" * 200, "application/x-www-form-urlencoded", ""]
    )
    bodies = st.builds(edit_bytes, st.sampled_from([*PICTURES, FORM]), EDITS) | st.sampled_from([b"", *PICTURES, FORM])

    def ask(method, path, query, host, kind, body):
        builder = EnvironBuilder(
            path="/", method=method, query_string=query, data=body, content_type=kind, headers={"Host": host}
        )
        environ = builder.get_environ()
        environ["PATH_INFO"] = path.encode("utf-8", "replace").decode("latin1")
        body, status, _ = run_wsgi_app(app, environ, buffered=True)
        judge(int(status.split()[0]), b"" if method == "HEAD" else b"".join(body))

    usual = st.sampled_from(["127.0.0.1:8000"]) | hosts
    tally = fuzz("HTTP requests", examples(2000), st.sampled_from(["POST", "POST", "GET", "HEAD", "PUT", "X"]),
                 st.sampled_from(["/predict"]) | paths, queries, usual, kinds, bodies, read=ask)
    check_both(tally)


REQUEST = (
    f"POST /predict?score=0.1 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    f"Content-Length: {len(PICTURES[0])}\r\nExpect: 100-continue\r\nX: y\r\n\r\n"
)


def test_bytes_on_the_wire(app, examples):
    """The server itself, over the network: a damaged request is answered in one line or the connection ends."""
    server = Server(app, host="127.0.0.1", port=0, threads=2, ident="", max_request_body_size=1 << 20,
                    max_request_header_size=1 << 14, clear_untrusted_proxy_headers=False, channel_request_lookahead=1)
    assert server.socket.getsockname()[0] == "127.0.0.1"
    thread = threading.Thread(target=server.asyncore.loop, kwargs={"timeout": 0.05, "map": server._map}, daemon=True)
    thread.start()

    def send(edits, more, chunked):
        text = REQUEST.replace("Content-Length: ", "Transfer-Encoding: chunked\r\nX-L: ") if chunked else REQUEST
        data = edit_words(text, edits).encode("utf-8", "replace") + PICTURES[0]
        with socket.create_connection(("127.0.0.1", server.effective_port), timeout=60) as client:
            client.sendall(edit_bytes(data, more) if more else data)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while part := client.recv(1 << 16):
                answer += part
        assert thread.is_alive(), "the server has ended"
        head, _, body = answer.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            head, _, body = body.partition(b"\r\n\r\n")
        if not head:
            raise SSDError("no answer")
        judge(int(head.split()[1]), body)

    try:
        fuzz("HTTP bytes", examples(600), EDITS, st.just([]) | EDITS, st.booleans(), read=send)
    finally:
        server.close()
        thread.join(5)
