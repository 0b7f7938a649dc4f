"""Shares of a study's units: disjoint, complete, and the cache of a whole run."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import run_all
from lib.scores import study_scores
from lib.scores.study_scores import score_share, score_study
from lib.study.study import Study
from lib.work import shares
from lib.work.shares import share


@given(st.integers(0, 400), st.integers(1, 60))
def test_shares_are_consecutive_disjoint_complete_and_of_one_length(total, count):
    units = list(range(total))
    cut = [share(units, number, count) for number in range(1, count + 1)]
    assert [unit for part in cut for unit in part] == units
    assert {len(part) for part in cut} <= {total // count, -(-total // count)}


@pytest.mark.parametrize(("number", "count"), [(0, 4), (5, 4), (-1, 4), (1, 0)])
def test_a_share_that_does_not_exist_is_refused(number, count):
    with pytest.raises(ValueError, match=f"there is no share {number} of {count}"):
        share([1, 2, 3], number, count)


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / "output")
    models = ["resnet50", "convnext_tiny"]
    return Study.from_profile("demo", models, protocols=["corrected"], limit=2, batch_size=2)


def files(study: Study) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in study.places.scores.iterdir()}


def test_shares_fill_the_cache_that_the_study_reads(study, tmp_path, monkeypatch):
    results = [score_share(study, number, 3) for number in (3, 1)]
    assert [result.computed for result in results] == [2, 1]
    assert len(files(study)) == 3
    again = score_share(study, 3, 3)  # as a task that is submitted again
    assert (again.computed, again.cached, again.skipped) == (0, 2, {})
    assert score_share(study, 2, 3).computed == 1
    before = files(study)
    together = score_study(study)
    assert files(study) == before
    assert len(before) == 4
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / "alone")
    pd.testing.assert_frame_equal(together, score_study(study), check_exact=True)


def test_a_task_scores_no_unit_of_another_share(study, monkeypatch):
    asked = []

    def remember(_, __, units):
        asked.append([unit.path for unit in units])
        return 0

    monkeypatch.setattr(shares, "do_waiting", remember)
    for number in (1, 2, 3, 4, 5):
        score_share(study, number, 5)
    assert [len(paths) for paths in asked] == [0, 1, 1, 1, 1]
    assert len({path for paths in asked for path in paths}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "3"], "'3' is no share; write 1/8, 2/8, … or 8/8"),
        (["--share", "0/4"], "'0/4' is no share"),
        (["--share", "5/4"], "'5/4' is no share"),
        (["--share", "1/4", "--workers", "2"], "--share and --workers exclude each other"),
        (["--share", "1/4", "--dry-run"], "--share and --dry-run exclude each other"),
        (["--share", "1/4", "--download"], "--share and --download exclude each other"),
    ],
)
def test_a_wrong_share_is_refused_before_anything_starts(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(study_scores, "score_share", lambda *_: pytest.fail("something started"))
    try:
        status = run_all.main(["--profile", "demo", *arguments])
    except SystemExit as leaving:
        status = leaving.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_a_share_without_its_files_names_them(no_real_data, capsys):
    assert run_all.main(["--profile", "paper", "--share", "1/4"]) == 3
    assert "lacks" in capsys.readouterr().err


def test_the_command_tells_what_a_share_contained(monkeypatch, capsys):
    result = shares.ShareDone(5, 2, {})
    monkeypatch.setattr(study_scores, "score_share", lambda *_: result)
    monkeypatch.setattr("lib.scores.score_share", lambda *_: result, raising=False)
    assert run_all.main(["--profile", "demo", "--share", "2/4"]) == 0
    assert "share 2/4: 5 scored, 2 in the cache, 0 items skipped" in capsys.readouterr().out
