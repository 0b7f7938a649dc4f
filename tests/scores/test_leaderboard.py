"""Leaderboards: order, what is merged, what is refused; numbers written down by hand."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from stand_ins import CEILINGS, NO_CONTROLS, board, made_up_scores

from lib import leaderboard
from lib.base.paths import ROOT
from lib.report import readable_leaderboard
from lib.scores.leaderboard import (
    COLUMNS,
    SCHEMA,
    accuracy_correlation,
    boards,
    controls_of_board,
    leaderboard_of,
)
from lib.study.inputs import MissingInputs
from lib.study.study import Study


def notes(table: pd.DataFrame) -> list[str]:
    return table.attrs["leaderboard"]["notes"]


# --- order ------------------------------------------------------------------------------------


def test_the_best_comes_first_equal_ones_share_a_rank_and_no_score_has_none():
    table = leaderboard(board({"a": 0.1, "b": 0.3, "c": np.nan, "d": 0.3}))
    assert table.label.tolist() == ["b", "d", "a", "c"]
    assert table["rank"].tolist() == [1, 1, 3, pd.NA]
    assert (table.ranked_by == "score").all()


def test_methods_and_protocols_are_ranked_apart():
    one = board({"a": 0.1, "b": 0.3})
    table = leaderboard(pd.concat([one, board({"a": 0.4, "b": 0.2}, method="layer_cam"),
                                   board({"a": 0.6, "b": 0.5}, protocol="published")]))  # fmt: skip
    found = table.set_index(["protocol", "method", "rank"]).label
    assert found["gaze", "grad_cam"].tolist() == ["b", "a"]
    assert found["gaze", "layer_cam"].tolist() == ["a", "b"]
    assert found["published", "grad_cam"].tolist() == ["a", "b"]
    (only,) = set(leaderboard(table, method="layer_cam").method)
    assert only == "layer_cam"
    with pytest.raises(ValueError, match="no run has the method 'x'; choose from grad_cam, layer_"):
        leaderboard(table, method="x")


def test_where_a_model_has_no_ceiling_all_of_its_protocol_are_ranked_by_rho():
    """0.2 over a ceiling of 0.25 is no better than 0.3 over none."""
    one = board({"a": 0.2}, score=0.8, ceiling=0.25)
    without = board({"b": 0.3}, score=np.nan, ceiling=np.nan, reading="centre")
    table = leaderboard(one, without, board({"a": 0.2}, protocol="published"))
    gaze = table[table.protocol == "gaze"]
    assert (gaze.label.tolist(), {*gaze.ranked_by}) == (["b", "a"], {"rho"})
    assert {*table[table.protocol == "published"].ranked_by} == {"score"}
    shown, _ = next(boards(table))
    assert shown.value.tolist() == [0.3, 0.2]


CONTROL = {"control": "centre", "score": 0.2, "low": 0.15, "high": 0.26, "raw": 0.1, "raw_low": 0.08,
           "raw_high": 0.12, "n": 60, "protocol": "gaze"}  # fmt: skip
OF_THE_CONTROL = ["control_score", "over_control", "over_control_low", "over_control_high"]


def with_control(table: pd.DataFrame, **more) -> pd.DataFrame:
    table.attrs["leaderboard"] = {"controls": [CONTROL | more]}
    return table


@pytest.mark.parametrize("first", [0, 1])
def test_by_rho_every_number_of_a_row_is_in_rho_whichever_run_comes_first(first):
    """A ceiling of 0.5 halves what is said of the control; without one nothing changes."""
    known = with_control(board({"a": 0.2}, over_control=0.4, over_control_low=0.3,
                               over_control_high=0.5), reading="whole")  # fmt: skip
    unknown = {"score": np.nan, "ceiling": np.nan, "reading": "centre", "control_score": 0.1}
    unknown = with_control(board({"b": 0.3}, "runs/b", **unknown), reading="centre", score=0.1)
    runs = [known, unknown]
    table = leaderboard(runs[first], runs[1 - first])
    for _ in range(2):  # merged again, they stay
        rows = table.set_index("label")
        assert rows.loc["a", OF_THE_CONTROL].tolist() == pytest.approx([0.1, 0.2, 0.15, 0.25])
        assert rows.loc["b", OF_THE_CONTROL].tolist() == pytest.approx([0.1, 0.1, 0.0, 0.2])
        _, controls = next(boards(table))
        assert controls[["score", "low", "high"]].to_numpy() == pytest.approx(
            np.array([[0.1, 0.08, 0.12]] * 2)
        )
        table = leaderboard(table)
    alone = leaderboard(table[table.label == "a"])  # without the other, scores again
    assert alone[OF_THE_CONTROL].iloc[0].tolist() == pytest.approx([0.2, 0.4, 0.3, 0.5])


def test_scores_keep_the_controls_intervals_and_another_datas_controls_are_not_taken():
    table = leaderboard(
        with_control(
            board({"b": 0.3}, method="other", images_sha256="x"), reading="whole", raw=0.4
        ),
        with_control(board({"a": 0.2}), reading="whole"),
        method="grad_cam",
    )
    (control,) = controls_of_board(table).itertuples()
    assert (control.raw, control.score, control.low, control.high) == (0.1, 0.2, 0.15, 0.26)


@pytest.mark.parametrize("first", [0, 1])
def test_a_known_and_an_unknown_ceiling_of_one_reading_are_refused(first):
    runs = [board({"a": 0.2}), board({"b": 0.3}, "runs/b", score=np.nan, ceiling=np.nan)]
    with pytest.raises(
        ValueError,
        match="^runs/b cannot be merged with runs/a: it has no human "
        r"ceiling \(protocol gaze, whole\), but runs/a has 0\.5000 given; .* same --ceiling$",
    ):
        leaderboard(runs[first], runs[1 - first])


def test_a_readable_table_keeps_scores_and_rho_in_columns_of_their_own():
    table = leaderboard(
        board({"a": 0.2}), board({"a": 0.2}, protocol="none", score=np.nan, ceiling=np.nan)
    )
    text = readable_leaderboard(table)
    assert text["Score [95 %]"].tolist() == ["0.400 [0.200, 0.600]", "–"]
    assert text["Mean ρ [95 %]"].tolist() == ["–", "0.200 [0.100, 0.300]"]


# --- merging ----------------------------------------------------------------------------------


def test_two_halves_are_the_whole_and_a_model_of_both_is_there_once():
    whole = leaderboard(board({"a": 0.1, "b": 0.3, "c": 0.2}))
    second = board({"c": 0.2, "b": 0.30009}, "runs/b")
    table = leaderboard(board({"a": 0.1, "b": 0.3}), second)
    pd.testing.assert_frame_equal(table.drop(columns="run"), whole.drop(columns="run"))
    assert table.run.tolist() == ["runs/a", "runs/b", "runs/a"]
    assert notes(table) == ["b of runs/a is also in runs/b, with the same score: it counts once."]


@pytest.mark.parametrize("other", [{"rho": 0.3002}, {"n": 59}, {"rho": np.nan}])
def test_one_model_with_two_scores_is_refused_with_both(other):
    with pytest.raises(ValueError, match=r"b has two scores .* 0\.300000 over 60 images in runs/a"):
        leaderboard(board({"b": 0.3}), board({"b": 0.3}, "runs/b").assign(**other))


def test_the_same_rho_with_another_score_is_refused():
    with pytest.raises(
        ValueError, match=r"two scores .* 0\.600000 in runs/a and 0\.600200 in runs/b"
    ):
        leaderboard(board({"b": 0.3}), board({"b": 0.3}, "runs/b", score=0.6002))


@pytest.mark.parametrize("value", [np.nan, None, "False", False, "no", 0.0])
def test_only_a_yes_lies_above_the_control(value):
    assert not leaderboard(board({"a": 0.2}).assign(above_control=value)).above_control.any()
    assert leaderboard(board({"a": 0.2}).assign(above_control="True")).above_control.all()


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("rho", np.inf, "rho must be finite, but is inf"),
        ("rho", 7, "rho must be from -1 to 1, but is 7"),
        ("n", -3, "n must be 0 or more, but is -3"),
        ("n", pd.NA, "n must be a number of images, but is missing"),
        ("ceiling", 0, "ceiling must be above 0 and at most 1, but is 0"),
        ("over_control", -np.inf, "over_control must be finite, but is -inf"),
        ("untrained", np.nan, "untrained must be True or False, but is missing"),
        ("ranked_by", "x", "ranked_by must be score or rho, but is 'x'"),
    ],
)
def test_what_no_run_can_have_is_refused_with_file_and_row(column, value, told, tmp_path):
    table = board({"a": 0.1, "b": 0.3})
    table[column] = [table[column][0], value]
    if column == "n":
        table["n"] = table.n.astype("Int64")
    table.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=re.escape(f"x.parquet, row 2 (b): {told}")):
        leaderboard(tmp_path / "x.parquet")


def test_tables_without_rows_are_refused_and_versions_may_lack():
    with pytest.raises(ValueError, match="table 2 has no rows"):
        leaderboard(board({"a": 0.1}), board({"a": 0.1})[:0])
    table = leaderboard(board({"a": 0.1}), board({"b": 0.1}, "runs/b", versions=""))
    assert notes(table)[0] == "The runs differ in torch: 2.1 (runs/a); unknown (runs/b)."


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("human_maps_id", "x", "human maps are made differently (protocol gaze): blurred by 1°"),
        ("images_sha256", "9" * 64, "images or human maps are other files: people, SHA-256 999"),
        ("scored_sha256", "x", "other images were scored (protocol gaze): images 60"),
        ("target", "predicted", "its heatmaps explain another class: predicted, not true"),
        ("method_id", "x", "the method's formula differs (method grad_cam)"),
        ("rules", "2-x", "its rules differ: 2-x, not 1-abc"),
        ("ceiling", 0.51, "its human ceiling differs (protocol gaze, whole): 0.5100 given"),
        ("code_id", "x", "computed by other code"),
        ("precision", "bfloat16", "at another precision: bfloat16, not float32"),
    ],
)
def test_what_cannot_be_compared_is_refused_naming_what_differs_and_where(column, value, told):
    with pytest.raises(ValueError, match=re.escape(told)) as refused:
        leaderboard(board({"a": 0.1}), board({"b": 0.3}, "runs/b", **{column: value}))
    assert str(refused.value).startswith("runs/b cannot be merged with runs/a: ")


def test_what_only_one_run_has_keeps_nobody_from_merging():
    other = board({"b": 0.3}, "runs/b", method="layer_cam", method_id="x", protocol="corrected",
                  human_maps_id="x", scored_sha256="x", reading="centre", ceiling=0.6)  # fmt: skip
    assert len(leaderboard(board({"a": 0.1}), other)) == 2


def test_versions_and_devices_are_told_and_code_only_merges_when_asked():
    other = {"versions": "torch 2.2, timm 1.0", "device": "cuda"}
    table = leaderboard(board({"a": 0.1}), board({"b": 0.3}, "runs/b", **other))
    device = "The runs differ in device: cpu (runs/a); cuda (runs/b)."
    assert notes(table) == [device, "The runs differ in torch: 2.1 (runs/a); 2.2 (runs/b)."]
    old = board({"b": 0.3}, "runs/b", code_id="old")
    with pytest.raises(ValueError, match="--across-versions"):
        leaderboard(board({"a": 0.1}), old)
    table = leaderboard(board({"a": 0.1}), old, across_versions=True)
    assert notes(table) == ["The runs differ in code: c (runs/a); old (runs/b)."]


def test_different_models_of_one_label_are_told_apart():
    other = {"label": "a", "weights_sha256": "123456789"}
    assert leaderboard(board({"a": 0.1}), board({"b": 0.3}, **other)).label.tolist() == [
        "a (12345678)", "a (aaaa)",
    ]  # fmt: skip


def test_folders_and_files_are_read_and_what_is_none_is_named(tmp_path):
    (tmp_path / "b" / "tables").mkdir(parents=True)
    file = tmp_path / "b" / "tables" / "leaderboard.parquet"
    leaderboard(board({"b": 0.3}, "far/away")).to_parquet(file)
    assert leaderboard(tmp_path / "b").run.tolist() == [str(tmp_path / "b")]
    twice = leaderboard(tmp_path / "b", tmp_path / "b")
    assert notes(twice) == [f"{tmp_path / 'b'} is given twice: it counts once."]
    assert leaderboard(file, board({"a": 0.1})).run.tolist() == ["far/away", "runs/a"]
    with pytest.raises(MissingInputs, match="holds no leaderboard .* run notebook 05c"):
        leaderboard(tmp_path)
    with pytest.raises(MissingInputs, match="does not exist: give a folder of results"):
        leaderboard(tmp_path / "none")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"leaderboard\.parquet cannot be read"):
        leaderboard(tmp_path / "b")
    with pytest.raises(ValueError, match="table 1 is not a leaderboard: it lacks n"):
        leaderboard(board({"a": 0.1}).drop(columns="n"))
    with pytest.raises(ValueError, match=f"has schema 9, but this version reads {SCHEMA}"):
        leaderboard(board({"a": 0.1}, schema=9))


# --- of a study, and beside accuracy ----------------------------------------------------------


def test_a_studys_models_have_their_scores_weights_and_controls(tmp_path):
    """Image k has ρ = k / 10; image 0 is invalid without DCLS, image 1 with, which adds 0.05."""
    study = Study.from_profile("demo", ["resnet50"], ["grad_cam"], protocols=["published"])
    controls = pd.DataFrame({"protocol": "published", "reading": "whole", "control": "centre",
                             "image_id": [f"val-0:{i}" for i in range(10)], "rho": 0.25,
                             "partial": 0.0, "validity": "valid"})  # fmt: skip
    table = leaderboard_of(study, made_up_scores(study), controls, CEILINGS)
    assert table.model.tolist() == ["resnet50_dcls", "resnet50"]
    assert table.rho.tolist() == pytest.approx([44 / 90 + 0.05, 0.5])
    ceiling = 0.6575315343478081  # ClickMe's, as published
    assert table.score.tolist() == pytest.approx([(44 / 90 + 0.05) / ceiling, 0.5 / ceiling])
    assert (table.n.tolist(), table.n_top1.tolist()) == ([9, 9], [10, 10])
    assert table.top1.tolist() == [0.8, 0.8]
    assert table.imagenet_top1.isna().all()  # a miniature's weights are not published
    names = "\n".join(sorted(f"val-0:{i}" for i in range(10)))
    assert {*table.scored_sha256} == {hashlib.sha256(names.encode()).hexdigest()}
    files = [ROOT / "data" / "demo" / "checkpoints" / f"{m}.safetensors" for m in table.model]
    assert table.weights_sha256.tolist() == [
        hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    ]
    assert table.model_id.nunique() == 2
    (control,) = controls_of_board(table).itertuples()
    assert (control.control, control.raw, control.n) == ("centre", 0.25, 10)
    assert control.score == pytest.approx(0.25 / ceiling)
    table.to_parquet(tmp_path / "b.parquet", index=False)  # as the notebook saves it
    again = leaderboard(tmp_path / "b.parquet")
    pd.testing.assert_frame_equal(again, table)
    assert again.attrs == table.attrs


def test_a_study_without_controls_has_a_leaderboard_all_the_same():
    study = Study.from_profile("demo", ["resnet50"], ["grad_cam"], protocols=["published"])
    table = leaderboard_of(study, made_up_scores(study), NO_CONTROLS, CEILINGS)
    assert len(table) == 2
    assert len(controls_of_board(table)) == 0
    assert not table.above_control.any()


def test_accuracy_and_agreement_are_correlated_by_ranks_over_five_models_or_more():
    top1, value = [70.0, 80, 75, 90, 85, np.nan], [0.1, 0.3, 0.5, 0.2, 0.4, 0.9]
    rows = pd.DataFrame({"imagenet_top1": top1, "value": value})
    found, n = accuracy_correlation(rows)
    assert n == 5
    assert found == pytest.approx(spearmanr(top1[:5], value[:5]).statistic)
    found, n = accuracy_correlation(rows[1:])
    assert n == 4
    assert np.isnan(found)


def test_the_page_describes_every_column_in_its_order():
    page = (ROOT / "docs" / "leaderboard.md").read_text()
    kinds = {"str": "text", "float64": "number", "Int64": "count", "bool": "yes or no"}
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.M)
    assert rows == [(name, kinds[kind]) for name, kind in COLUMNS.items()]
    assert f"Schema {SCHEMA};" in page
