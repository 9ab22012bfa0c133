"""A server of RTSP as cameras speak it: one video as MPEG-TS in RTP, within the connection of the client."""
import contextlib
import io
import socket
import struct
import threading

import av
import numpy as np

PART = 7 * 188  # bytes of MPEG-TS in a packet of RTP
SESSION = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"
ANSWERS = {"OPTIONS": ("Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n", ""),
           "DESCRIBE": (f"Content-Type: application/sdp\r\nContent-Length: {len(SESSION)}\r\n", SESSION),
           "SETUP": ("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n", ""),
           "PLAY": ("Session: 1\r\n", "")}


def transport_stream(count):
    """MPEG-TS of so many grey frames of 64 x 48 pixels, 25 a second; each brighter than the one before."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            pixels = np.full((48, 64, 3), 255 * number // count, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


class RtspServer:
    """Serves a stream at .address to one client after another; each gets all of it at once.

    mute: it answers nothing. stays: behind the last frame it keeps the connection, and sends nothing more.
    """

    def __init__(self, data, *, mute=False, stays=False):
        self.data, self.mute, self.stays, self.ended = data, mute, stays, threading.Event()
        self.server, self.clients = socket.create_server(("127.0.0.1", 0)), 0
        self.address = f"rtsp://127.0.0.1:{self.server.getsockname()[1]}/street"

    def __enter__(self):
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.server.close()

    def serve(self):
        with contextlib.suppress(OSError):  # the server is closed, or a client has gone
            while not self.ended.is_set():
                client, _ = self.server.accept()
                self.clients += 1
                with client, contextlib.suppress(OSError):
                    self.talk(client)

    def talk(self, client):
        """Answers one client, up to the end of what it plays."""
        if self.mute:
            self.ended.wait(60)
            return
        with client.makefile("rb") as lines:
            method = ""
            while method != "PLAY":
                method = lines.readline().split(b" ")[0].decode()
                headers = iter(lambda: lines.readline().decode().strip(), "")
                number, = (header.partition(":")[2].strip() for header in headers if header.startswith("CSeq:"))
                more, body = ANSWERS[method]
                client.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{more}\r\n{body}".encode())
        for number, start in enumerate(range(0, len(self.data), PART)):
            packet = struct.pack(">BBHII", 0x80, 33, number, 0, 1) + self.data[start:start + PART]
            client.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
        if self.stays:
            self.ended.wait(60)
