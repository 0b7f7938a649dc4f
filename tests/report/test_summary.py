"""The report's first screen says and draws what the tables hold, for runs of every kind."""

from __future__ import annotations

import pandas as pd
import pytest

from lib.report.summary import DECISIONS, summary_of
from lib.scores import decisions
from lib.study.comparisons import COMPARISONS

CHANGE = COMPARISONS["dcls"].change


def row(model: str, score: float, method: str = "Grad-CAM", **more) -> dict:
    """A row of the results table, of a model alone, with a ceiling of 0.8."""
    found = {
        "comparison": "none", "protocol": "p", "method": method, "model": model,
        "variant": model, "panel": method, "group": model, "place": 0, "form": "",
        "ceiling": 0.8, "unit": "rho / ceiling", "n": 60,
        "control": "centre", "control_score": 0.4, "above_control": score > 0.5,
        "decision": None,
    }  # fmt: skip
    for name, factor in (("score", 1), ("rho", 0.8)):
        ends = {"": score, "_low": score - 0.1, "_high": score + 0.1}
        found |= {f"{name}{end}": value * factor for end, value in ends.items()}
    return found | more


def pair(group: str, first: float, second: float, decision: str, **more) -> list[dict]:
    place = {"comparison": "dcls", "group": group} | more
    return [
        row(group, first, place=0, form="without DCLS", **place),
        row(f"{group} + DCLS", second, place=1, form="with DCLS", decision=decision, **place),
    ]


def said(*rows: dict, **tables) -> str:
    return " ".join(summary_of(CHANGE, pd.DataFrame(rows), **tables).sentences)


CONTROLS = pd.DataFrame(
    {
        "protocol": "p", "reading": "whole", "control": ["centre", "random"],
        "score": [0.4, 0.0], "low": [0.3, -0.1], "high": [0.5, 0.1],
        "raw": [0.32, 0.0], "raw_low": [0.24, -0.08], "raw_high": [0.4, 0.08],
    }
)  # fmt: skip


def test_one_model_by_one_method():
    found = said(row("A", 0.75))
    assert "The Grad-CAM heatmaps of A have a score of 0.75 [0.65, 0.85]." in found
    assert "reaches 0.40 (centred Gaussian)." in found
    assert "It lies significantly above the floor." in found
    assert "It does not lie significantly above the floor." in said(row("A", 0.45))
    few = said(row("A", 0.75, n=12))
    assert few.startswith("Undecided: 12 images cannot show whether a model lies above the floor;")
    assert "significantly" not in few


def test_one_model_by_many_methods_is_told_by_the_first_not_by_the_best():
    rows = [row("A", 0.2 + place / 20, f"method {place}", variant="a") for place in range(12)]
    found = summary_of(CHANGE, pd.DataFrame(rows), CONTROLS)
    assert found.sentences[0] == "The method 0 heatmaps of A have a score of 0.20 [0.10, 0.30]."
    assert found.sentences[-1] == "Of 12 CAM methods, 5 lie significantly above the floor."
    labels = [line.label for line in found.scale.lines]
    assert labels == [
        "people (the ceiling)", "all 12 CAM methods", "method 0", "highest: method 11",
        "lowest: method 0", "floor: centred Gaussian",
    ]  # fmt: skip
    assert len(found.scale.lines[1].marks) == 12


def test_many_models_are_told_by_their_range():
    rows = [row(f"model {place}", place / 30) for place in range(30)]
    found = summary_of(CHANGE, pd.DataFrame(rows))
    assert "By Grad-CAM, the score of 30 models runs from 0.00 (model 0) to 0.97 (model 29)." in (
        found.sentences
    )
    assert "Of 30 models, 14 lie significantly above the floor." in found.sentences
    assert len(found.scale.lines) == 4  # people, all, highest, lowest
    assert "All 2 models lie significantly above the floor." in said(row("A", 0.7), row("B", 0.8))
    assert "Of 2 models, none lies significantly above the floor." in said(
        row("A", 0.3), row("B", 0.2)
    )


def test_differences_are_counted_by_their_decision_for_each_method():
    rows = [
        *pair("A", 0.6, 0.8, decisions.RISES),
        *pair("B", 0.6, 0.7, decisions.RISES),
        *pair("C", 0.7, 0.6, decisions.FALLS),
        *pair("A", 0.6, 0.6, decisions.OPEN, method="Other", panel="Other"),
    ]
    found = summary_of(CHANGE, pd.DataFrame(rows), CONTROLS)
    assert found.sentences[0] == (
        "In 3 comparisons by Grad-CAM (with DCLS minus without), the score rises in 2 and falls in 1."
    )
    assert found.sentences[1] == (
        "In 1 comparison by Other (with DCLS minus without), the score is undecided."
    )
    assert [line.label for line in found.scale.lines][1:4] == ["A", "B", "C"]
    assert [line.told for line in found.scale.lines][1:4] == [
        "0.60 → 0.80", "0.60 → 0.70", "0.70 → 0.60",
    ]  # fmt: skip
    assert found.scale.forms == ("without DCLS", "with DCLS")


