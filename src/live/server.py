"""The stream in a browser, a page that draws boxes on pictures dropped on it, and POST /predict for programs.

Waitress serves with threads, Werkzeug parses. What clients send is limited in bytes, pixels, number and time; what is
refused gets a status of 4xx or 503 and one line that says why.
"""
from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, WSGITask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from src.classes import nearest
from src.data.image_bytes import BadImage, describe_bytes
from src.data.images import check_bytes, open_by_pillow
from src.drawing import class_color, draw_boxes
from src.errors import EnvironmentFault
from src.inference.outputs import describe_objects
from src.live.stream import Busy, Shot, Stream
from src.page import render_page

MAX_BYTES, MAX_PIXELS = 20 << 20, 40_000_000  # of an upload
MAX_VIEWERS, MAX_CONNECTIONS, THREADS = 4, 64, 12
REQUEST_SECONDS = 30       # for a request to arrive, for the model to answer it, and for a viewer to take what was sent
CLEANUP_SECONDS = 5        # between two looks for those that exceed it
MAX_HEADER_BYTES = 16 << 10
MAX_STREAM_SIDE, JPEG_QUALITY = 1280, 80  # of the frames of /stream
KEEP_ALIVE_SECONDS = 5.0   # after which a frame of a stream that stands still is sent again
BOUNDARY = "frame"
# by path: the method, and the parameters of the query; viewer makes a browser ask again
ROUTES = {"/": ("GET", ()), "/stream": ("GET", ("score", "hide", "viewer")), "/status": ("GET", ()),
          "/predict": ("POST", ("score",))}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SAFE_HEADERS = {
    "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; connect-src 'self'; form-action 'none'; "
                               "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'"}


