"""The code of the pages by question runs."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lib.base.paths import ROOT
from lib.maps.methods import METHODS
from lib.study.extension import load_extension


def code_of(page: str) -> str:
    (text,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/how-to" / page).read_text(), re.S)
    return text


def test_the_method_of_the_page_is_added(tmp_path, tables):
    (tmp_path / "my_rows.py").write_text(code_of("cam-method.md"))
    load_extension(tmp_path / "my_rows.py")
    assert METHODS["positive"].key == "positive"


def test_the_agreement_of_the_page_is_one_number_per_image():
    maps = np.random.default_rng(0).random((3, 8, 8))
    scope = {"maps": maps, "human_maps": maps**2}
    exec(compile(code_of("heatmaps.md"), "heatmaps.md", "exec"), scope)
    assert scope["rho"] == pytest.approx([1, 1, 1])


def test_the_figure_of_the_page_is_drawn_in_its_font(saved_tables):
    exec(compile(code_of("font.md"), "font.md", "exec"), {})
    assert b"DejaVuSerif" in (saved_tables / "size.pdf").read_bytes()
