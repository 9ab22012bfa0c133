"""Ctrl-C while eval.py, predict.py and export.py load and compile the network."""
import os
import signal
import subprocess
import sys

import pytest
from programs import ROOT, environment, started, until


@pytest.mark.parametrize("program", ["eval.py", "predict.py", "export.py"])
def test_one_line_and_nothing_half_written(place, trained, tmp_path, program):
    made = tmp_path / "made"
    options = {"eval.py": [*place.data, f"--output_path={made}"],
               "predict.py": [f"--source={place.coco / 'val2017'}", f"--output_path={made}"],
               "export.py": ["--file_format=MINDIR", f"--file_name={made / 'ssd'}"]}[program]
    with started(sys.executable, os.path.join(ROOT, program), *options, f"--checkpoint_file_path={trained.best}",
                 "--compile_cache=", cwd=place.folder, env=environment(), stderr=subprocess.PIPE) as process:
        until(made.exists)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=200)
    assert (process.returncode, errors) == (130, "error: interrupted before there was anything to save\n")
    assert os.listdir(tmp_path) == []
