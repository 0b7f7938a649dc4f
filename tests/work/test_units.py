"""Every analysis as units: cached, resumed, computed anew where something else determines it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from lib.analyses.cose.study import StudyPairs, score_cose
from lib.analyses.faithfulness import score_faithfulness
from lib.analyses.faithfulness.study import FaithfulnessWork
from lib.analyses.sanity import ForgettingWork, score_forgetting
from lib.scores.control_scores import ControlWork, score_controls
from lib.scores.measures import MeasureWork, score_measures
from lib.scores.observers import PeopleWork, people_of
from lib.scores.study_scores import score_study
from lib.scores.units import ScoreWork
from lib.study.study import Study
from lib.work.units import Unit, Work

CHOICES = {"models": ["resnet50"], "methods": ["grad_cam"], "protocols": ["corrected"]}
ANALYSES: dict[type[Work], Callable[[Study], pd.DataFrame]] = {
    ScoreWork: score_study,
    ControlWork: score_controls,
    PeopleWork: people_of,
    MeasureWork: score_measures,
    FaithfulnessWork: lambda study: score_faithfulness(
        study, study.choices.backbones, study.choices.methods, 4, False
    ),
    ForgettingWork: lambda study: score_forgetting(study, 2),
    StudyPairs: lambda study: score_cose(study, 1),
}
EACH = pytest.mark.parametrize("kind", ANALYSES)


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / "output")
    return Study.from_profile("demo", **CHOICES, limit=4, batch_size=4)


def of_a_kind(monkeypatch, kind: type[Work], then: Callable[[Unit], None]) -> list[Unit]:
    """The units of a kind that are computed from now on; `then` follows each."""
    done, do = [], kind.do

    def counted(work: Work, unit: Unit) -> None:
        do(work, unit)
        done.append(unit)
        then(unit)

    monkeypatch.setattr(kind, "do", counted)
    return done


@EACH
def test_what_is_cached_is_read_and_a_damaged_table_is_computed_again(study, monkeypatch, kind):
    done = of_a_kind(monkeypatch, kind, lambda unit: None)
    first = ANALYSES[kind](study)
    assert len(first)
    assert len({unit.path for unit in done}) == len({unit.name for unit in done}) == len(done) > 0
    made = [*done]
    done.clear()
    pd.testing.assert_frame_equal(ANALYSES[kind](study), first)
    assert done == []
    made[-1].path.write_bytes(made[-1].path.read_bytes()[:-9])
    pd.testing.assert_frame_equal(ANALYSES[kind](study), first)
    assert [unit.path for unit in done] == [made[-1].path]


@pytest.mark.parametrize("kind", [MeasureWork, FaithfulnessWork, ForgettingWork, StudyPairs])
def test_an_interruption_keeps_the_units_that_are_finished(study, monkeypatch, kind):
    def interrupt(unit: Unit) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        before = of_a_kind(patched, kind, interrupt)
        with pytest.raises(KeyboardInterrupt):
            ANALYSES[kind](study)
    after = of_a_kind(monkeypatch, kind, lambda unit: None)
    resumed = ANALYSES[kind](study)
    assert len(before) == 1
    assert before[0].path not in {unit.path for unit in after}
    monkeypatch.setattr("lib.study.places.OUTPUT", study.places.output / "undisturbed")
    pd.testing.assert_frame_equal(ANALYSES[kind](study), resumed)


@EACH
def test_other_choices_are_other_units(study, kind):
    """What determines no table shares its cache: the number of workers, the batch."""
    arguments = {
        FaithfulnessWork: {"count": 3, "with_curves": False, "noise_unit": "image"},
        ForgettingWork: {"count": 2},
        StudyPairs: {"images": 1},
    }.get(kind, {})

    def paths(of: Study, **others) -> set:
        return {unit.path for unit in kind(of, **arguments | others).units()}

    mine = paths(study)
    assert paths(study.changed(workers=2, batch_size=9)) == mine
    assert paths(study.changed(limit=3 if kind is not StudyPairs else 0)) != mine or arguments
    for name, value in {"count": 4, "with_curves": True, "images": 2}.items():
        if name in arguments:
            assert not mine >= paths(study, **{name: value})
    if kind not in (ControlWork, PeopleWork):  # they have no models and methods
        assert not mine & paths(study.changed(methods=("threshold_grad_cam",)))
