"""The skeleton of HTML pages, and the pictures in them."""
import base64
import os
import re
import shutil

import cv2
import jinja2
import numpy as np
import pytest
from PIL import Image

from src import page
from src.drawing import encode_jpeg
from src.evaluation.plots import figure_uri, new_figure


def test_a_page_holds_its_style_and_escapes_what_data_says(tmp_path):
    path = tmp_path / "page.html"
    page.write_page(str(path), "page.html", title="<b>cats</b> & dogs", subtitle="half a letter \ud800")
    text = path.read_text(encoding="utf-8")
    assert "<h1>&lt;b&gt;cats&lt;/b&gt; &amp; dogs</h1>" in text and "half a letter ?" in text
    assert "max-width" in text and "ssd-mindspore" in text
    assert not re.search(r"(src|href)=|@import|url\(|<script", text), "nothing is fetched"


def test_parts(tmp_path, monkeypatch):
    (tmp_path / "t.html").write_text('{% extends "page.html" %}{% import "parts.html" as parts %}{% block content %}'
                                     '{{ parts.table(["class", "AP"], [["a<b", 1]], first=True) }}'
                                     '{{ parts.facts([("3", "boxes")]) }}'
                                     '{{ parts.gallery([("data:x", "&")], "pictures") }}{% endblock %}')
    for name in os.listdir(page.TEMPLATES):
        shutil.copy(os.path.join(page.TEMPLATES, name), tmp_path)
    monkeypatch.setattr(page, "TEMPLATES", str(tmp_path))
    text = page.render_page("t.html", title="a", subtitle="b")
    assert '<tr class="first"><td>a&lt;b</td><td>1</td></tr>' in text
    assert "<b>3</b><span>boxes</span>" in text
    assert '<img src="data:x" alt="&amp;"><figcaption>&amp;</figcaption>' in text


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="subtitle"):
        page.render_page("page.html", title="a")


def test_pictures_as_addresses():
    assert page.data_uri(b"abc", "jpeg") == "data:image/jpeg;base64,YWJj"
    figure, (axis,) = new_figure(1, width=3, height=2)
    axis.set_title("\u7ea2\u8840\u7403")
    kind, _, data = figure_uri(figure).partition(";base64,")
    assert b"<dc:date>" not in base64.b64decode(data), "a page of the same numbers is the same page"
    text = base64.b64decode(data).decode()
    assert kind == "data:image/svg+xml" and "<svg" in text and "\u7ea2\u8840\u7403" in text, "text stays text"


def test_a_large_picture_becomes_small_enough(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (900, 1400, 3), np.uint8)
    data = encode_jpeg(noise, 150_000)
    assert len(data) < 150_000
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[0] > 200
    red = np.zeros((20, 20, 3), np.uint8) + np.uint8([255, 0, 0])
    (tmp_path / "red.jpg").write_bytes(encode_jpeg(red, 10_000))
    assert np.asarray(Image.open(tmp_path / "red.jpg"))[10, 10, 0] > 240, "RGB stays RGB"
