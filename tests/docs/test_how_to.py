"""The code of the pages by question runs."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from lib.base.paths import ROOT
from lib.maps.methods import METHODS
from lib.networks.backbones import THE_EIGHT
from lib.study.extension import load_extension
from lib.study.study import Study


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


def test_the_figure_of_the_page_is_drawn_in_its_font(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path)
    monkeypatch.chdir(tmp_path)
    tables = Study.from_profile("demo").places.tables
    tables.mkdir(parents=True)
    rows = [
        {"variant": backbone.key + "_dcls" * dcls, "backbone": backbone.key, "dcls": dcls,
         "method": "grad_cam", "protocol": "published", "parameters_millions": 20 + number,
         "score": 0.3 + 0.05 * number, "low": 0.0, "high": 0.7, "n": 224, "ceiling": 0.65753,
         "reachable": 1.35, "above_control": True}
        for number, backbone in enumerate(THE_EIGHT)
        for dcls in (False, True)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tables / "summary.csv", index=False)
    exec(compile(code_of("font.md"), "font.md", "exec"), {})
    assert b"DejaVuSerif" in (tmp_path / "size.pdf").read_bytes()
