"""What all tests share: oneDNN's setting, the real data, trees of tiny images, and what the programs leave."""
import faulthandler
import importlib
import json
import os
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from programs import RECIPE, ROOT, succeed

sys.path[:0] = [ROOT, os.path.join(ROOT, "tests", "fuzz")]
import harness  # noqa: E402  it counts the inputs of tests/fuzz, and of tests of properties

# without it MindSpore 2.10 runs convolutions 50 times slower on a processor with AVX-512; must precede its import
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")


FEW = 25  # inputs of a door without --long
HANGING = 900  # seconds after which a test that is not `long` counts as hanging; the slowest take 60
SLOW_TESTS = os.path.join(os.path.dirname(__file__), "slow_tests.txt")
STDERR = pytest.StashKey[int]()


def pytest_addoption(parser):
    parser.addoption("--long", metavar="FILE", default="",
                     help="many inputs for tests/fuzz and tests of properties; FILE gets what became of them, as JSON")
    parser.addoption("--inputs", metavar="N", type=int, help="at most so many inputs of each kind")


def pytest_configure(config):
    config.stash[STDERR] = os.dup(2)  # before pytest catches what tests print


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Ends the process of a test that hangs, and says where each thread was."""
    if not item.get_closest_marker("long") and not item.config.getoption("--long"):
        faulthandler.dump_traceback_later(HANGING, exit=True, file=item.config.stash[STDERR])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_sessionfinish(session):
    path = session.config.getoption("--long")
    if path:
        harness.write_summary(path, session)


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
def pytest_collection_modifyitems(config, items):
    """Marks what slow_tests.txt lists: a test with all its parameters, or with those in brackets."""
    with open(SLOW_TESTS, encoding="utf-8") as file:
        slow = {line.split("  ")[0] for line in file.read().splitlines() if line and not line.startswith("#")}
    unused = set(slow)
    for item in items:
        name = f"{item.path.name}::{item.name}"
        listed = slow & {name, name.split("[")[0]}
        unused -= listed
        if listed:
            item.add_marker("slow")
    collected = {item.path.name for item in items}
    stale = sorted(name for name in unused if name.split("::")[0] in collected)
    if stale and not any("::" in argument for argument in config.args):
        raise pytest.UsageError(f"tests/slow_tests.txt lists what is not a test: {', '.join(stale)}")


@pytest.fixture
def in_bench(monkeypatch):
    """Imports a program of bench/ by its name."""
    monkeypatch.syspath_prepend(os.path.join(ROOT, "bench"))
    return importlib.import_module


@pytest.fixture(scope="module")
def library():
    """The path of our own CPU kernels, compiled for one thread."""
    from src.errors import EnvironmentFault
    from src.machine.cpu_library import open_kernels
    try:
        return open_kernels(1)
    except EnvironmentFault as error:
        pytest.skip(str(error))


@pytest.fixture
def examples(request):
    """examples(n): n with --long, else a few, and no more than --inputs."""
    limit = request.config.getoption("--inputs") or (0 if request.config.getoption("--long") else FEW)
    return lambda many: min(many, limit) if limit else many


@pytest.fixture(autouse=True)
def same_weights():
    """Networks start with the same weights in every run of a test, whichever tests ran before."""
    import mindspore as ms
    ms.set_seed(1)


@pytest.fixture(params=["graph", "pynative"])
def mode(request):
    """Runs a test in both modes of MindSpore."""
    import mindspore as ms
    ms.set_context(mode={"graph": ms.GRAPH_MODE, "pynative": ms.PYNATIVE_MODE}[request.param])
    yield request.param
    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.fixture(scope="session")
def shared():
    """Function: shared("coco/val2017") -> its path in ../shared/data; the test is skipped where that is missing."""
    def find(*parts):
        path = os.path.join(os.path.dirname(ROOT), "shared", "data", *parts)
        if not os.path.exists(path):
            pytest.skip(f"needs the local data {path}")
        return path
    return find


# --- trees of tiny images for tests of conversion

def picture(path, height=20, width=40):
    """Writes a gray PNG."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def coco_tree(tmp_path, boxes, images=None):
    """train2017 with images 5 (a.png), 3 (b.png), both 40 x 20; boxes are (image id, bbox, category, extras)."""
    images = images or [{"id": number, "file_name": f"{name}.png", "height": 20, "width": 40}
                        for number, name in ((5, "a"), (3, "b"))]
    for image in images:
        picture(tmp_path / "train2017" / image["file_name"])
    data = {"images": images, "categories": [{"id": 7, "name": "cat"}, {"id": 2, "name": "ant"}],
            "annotations": [{"id": number, "image_id": image, "bbox": bbox, "category_id": category, **extra}
                            for number, (image, bbox, category, extra) in enumerate(boxes)]}
    os.makedirs(tmp_path / "annotations", exist_ok=True)
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(data))
    return str(tmp_path)


