"""What files, folders and a reader's own rows are called is text in HTML, never a script.

In a browser: `test_run_all.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from stand_ins import EVIL

from lib.base.paths import NOTEBOOKS
from lib.report.readable import as_html


def test_tables_in_notebooks_are_escaped():
    table = pd.DataFrame({"name": [EVIL, "a & b"], EVIL: [0.123456789, 2.0], "n": [1, 2]})
    table["path"], table["list"] = [Path(EVIL), 3], [[EVIL], (EVIL,)]
    html = as_html(table, f"of {EVIL}").to_html()
    assert EVIL not in html
    assert html.count("&lt;img src=x onerror=window.ran=1&gt;") == 6
    assert "0.123457" in html
    assert "<th" in html


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_no_notebook_makes_html_of_its_own(path):
    """`as_html` escapes; a Styler, IPython's HTML and Markdown do not."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            found = re.findall(r"\.style\b|\bHTML\(|\bMarkdown\(|set_caption|to_html", cell.source)
            assert not found