def test_every_decision_has_its_words():
    words = {value for name, value in vars(decisions).items() if name.isupper()}
    assert {word for word in words if isinstance(word, str)} == set(DECISIONS)


def test_too_few_images_decide_no_comparison():
    rows = pair("A", 0.6, 0.8, decisions.TOO_FEW, n=8)
    found = summary_of(CHANGE, pd.DataFrame(rows)).sentences
    assert found[1] == (
        "The comparison (with DCLS minus without) is not decided: at least 50 images are needed."
    )


def test_claims_come_first():
    verdicts = pd.DataFrame(
        {"verdict": ["reproduced", "not reproduced", "reproduced", "not asked"]}
    )
    found = summary_of(CHANGE, pd.DataFrame([row("A", 0.7)]), verdicts=verdicts).sentences
    assert found[0] == "Of the paper's 4 claims: 2 reproduced, 1 not reproduced."
    none = pd.DataFrame({"verdict": ["not asked"]})
    assert "claims" not in said(row("A", 0.7), verdicts=none)


def test_points_lie_where_their_values_are():
    found = summary_of(CHANGE, pd.DataFrame([row("A", 0.7)]), CONTROLS).scale
    ticks = {text: at for at, text in found.ticks}
    assert (ticks["-0.2"], ticks["1.0"]) == (0, 100)  # -0.1 and 1 lie within
    assert ticks["0.4"] == pytest.approx(50)
    people, model, floor = found.lines
    assert people.marks[0].at == found.one == 100
    (mark,) = model.marks
    assert (mark.at, mark.low, mark.high) == pytest.approx((75, 66.67, 83.33), abs=0.01)
    assert model.floor == pytest.approx(50)
    control, strongest = floor.marks
    assert (control.kind, control.at) == ("control", pytest.approx(16.67, abs=0.01))
    assert (strongest.kind, strongest.at, strongest.low) == (
        "floor", pytest.approx(50), pytest.approx(41.67, abs=0.01),
    )  # fmt: skip
    assert found.title == "Score of Grad-CAM, protocol p, n = 60 images"


def test_without_a_ceiling_the_scale_is_of_rho():
    nothing = dict.fromkeys(("ceiling", "score", "score_low", "score_high"), float("nan"))
    alone = row("A", 0.5) | nothing | {"unit": "rho"}
    found = summary_of(CHANGE, pd.DataFrame([alone]))
    assert found.sentences[0] == "The Grad-CAM heatmaps of A have a mean ρ of 0.40 [0.32, 0.48]."
    assert found.scale.one is None
    assert found.scale.lines[0].label == "A"
    # In two units, controls cannot be compared with all rows.
    mixed = summary_of(CHANGE, pd.DataFrame([alone, row("B", 0.5)]))
    assert not any("floor" in sentence for sentence in mixed.sentences)
    assert "mean ρ of 2 models" in mixed.sentences[0]


def test_floors_that_depend_on_the_part_of_the_image_are_a_range():
    found = said(row("A", 0.7), row("B", 0.8, control_score=0.45))
    assert "reaches 0.40 to 0.45 (centred Gaussian; it depends on the part of the image" in found
    readings = CONTROLS.assign(reading=["whole", "centre"])
    scale = summary_of(CHANGE, pd.DataFrame([row("A", 0.7)]), readings).scale
    assert [line.label for line in scale.lines] == ["people (the ceiling)", "A"]


def test_how_well_people_agree_is_told():
    numbers = {"ceiling": 0.8, "low": 0.7, "high": 0.9, "one_against_rest": 0.6}
    ends = {"one_against_rest_low": 0.5, "one_against_rest_high": 0.65}
    ceilings = pd.DataFrame(
        [{"protocol": "p", "origin": "estimated from observers"} | numbers | ends]
    )
    results = pd.DataFrame([row("A", 0.7)])
    assert summary_of(CHANGE, results, ceilings=ceilings).people == (
        "Here it is ρ = 0.80 [0.70, 0.90] (estimated from observers). "
        "One person's map correlates with all others' at ρ = 0.60 [0.50, 0.65]."
    )
    published = ceilings.assign(low=float("nan"), origin="published", one_against_rest=float("nan"))
    assert summary_of(CHANGE, results, ceilings=published).people == (
        "Here it is ρ = 0.80 (published)."
    )
    unknown = published.assign(ceiling=float("nan"))
    assert "not known" in summary_of(CHANGE, results, ceilings=unknown).people


def test_a_run_without_scores_tells_what_it_has():
    assert summary_of(CHANGE, None).sentences == []
    assert summary_of(CHANGE, pd.DataFrame([row("A", float("nan"))])).sentences == [
        "No heatmap has a valid score."
    ]
    beside = {"protocol": "p", "reading": "whole", "kind": "control", "label": "a blob"}
    beside |= {"rho": 0.4, "low": 0.3, "high": 0.5, "n": 60, "above_control": False}
    (only,) = summary_of(CHANGE, None, beside_people=pd.DataFrame([beside])).sentences
    assert "a blob, reaches 0.40 [0.30, 0.50]" in only
