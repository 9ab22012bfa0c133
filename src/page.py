"""Self-contained HTML pages: a template of src/templates filled with values, its pictures in the file itself."""
from __future__ import annotations

import base64
import os
import re
import time

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from src.files import write_atomic
from src.version import version_line

TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "templates")

OPTION = re.compile(r"(--\w+(?:=[\w./]*\w)?)")


def write_page(path: str, template: str, **values: object) -> None:
    """Writes a page that opens from the file system, without a network. Raises EnvironmentFault.

    template: a file of src/templates that extends page.html; values: what it shows, at least title and subtitle. Texts
    are escaped, so data may hold any sign.
    """
    # ? for halves of letters, as names of files may hold them
    write_atomic(path, render_page(template, **values).encode("utf-8", errors="replace"))


def render_page(template: str, **values: object) -> str:
    """The text of a page. A value that the template misses is an error."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters["code"] = mark_options
    written = f"{version_line()}, {time.strftime('%Y-%m-%d %H:%M')}"
    return environment.get_template(template).render(written=written, **values)


def mark_options(text: str) -> Markup:
    """Text with its options, such as --anchors=auto, as code that no line break tears apart."""
    return Markup(OPTION.sub(r"<code>\1</code>", str(escape(text))))


def data_uri(data: bytes, kind: str) -> str:
    """The address of a picture that lies in the page. kind: jpeg, png or svg+xml."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