class Refused(Exception):
    """Why a request is not served, in one line. status: its HTTP status."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


class App:
    """The pages of a Stream, as a WSGI application.

    classes: names, label l is classes[l - 1]. title, about: what is shown, by which model. scores: the least of each
    class [C], unless a request says one for all. score: where the slider begins. host: where it is served.
    """

    def __init__(self, stream: Stream, classes: list[str], *, title: str, about: str, scores: np.ndarray, score: float,
                 host: str):
        self.stream, self.classes, self.scores = stream, classes, scores
        self.hosts = LOOPBACK if host in LOOPBACK else ()  # names under which it may be asked; () for any
        self.viewers, self.decoding = threading.BoundedSemaphore(MAX_VIEWERS), threading.BoundedSemaphore(2)
        self.has_stream = stream.open_source is not None
        colors = [f"#{bytes(class_color(label)).hex()}" for label in range(1, len(classes) + 1)]
        self.page = render_page("live.html", title=title, subtitle=about, classes=classes, colors=colors,
                                score=score, has_stream=self.has_stream, max_mib=MAX_BYTES >> 20)
        self.routes = Map([Rule(path, endpoint=path, methods=[method]) for path, (method, _) in ROUTES.items()])

    def __call__(self, environ: dict, start_response: object) -> object:
        return self.respond(Request(environ))(environ, start_response)

    def respond(self, request: Request) -> Response:
        """The answer to a request."""
        request.max_content_length, request.max_form_parts = MAX_BYTES, 8
        answers = {"/": self.show_page, "/stream": self.show_stream, "/status": self.show_status,
                   "/predict": self.predict}
        try:
            self.check_host(request)
            path, _ = self.routes.bind_to_environ(request.environ).match()
            check_query(request, path)
            response = answers[path](request)
        except HTTPException as error:  # Werkzeug's: no such page, another method, too many bytes
            response = one_line(error.code, f"{error.name}; there are GET /, /stream and /status, and POST /predict")
        except Refused as error:
            response = one_line(error.status, str(error))
        except Busy as error:
            response = one_line(503, f"busy: {error}; try again")
            response.headers["Retry-After"] = "1"
        response.headers.extend(SAFE_HEADERS)
        return response

    def check_host(self, request: Request) -> None:
        """Refuses other names of this machine than it is served under: a web page could have made one up."""
        name = request.headers.get("Host", "").rsplit(":", 1)[0].strip("[]").lower()
        if self.hosts and name not in self.hosts:
            raise Refused(400, f"this server is asked under {' or '.join(self.hosts)} only; --host=0.0.0.0 opens it")

    def show_page(self, request: Request) -> Response:
        """The page."""
        return Response(self.page, mimetype="text/html")

    def show_status(self, request: Request) -> Response:
        """What the stream does, as JSON; null for what is not known, of all where there is none."""
        shot, stream = self.stream.shot, self.stream
        values = [round(stream.rate(), 1), stream.ended] if self.has_stream else [None] * 2
        values += [shot.number, shot.name, round(shot.seconds * 1000)] if shot else [None] * 3
        return to_json(dict(zip(("frames_per_second", "ended", "frame", "name", "model_ms"), values)))

    def show_stream(self, request: Request) -> Response:
        """The frames with boxes, as JPEG pictures one after another, which browsers show as a video."""
        scores = self.read_scores(request)
        if not self.has_stream:
            raise Refused(404, "no stream: predict.py was started without --source")
        response = Response(mimetype=f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        if request.method == "HEAD":
            return response
        if not self.viewers.acquire(blocking=False):
            raise Refused(503, f"{MAX_VIEWERS} viewers watch already; close one of them")
        response.response = self.parts(scores)
        response.call_on_close(self.viewers.release)
        return response

    def parts(self, scores: np.ndarray) -> Iterator[bytes]:
        """The parts of /stream."""
        shot = None
        while not self.stream.closed:
            shot = self.stream.wait(shot, KEEP_ALIVE_SECONDS) or shot
            if shot:
                yield to_part(self.draw(shot, scores))

    def draw(self, shot: Shot, scores: np.ndarray) -> bytes:
        """A frame with its boxes as JPEG, no larger than MAX_STREAM_SIDE. scores: the least of each class, [C]."""
        height, width = shot.pixels.shape[:2]
        factor = min(MAX_STREAM_SIDE / max(height, width), 1)
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        pixels = shot.pixels if factor == 1 else cv2.resize(shot.pixels, size, interpolation=cv2.INTER_AREA)
        found = shot.found.from_scores(scores)
        drawing = draw_boxes(pixels, found.boxes, found.labels, scores=found.scores, classes=self.classes)
        return cv2.imencode(".jpg", drawing[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()

    def predict(self, request: Request) -> Response:
        """What is in a picture: the body of the request, or the first file of a form. As JSON."""
        scores = self.read_scores(request)
        if request.mimetype == "multipart/form-data":
            data = b"".join(file.read() for file in list(request.files.values())[:1])
        else:  # whatever the type says: curl calls any body a form
            data = request.get_data()
        pixels = self.decode(data)
        began = time.monotonic()
        found = self.stream.ask(pixels, REQUEST_SECONDS).from_scores(scores)
        height, width = pixels.shape[:2]
        return to_json({"width": width, "height": height, "seconds": round(time.monotonic() - began, 4),
                        "objects": describe_objects(pixels.shape, found, self.classes)})

    def decode(self, data: bytes) -> np.ndarray:
        """The pixels [H, W, 3] of an uploaded picture."""
        if not data:
            raise Refused(400, "the request has no picture; send its bytes as the body, or as a file of a form")
        if not self.decoding.acquire(timeout=REQUEST_SECONDS):
            raise Busy("others are being decoded")
        try:
            image = open_by_pillow(data)  # only its header
            if image is None:
                raise BadImage(describe_bytes(data))
            if image.width * image.height > MAX_PIXELS:
                raise Refused(413, f"the picture has {image.width} x {image.height} pixels, {MAX_PIXELS} in all are "
                                   "taken; scale it down")
            return check_bytes(data).pixels
        except BadImage as error:
            raise Refused(415, f"what was sent cannot be used: {error} (curl --data-binary @FILE sends one)") from error
        finally:
            self.decoding.release()

    def read_scores(self, request: Request) -> np.ndarray:
        """The least score of each class that a request asks for, [C]: infinity for one that it hides."""
        text, scores = request.args.get("score"), self.scores.copy()
        if text is not None:
            try:
                score = float(text)
            except ValueError:
                score = np.nan
            if not 0 <= score <= 1:
                raise Refused(400, f"score={text[:40]}: a number from 0 to 1 is allowed")
            scores[:] = score
        scores[np.array(self.read_hidden(request), int) - 1] = np.inf
        return scores

    def read_hidden(self, request: Request) -> list[int]:
        """The labels that a request hides, ?hide=1,3."""
        text = request.args.get("hide", "")
        labels = [int(label) for label in text.split(",") if label.isascii() and label.isdigit() and len(label) < 6]
        if len(labels) != len(text.split(",")) - (not text) or not set(labels) <= set(range(1, len(self.classes) + 1)):
            raise Refused(400, f"hide={text[:40]}: numbers from 1 to {len(self.classes)} with commas are allowed")
        return labels


def check_query(request: Request, path: str) -> None:
    """Refuses parameters that a path does not know: one that is misspelt would count for nothing."""
    method, known = ROUTES[path]
    for name in request.args:
        if name not in known:
            near = nearest(name, known)
            hint = f"; did you mean '{near}'?" if near else f", which takes {', '.join(known) or 'none'}"
            raise Refused(400, f"{name[:40]} is not a parameter of {method} {path}{hint}")


def one_line(status: int, text: str) -> Response:
    """A refusal."""
    return Response(f"{text}\n", status=status, mimetype="text/plain")


def to_json(value: dict) -> Response:
    """A value as an answer."""
    return Response(json.dumps(value), mimetype="application/json")


def to_part(jpeg: bytes) -> bytes:
    """A JPEG as a part of /stream, with the boundary behind it: browsers show a part when they see its end."""
    return (b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % (BOUNDARY.encode(), len(jpeg)) + jpeg +
            b"\r\n")


# --- the server

class OneLineError(ErrorTask):
    """Waitress's own refusals, such as of too many bytes, in one line."""

    def execute(self) -> None:
        error = self.request.error
        body = f"{error.reason}: {' '.join(error.body.split())}\n".encode()  # it quotes the request
        error.to_response = lambda ident: (f"{error.code} {error.reason}", [("Content-Type", "text/plain")], body)
        super().execute()


