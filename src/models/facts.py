"""What each network has and takes at its published size, as scripts/model_facts.py has counted it."""
from __future__ import annotations

import os

from src.files import read_json

FACTS_PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "facts.json")


def read_facts() -> dict[str, dict]:
    """Sizes, parameters, multiply-accumulates and activations of each network by its name; count() there lists them."""
    return read_json(FACTS_PATH)
