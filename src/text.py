"""Texts of users and of data files, as lines, tables and pictures can show them; help texts as terminals can."""
from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

MAX_LISTED = 20  # names in a line: those of VOC fit, those of COCO would hide what follows


def one_line(text: object) -> str:
    """A text with a space for each line break and other control character, and ? for what a text file cannot hold."""
    text = str(text)
    if text.isprintable():  # most are
        return text
    signs = {"Cc": " ", "Zl": " ", "Zp": " ", "Cs": "?"}
    return "".join(signs.get(unicodedata.category(letter), letter) for letter in text)


def shortened(text: str, most: int) -> str:
    """A text of about `most` letters: of a longer one the beginning and the end, which says what to do."""
    return text if len(text) <= most else f"{text[:most * 3 // 4]} .. {text[-(most // 4):]}"


def split_names(text: str) -> list[str]:
    """"backbone, neck" -> ["backbone", "neck"]"""
    return [name.strip() for name in text.split(",") if name.strip()]


def listed(names: Sequence[str]) -> str:
    """Names for a message: all of a short list, else the first of them and how many more there are."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def wrap(text: str, width: int = 120, *, indent: str = "") -> str:
    """A paragraph in lines of at most width columns, no word broken. indent: of all lines but the first."""
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def wrap_paragraphs(text: str, width: int) -> str:
    """A text with its paragraphs wrapped; those with indented lines, such as commands, stay as they are."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(paragraph if paragraph.startswith(" ") or "\n " in paragraph else
                       wrap(paragraph, width)
                       for paragraph in paragraphs)