class LastAnswer(WSGITask):
    """An answer after which the connection ends, so that the age of a connection is that of its request."""

    def build_response_header(self) -> bytes:
        self.set_close_on_finish()
        return super().build_response_header()


class Channel(HTTPChannel):
    """A connection."""
    task_class, error_task_class = LastAnswer, OneLineError


class Server(TcpWSGIServer):
    """A server that also ends connections whose request arrives too slowly, or whose client takes nothing."""
    channel_class = Channel

    def run(self) -> None:
        """Serves until Ctrl-C, or an error of the stream."""
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            self.asyncore.loop(self.adj.asyncore_loop_timeout, map=self._map)
        self.application.stream.close()  # so that the threads of viewers end
        self.task_dispatcher.shutdown()
        self.close()

    def maintenance(self, now: float) -> None:
        """Ends connections; Waitress calls it every cleanup_interval."""
        if self.application.stream.error:
            raise SystemExit  # ends run()
        super().maintenance(now)
        for channel in self.active_channels.values():
            is_slow = not channel.requests and channel.creation_time < now - REQUEST_SECONDS
            is_stuck = channel.total_outbufs_len and channel.last_activity < now - REQUEST_SECONDS
            if is_slow or is_stuck:
                with contextlib.suppress(OSError):  # the loop of Waitress meets the end, and closes it
                    channel.socket.shutdown(socket.SHUT_RDWR)


def serve(app: App, *, host: str, port: int) -> None:
    """Serves an App until Ctrl-C. Raises EnvironmentFault, and what ended its stream."""
    logging.getLogger("waitress").setLevel(logging.CRITICAL)  # clients that leave are no news
    try:
        server = Server(app, host=host, port=port, threads=THREADS, connection_limit=MAX_CONNECTIONS, ident="",
                        max_request_body_size=MAX_BYTES, max_request_header_size=MAX_HEADER_BYTES,
                        cleanup_interval=CLEANUP_SECONDS, channel_timeout=REQUEST_SECONDS,
                        outbuf_high_watermark=1 << 20,
                        clear_untrusted_proxy_headers=False,  # nothing here reads them
                        channel_request_lookahead=1)  # with it the end of a client is met while it is answered
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise EnvironmentFault(f"the server cannot listen at {host}:{port} ({reason}); is another program there? "
                               "--serve=PORT and --host=ADDRESS choose another place") from error
    name = f"[{host}]" if ":" in host else host
    print(f"http://{name}:{server.effective_port}/ shows the page; Ctrl-C ends it", flush=True)
    server.run()
    if app.stream.error:
        raise app.stream.error
