"""Texts that others gave, made safe for spreadsheets and terminals; the commit that is ours."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from lib.base.paths import ROOT
from lib.base.spreadsheets import csv_text
from lib.base.words import printable

FORMULAS = [
    "＝1",
    "\ufeff=1",
    "\u200b@A",
    "+１",
    "=1+1",
    '=HYPERLINK("http://x")',
    "@SUM(A1)",
    "+1+1",
    "-1+1",
    "\t=1",
    " =1",
    "\r=1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_begins_as_a_formula_would(text):
    table = pd.DataFrame({"image_id": [text], text: ["x"], "kind": pd.Categorical([text])})
    table["arrow"] = pd.array([text], dtype=pd.ArrowDtype(pa.string()))
    table["path"] = [Path(text)]
    header, row = csv.reader(csv_text(table).splitlines())
    for cell in (*header, *row):
        assert cell == "x" or cell.startswith("'") or cell in ("image_id", "kind", "arrow", "path")
        assert cell[:1] not in ("\t", "\r")
    assert row[0].lstrip("'").strip() == text.strip()


def test_numbers_and_plain_texts_stay_as_they_are():
    table = pd.DataFrame({"a": ["x", "-1.5", "a=b", None], "b": [-1.5, 2, 3, 4], "c": [True] * 4})
    assert csv_text(table) == table.to_csv(index=False)
    assert csv_text(table.iloc[:0]) == "a,b,c\n"


def test_what_would_steer_a_terminal_is_spelled_out():
    assert printable("\x1b]0;title\x07 \u202e ok\n\tä") == r"\x1b]0;title\x07 \u202e ok" + "\n\tä"


def test_a_copy_within_another_repository_has_no_commit(tmp_path):
    """The outer one's says nothing of it."""
    outer = tmp_path / "outer"
    (outer / "study" / "lib" / "base").mkdir(parents=True)
    for name in ("__init__", "versions", "paths"):
        shutil.copy(ROOT / "lib" / "base" / f"{name}.py", outer / "study" / "lib" / "base")
    ours = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    asks = "from lib.base.versions import commit; print(commit())"

    def commit_of(folder):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {asks}"],
            capture_output=True, text=True, check=True, cwd=folder,
        )  # fmt: skip
        return done.stdout.strip()

    subprocess.run([*ours, "init", "-q", str(outer)], check=True)
    subprocess.run([*ours, "commit", "-q", "--allow-empty", "-m", "x"], cwd=outer, check=True)
    assert commit_of(outer / "study") == "unknown"
    study = outer / "study"
    subprocess.run([*ours, "init", "-q"], cwd=study, check=True)
    subprocess.run([*ours, "add", "."], cwd=study, check=True)
    subprocess.run([*ours, "commit", "-q", "-m", "x"], cwd=study, check=True)
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=study, text=True)
    assert commit_of(study).removesuffix("-dirty") == head[:12]
