"""What all tests share: the import path, oneDNN's setting, and the place of the real data."""
import os
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
# without it MindSpore 2.10 runs convolutions 50 times slower on a processor with AVX-512; must precede its import
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")


@pytest.fixture(autouse=True)
def same_weights():
    """Networks start with the same weights in every run of a test, whichever tests ran before."""
    import mindspore as ms
    ms.set_seed(1)


@pytest.fixture(scope="session")
def shared():
    """Function: shared("coco/val2017") -> its path in ../shared/data; the test is skipped where that is missing."""
    def find(*parts):
        path = os.path.join(os.path.dirname(ROOT), "shared", "data", *parts)
        if not os.path.exists(path):
            pytest.skip(f"needs the local data {path}")
        return path
    return find
