"""What the processes of test_workers.py run. They import this file, which therefore imports little."""
import os
import signal
import sys

import numpy as np

from src.errors import DataError

PARTS = [((2, 3, 3), np.uint8), ((), np.int64), ((), np.bool_)]  # image, number, whether MindSpore was imported


def fill(rows, places, *, number, fails=-1, dies=-1):
    """The bytes of a sample's rows are the first of its pixels, the others are its number."""
    if number == fails:
        raise DataError(f"the image of row {number} is damaged")
    if number == dies:
        os.kill(os.getpid(), signal.SIGKILL)
    found = np.concatenate([np.frombuffer(row["image"], np.uint8) for row in rows])
    places[0].reshape(-1)[:] = number
    places[0].reshape(-1)[:len(found)] = found
    places[1][...], places[2][...] = number, "mindspore" in sys.modules
