"""`dcls-leaderboard`: files beside one another, a table that can be read, refusals."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from stand_ins import board

from lib import leaderboard
from lib.commands.leaderboard import main
from lib.scores.leaderboard import COLUMNS


@pytest.fixture
def folders(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for name, rho in (("a", {"first": 0.1, "=evil()": 0.2}), ("b", {"second": 0.3})):
        (tmp_path / name / "tables").mkdir(parents=True)
        table = leaderboard(board(rho, imagenet_top1=70.5))
        table.to_parquet(tmp_path / name / "tables" / "leaderboard.parquet")
    return ["a", "b"]


def test_two_folders_make_one_table_in_the_working_folder(folders, tmp_path, capsys):
    assert main(folders) == 0
    text = capsys.readouterr().out
    places = [text.index(name) for name in ("second", "=evil()", "first")]
    assert places == sorted(places)
    assert "0.600 [0.400, 0.800]" in text  # over a ceiling of 0.5
    assert {p.name for p in tmp_path.iterdir()} == {
        "a", "b", "leaderboard.csv", "leaderboard.parquet", "leaderboard.json",
        *(f"leaderboard{of}_grad_cam_gaze.{kind}" for of in ("", "_accuracy")
          for kind in ("png", "pdf", "svg")),
    }  # fmt: skip
    table = pd.read_csv("leaderboard.csv", keep_default_na=False)
    assert [*table.columns] == [*COLUMNS]
    assert table.label.tolist() == ["second", "'=evil()", "first"]
    assert table.run.tolist() == ["b", "a", "a"]
    pd.testing.assert_frame_equal(leaderboard("leaderboard.parquet"), leaderboard(*folders))
    facts = json.loads((tmp_path / "leaderboard.json").read_text())
    assert facts["schema"] == 2
    assert [*facts["runs"]] == folders


def test_a_path_as_a_run_prints_it_is_found_from_any_folder(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lib.scores.leaderboard.ROOT", tmp_path)
    (tmp_path / "a" / "report.html").touch()
    (tmp_path / "far" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "far")
    assert main(["a/report.html", "a", "--no-figures"]) == 0
    (note,) = capsys.readouterr().err.splitlines()
    assert note == "note: a/report.html, also named a, is given twice: it counts once."
    assert {*pd.read_csv("leaderboard.csv").run} == {"a"}
    assert main(["b", "--no-figures"]) == 2  # the one in the working folder comes first
    assert "b holds no leaderboard" in capsys.readouterr().err
    monkeypatch.setattr("lib.scores.leaderboard.IS_CHECKOUT", False)
    assert main(["a", "--no-figures"]) == 2
    assert "does not exist: give a folder of results" in capsys.readouterr().err


def test_what_is_wrong_is_one_line_and_nothing_is_written(folders, tmp_path, capsys):
    other = board({"second": 0.3}, rules="2-x")
    other.to_parquet(tmp_path / "b" / "tables" / "leaderboard.parquet")
    before = sorted(tmp_path.rglob("*"))
    for asked, told in (
        (folders, "b cannot be merged with a: its rules differ"),
        (["a", "none"], "none does not exist: give a folder of results"),
        (["a", "--out", "x.xlsx"], "must end in .csv or .parquet"),
        (["a", "--out", "a/tables/leaderboard.csv"], "is an input file"),
        (["a", "--protocol", "x"], "no run has the protocol 'x'; choose from gaze"),
    ):
        assert main([*asked, "--no-figures"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line
    assert sorted(tmp_path.rglob("*")) == before