def txt_tree(tmp_path, text, images=("a.png", "b.png")):
    """images/ and train.txt."""
    os.makedirs(tmp_path / "images")
    for name in images:
        picture(tmp_path / "images" / name)
    (tmp_path / "train.txt").write_text(text)


class Caller:
    """src.data.prepare.prepare_split on the trees of a temporary folder; keeps what was logged."""

    def __init__(self, tmp_path):
        from src.data.prepare import prepare_split  # needs the import path set above
        self.prepare, self.path, self.said = prepare_split, tmp_path, []

    def txt(self, classes=(), **options):
        options = {"image_dir": str(self.path / "images"), "anno_path": str(self.path / "train.txt"), **options}
        return self.prepare("train", "other", mindrecord_dir=str(self.path / "mr"), classes=list(classes),
                            log=self.said.append, **options)

    def coco(self, classes=(), **options):
        return self.prepare("train", "coco", mindrecord_dir=str(self.path / "mr"), classes=list(classes),
                            coco_root=str(self.path), log=self.said.append, **options)

    def why(self):
        """The reason of the last conversion."""
        return [text for text in self.said if text.startswith("converting")][-1]

    def kept(self):
        """Names in the MindRecord folder."""
        return sorted(os.listdir(self.path / "mr"))


def found(report):
    """(kind, box) of every finding."""
    return [(item.kind, item.box) for item in report.findings]


def arrays(record):
    """The boxes of a Record as arrays by name."""
    from src.data.records import fractions
    kinds = {"number": int, "pixels": float, "area": float, "label": int, "crowd": bool, "difficult": bool}
    columns = {name: np.array([getattr(box, name) for box in record.boxes], kind) for name, kind in kinds.items()}
    columns["pixels"] = columns["pixels"].reshape(-1, 4)
    columns["area"] = np.where(np.isnan(columns["area"]), columns["pixels"][:, 2:].prod(axis=1), columns["area"])
    sized = record.boxes and record.width
    return SimpleNamespace(**columns, boxes=fractions(record) if sized else np.zeros((len(record.boxes), 4)))


def txt(tmp_path, text, classes=()):
    """read_txt on a file with this text -> (records, class names, report)."""
    from src.data.findings import Report
    from src.data.txt import read_txt
    path = tmp_path / "train.txt"
    path.write_text(text)
    report = Report()
    records, names, ids = read_txt(str(path), str(tmp_path), classes=list(classes), report=report)
    assert ids == list(range(1, len(names) + 1))
    return records, names, report


@pytest.fixture(name="call")
def caller(tmp_path):
    return Caller(tmp_path)


def rows_of(split):
    """All rows as dicts of numpy arrays, in order."""
    import mindspore.dataset as ds
    return list(ds.MindDataset(split.files, shuffle=False).create_dict_iterator(num_epochs=1, output_numpy=True))


# --- what the programs leave on a tiny drawn data set; one short training is shared by all tests

@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A working folder with a drawn data set and a recipe; data: the options that name both."""
    folder = tmp_path_factory.mktemp("programs")
    place = SimpleNamespace(folder=folder, coco=folder / "coco", recipe=folder / "tiny.yaml")
    place.data = (f"--config_path={place.recipe}", f"--coco_root={place.coco}")
    place.recipe.write_text(yaml.safe_dump(RECIPE))
    succeed(place, "scripts/make_demo_data.py", place.coco, "--images", 24, "--val", 7)
    return place


@pytest.fixture(scope="session")
def trained(place):
    """The folder of a run of two epochs, evaluated after each; its output as text."""
    folder = place.folder / "run"
    text = succeed(place, "train.py", *place.data, f"--output_path={folder}")
    checkpoints = folder / "ckpt"
    return SimpleNamespace(folder=folder, text=text, best=checkpoints / "best.ckpt", last=checkpoints / "last.ckpt")


@pytest.fixture(scope="session")
def evaluated(place, trained):
    """eval/ of the best checkpoint in batches of 4."""
    succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={trained.best}")
    return trained.folder / "eval"


@pytest.fixture(scope="session")
def exported(place, trained):
    """The best checkpoint as MindIR for batches of 3, which is no divisor of 7."""
    path = place.folder / "export" / "ssd.mindir"
    text = succeed(place, "export.py", f"--checkpoint_file_path={trained.best}", "--file_format=MINDIR",
                   f"--file_name={path.with_suffix('')}", "--export_batch_size=3")
    return SimpleNamespace(path=path, text=text)
