"""Some damaged inputs through the programs, as a user starts them: exit codes, one line, no traceback."""
import json
import random
import zlib

import pytest
from harness import TALLIES, Tally, check_message
from mutations import edit_bytes, edit_tree, edit_words, to_json
from programs import run
from test_fuzz_annotations import COCO, TXT
from test_fuzz_options import RECIPE
from test_fuzz_weights import npz

from src.errors import DataError

ALLOWED = (0, 1, 2, 3, 4)  # 1: the pictures that could not be read were told
RUNS = {"prepare_data.py on COCO": 8, "prepare_data.py on TXT": 8, "a recipe": 8, "import_weights.py": 6,
        "predict.py": 6}


def edits_of(rng):
    return [(rng.randrange(256), rng.randrange(65536), rng.randrange(65536)) for _ in range(rng.randint(1, 3))]


def command(kind, folder, rng):
    """Writes a damaged input -> the command line that reads it."""
    images = str(folder / "images")
    if kind == "prepare_data.py on COCO":
        (folder / "x.json").write_bytes(to_json(edit_tree(COCO, edits_of(rng))))
        return ("prepare_data.py", "--dataset=coco", f"--anno_path={folder / 'x.json'}", f"--image_dir={images}",
                "--run_eval=False", f"--mindrecord_dir={folder / 'mr'}")
    if kind == "prepare_data.py on TXT":
        (folder / "x.txt").write_bytes(edit_words(TXT, edits_of(rng)).encode("utf-8", "surrogatepass"))
        return ("prepare_data.py", "--dataset=other", f"--anno_path={folder / 'x.txt'}", f"--image_dir={images}",
                f"--mindrecord_dir={folder / 'mr'}")
    if kind == "a recipe":
        (folder / "x.yaml").write_bytes(edit_words(RECIPE, edits_of(rng)).encode("utf-8", "surrogatepass"))
        return "export.py", f"--config_path={folder / 'x.yaml'}"
    (folder / "x.npz").write_bytes(edit_bytes(npz(), edits_of(rng)))
    if kind == "import_weights.py":
        return "import_weights.py", folder / "x.npz", "--model=ssd300_mobilenet_v2", f"--output={folder / 'x.ckpt'}"
    return ("predict.py", f"--checkpoint_file_path={folder / 'x.npz'}", f"--source={images}",
            f"--output_path={folder / 'out'}")


@pytest.mark.long
@pytest.mark.parametrize("kind", RUNS)
def test_programs(kind, tmp_path, place):
    import cv2
    import numpy as np
    from test_fuzz_annotations import SIZE

    for name in ("a.png", "sub/b.png", "with space.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / name), np.full((*SIZE, 3), 90, np.uint8))
    rng, tally = random.Random(zlib.crc32(kind.encode())), Tally(f"program: {kind}")
    for _ in range(RUNS[kind]):
        line = command(kind, tmp_path, rng)
        done = run(place, *line)
        assert done.returncode in ALLOWED and "Traceback" not in done.stderr, json.dumps(
            [*map(str, line), done.stderr[-3000:]]
        )
        tally.inputs += 1
        if done.returncode:
            errors = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
            assert len(errors) == 1, done.stderr[-3000:]
            check_message(DataError(errors[0]))
            tally.errors[f"exit {done.returncode}"] = tally.errors.get(f"exit {done.returncode}", 0) + 1
            tally.refused += 1
        else:
            tally.read += 1
    TALLIES.append(tally)
