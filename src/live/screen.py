"""Whether a window can open here."""
from __future__ import annotations

import subprocess
import sys

from src.errors import EnvironmentFault

PROBE = "from PySide6.QtWidgets import QApplication; QApplication([])"
PATIENCE = 60  # seconds for a screen to answer; one on another machine may have gone


def check_screen() -> None:
    """Raises EnvironmentFault where Qt, its system packages or a screen are missing.

    Tried in a process of its own: without a screen Qt ends the process that asks for one.
    """
    try:
        probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False,
                               timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        lines = [f"the screen does not answer within {PATIENCE:g} s"]
    else:
        if probe.returncode == 0:
            return
        lines = [line for line in probe.stderr.splitlines() if line.strip()] or ["Qt does not start"]
    reason = lines[0] if lines[0].startswith("qt.") else lines[-1]  # Qt's first line says why; Python's last one
    raise EnvironmentFault(f"no window can open here ({reason.strip()}); --view=True needs a screen, 'pip install -r "
                           "requirements-view.txt' and the system packages that docs/live.md lists; --serve=8000 shows "
                           "the same in a browser")
