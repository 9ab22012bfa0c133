"""The catalogue of public checkpoints, and downloads from a server on this machine that ends early, lies and fails."""
import errno
import hashlib
import io
import os
import re
import sys
import tarfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import yaml
from programs import ROOT, run, succeed

sys.path.insert(0, os.path.join(ROOT, "scripts"))
import fetch_weights

from src.errors import DataError, EnvironmentFault, OptionError
from src.weights import catalogue
from src.weights.catalogue import find_checkpoint, read_catalogue
from src.weights.download import CHUNK, download, unpack
from src.weights.names import SOURCES

DATA = bytes(range(256)) * 9000  # 2.3 MB: three chunks
DIGEST = hashlib.sha256(DATA).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Sends DATA, from where it is asked to; `how` says what goes wrong, and collects what was asked for."""

    def __init__(self, *arguments, how):
        self.how = how
        super().__init__(*arguments)

    def do_GET(self):
        asked = self.headers.get("Range")
        self.how.asked.append(asked)
        start = int(asked[len("bytes="):-1]) if asked and self.how.resumes else 0
        if self.path == "/missing":
            self.send_error(404)
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file.pth")
            self.end_headers()
        elif start >= len(self.how.data):
            self.send_error(416)
        else:
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(self.how.data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(self.how.data) - 1}/{len(self.how.data)}")
            self.end_headers()
            self.wfile.write(self.how.data[start:self.how.ends_after or None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """address, and `how` it behaves."""
    how = SimpleNamespace(data=DATA, asked=[], resumes=True, ends_after=0)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, how=how)) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield SimpleNamespace(address=f"http://127.0.0.1:{one.server_port}/file.pth", how=how)
        one.shutdown()


def test_a_download(server, tmp_path):
    path = str(tmp_path / "a.pth")
    assert download(server.address, path) == download(server.address, path, sha256=DIGEST[:8].upper()) == DIGEST
    assert (tmp_path / "a.pth").read_bytes() == DATA and os.listdir(tmp_path) == ["a.pth"]


@pytest.mark.parametrize("resumes", [True, False])
def test_a_connection_that_ends_early_is_continued(server, tmp_path, resumes):
    path, server.how.ends_after, server.how.resumes = str(tmp_path / "a.pth"), CHUNK + 1000, resumes
    with pytest.raises(EnvironmentFault, match=r"after 1,049,576 of 2,304,000 bytes; the same command goes on"):
        download(server.address, path)
    assert os.listdir(tmp_path) == ["a.pth.part"]
    server.how.ends_after = 0
    assert download(server.address, path) == DIGEST and (tmp_path / "a.pth").read_bytes() == DATA
    assert server.how.asked == [None, f"bytes={CHUNK + 1000}-"]


def test_a_file_that_moved(server, tmp_path):
    """Also where it is continued: the second address is asked for the rest."""
    path = str(tmp_path / "a.pth")
    (tmp_path / "a.pth.part").write_bytes(DATA[:CHUNK])
    assert download(server.address.replace("file.pth", "moved"), path) == DIGEST
    assert server.how.asked == [f"bytes={CHUNK}-"] * 2 and (tmp_path / "a.pth").read_bytes() == DATA


def test_a_disk_that_is_full(server, tmp_path, monkeypatch):
    path = str(tmp_path / "a.pth")

    class Full(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > CHUNK:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)
    monkeypatch.setattr("src.weights.download.open", Full, raising=False)
    with pytest.raises(EnvironmentFault, match=r"No space left on device\); what came is kept"):
        download(server.address, path)
    monkeypatch.undo()
    assert (tmp_path / "a.pth.part").stat().st_size == CHUNK and download(server.address, path) == DIGEST


def test_a_part_that_is_all_of_the_file(server, tmp_path):
    (tmp_path / "a.pth.part").write_bytes(DATA)
    assert download(server.address, str(tmp_path / "a.pth")) == DIGEST and os.listdir(tmp_path) == ["a.pth"]


def test_another_file_than_expected_is_removed(server, tmp_path):
    with pytest.raises(DataError, match=f"SHA-256 {DIGEST}, expected 0123"):
        download(server.address, str(tmp_path / "a.pth"), sha256="0123")
    assert os.listdir(tmp_path) == []


def test_no_server_no_file_no_address(server, tmp_path):
    path = str(tmp_path / "a.pth")
    with pytest.raises(EnvironmentFault, match=r"\(HTTP Error 404: Not Found\); try again later, or get it by hand$"):
        download(server.address.replace("file.pth", "missing"), path)
    with pytest.raises(EnvironmentFault, match=r"could not be downloaded \(\[Errno 111\] Connection refused\); try"):
        download("http://127.0.0.1:1/a", path)
    with pytest.raises(OptionError, match="'file:///etc/passwd' is not an address"):
        download("file:///etc/passwd", path)
    assert os.listdir(tmp_path) == []


def archive(tmp_path, *names):
    path = str(tmp_path / "a.tar.gz")
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
        link = tarfile.TarInfo("x/ckpt-0.link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


def test_archives(tmp_path):
    """Only the wanted files, whatever folder they say they are in; no links."""
    path, folder = archive(tmp_path, "net/ckpt-0.index", "../../ckpt-0.data", "net/other"), tmp_path / "out"
    folder.mkdir()
    assert unpack(path, "ckpt-0.*", str(folder)) == [f"{folder}/ckpt-0.index", f"{folder}/ckpt-0.data"]
    assert sorted(os.listdir(folder)) == ["ckpt-0.data", "ckpt-0.index"]
    with pytest.raises(DataError, match="has no file 'model.ckpt"):
        unpack(path, "model.ckpt.*", str(folder))
    data = open(path, "rb").read()
    with open(path, "wb") as file:
        file.write(data[:60])
    with pytest.raises(DataError, match="is damaged"):
        unpack(path, "ckpt-0.*", str(folder))


def test_the_script(server, tmp_path):
    place = SimpleNamespace(folder=tmp_path)
    text = succeed(place, "scripts/fetch_weights.py", server.address, f"--sha256={DIGEST}", "--to=down")
    assert re.search(r"file\.pth, MB: 3/3", text) and f"SHA-256 {DIGEST}, as expected" in text
    assert "is there already" in succeed(place, "scripts/fetch_weights.py", server.address, "--to=down")
    for words, said in (([server.address, "--to=down", "--sha256=00"], "remove it first"), ([], "--list prints"),
                        (["torchvision_ssd300"], "did you mean 'torchvision_ssd300_vgg16_coco'"),
                        (["tfjs_ssdlite_mobilenet_v2_coco"], "get it by hand: npm pack")):
        done = run(place, "scripts/fetch_weights.py", *words)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_a_checkpoint_of_the_catalogue(server, tmp_path, monkeypatch, capsys):
    """Downloaded, unpacked, and the commands name the file that is there."""
    server.how.data = open(archive(tmp_path, "models/VGG.caffemodel"), "rb").read()
    row = find_checkpoint("caffe_ssd300_vgg16_voc")._replace(address=server.address, inside="*.caffemodel")
    monkeypatch.setattr(fetch_weights, "find_checkpoint", lambda name: row)
    fetch_weights.fetch_checkpoint(row, str(tmp_path))
    path = f"{tmp_path}/caffe_ssd300_vgg16_voc/VGG.caffemodel"
    assert os.path.isfile(path)
    assert f"import_weights.py {path} --from=caffe --model=ssd300_vgg16_voc --output=ckpt/" in capsys.readouterr().out


def test_the_rows_are_of_known_sources_and_models():
    from src.models.ssd import BUILDERS
    rows = read_catalogue()
    assert len(rows) > 30
    for row in rows.values():
        assert row.source in SOURCES and row.tried in ("real", "seeded", "names"), row.name
        assert all(model in BUILDERS or model.startswith("that of") for model in row.model.split(", ")), row.name
        assert bool(row.address) != bool(row.get) and row.licence and row.trained and row.numbers, row.name
        assert not row.address or row.address.startswith("http") and row.file and " " not in row.address, row.name
        assert ("tar" in row.address) == bool(row.inside), row.name


def test_unknown_keys_of_the_catalogue():
    """A misspelt key would be lost in silence."""
    with open(catalogue.PATH, encoding="utf-8") as file:
        blocks = yaml.safe_load(file)
    of_blocks = {"publisher", "from", "licence", "numbers", "url", "checkpoints"}
    assert {key for block in blocks for key in block} == of_blocks
    keys = {key for block in blocks for row in block["checkpoints"].values() for key in row}
    known = {"model", "options", "trained", "published", "numbers", "file", "get", "inside", "mb", "sha256", "tried"}
    assert keys <= known


def test_the_page_is_made_of_the_catalogue():
    with open(os.path.join(ROOT, "ckpt", "README.md"), encoding="utf-8") as file:
        text = file.read()
    assert fetch_weights.fill_page(text) == text, "run python scripts/fetch_weights.py --page"
    with pytest.raises(DataError, match="the page has 0 tables '<!-- detectors -->'"):
        fetch_weights.fill_page("no tables")


def test_the_list(tmp_path):
    place = SimpleNamespace(folder=tmp_path)
    text = succeed(place, "import_weights.py", "--list")
    assert all(name in text for name in read_catalogue())
    assert text == succeed(place, "scripts/fetch_weights.py", "--list")
