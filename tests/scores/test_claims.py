"""Verdicts on score tables that are built so that a claim is true, false, or undecidable."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lib.networks.backbones import THE_EIGHT
from lib.scores.agreements import VALID
from lib.scores.claims import NOT_ASKED, NOT_REPRODUCED, REPRODUCED, UNDECIDED, verdicts
from lib.study.study import Study

KEYS = [b.key for b in THE_EIGHT]
CLAIMS = ("dcls", "metaformers", "threshold", "fastvit", "size")


def table(mean, noise=0.05, n=80) -> pd.DataFrame:
    """mean(key, dcls, threshold) gives a model's mean correlation."""
    rng = np.random.default_rng(0)
    easy = rng.normal(0, 0.05, n)
    frames = []
    for key in KEYS:
        for dcls in (False, True):
            for method in ("grad_cam", "threshold_grad_cam"):
                rho = mean(key, dcls, method == "threshold_grad_cam") + easy
                frames.append(
                    pd.DataFrame({"rho": rho + rng.normal(0, noise, n),
                                  "image_id": np.arange(n).astype(str)})
                    .assign(backbone=key, dcls=dcls, method=method)
                )  # fmt: skip
    return pd.concat(frames, ignore_index=True).assign(protocol="published", validity=VALID)


def controls(floor=0.0, n=80) -> pd.DataFrame:
    rho = floor + np.random.default_rng(1).normal(0, 0.01, n)
    return pd.DataFrame({"rho": rho, "image_id": np.arange(n).astype(str), "control": "other_human", "protocol": "published",
                         "reading": "whole", "validity": VALID})  # fmt: skip


def decided(mean, **options) -> dict[str, pd.Series]:
    study = Study.from_profile("paper", protocols=["published"])
    found = verdicts(study, table(mean, **options), controls())
    assert len(found) == 5
    return dict(zip(CLAIMS, [row for _, row in found.iterrows()], strict=True))


def as_claimed(key, dcls, threshold):
    size = dict(zip(KEYS, (1, 2, 5, 8, 0.5, 1.5, -1, 3), strict=True))
    sizes = {"resnet50": 25.6, "convnext_tiny": 28.6, "convnext_small": 50.2, "convnext_base": 88.6,
             "caformer_s18": 26.3, "convformer_s18": 26.8, "fastvit_sa24": 21.6, "fastvit_sa36": 31.5}  # fmt: skip
    assert set(size) == set(sizes)
    if not threshold and "former" in key:
        return 0.02 + 0.05 * dcls
    rise = -0.05 if key == "fastvit_sa24" else 0.05
    return 0.2 + 0.002 * sizes[key] + 0.08 * threshold + rise * dcls


def test_all_claims_hold_where_they_are_built_in():
    found = decided(as_claimed)
    assert {name: row.verdict for name, row in found.items()} == dict.fromkeys(CLAIMS, REPRODUCED)
    assert (found["dcls"].value, found["dcls"].low, found["dcls"].high) == (7, 7, 7)
    assert found["size"].value == pytest.approx(1)
    assert found["metaformers"].high < 0
    assert "Trained by other recipes" in found["dcls"].notes
    assert "ClickMe" in found["dcls"].speaks_of


def test_no_claim_holds_where_the_opposite_is_built_in():
    def opposite(key, dcls, threshold):
        return 0.6 - as_claimed(key, False, True) - 0.08 * threshold - 0.05 * dcls

    found = decided(opposite)
    assert {name: row.verdict for name, row in found.items()} == dict.fromkeys(
        CLAIMS, NOT_REPRODUCED
    )


def test_no_claim_is_decided_where_nothing_but_noise_is():
    found = decided(lambda *_: 0.3, noise=0.3, n=30)
    undecided = {name for name, row in found.items() if row.verdict == UNDECIDED}
    assert {"dcls", "threshold", "fastvit", "size"} <= undecided
    # Equal maps everywhere do contradict that the MetaFormers' are worse.
    assert found["metaformers"].verdict == NOT_REPRODUCED


def test_six_risers_and_one_open_are_undecided():
    def mean(key, dcls, threshold):
        rise = {"resnet50": -0.1, "convnext_tiny": 0.004}.get(key, 0.1)
        return 0.3 + rise * dcls

    row = decided(mean)["dcls"]
    assert (row.verdict, row.low, row.high) == (UNDECIDED, 6, 7)


def test_a_claim_about_models_that_are_not_chosen_is_not_asked():
    study = Study.from_profile("paper", models=["resnet50"], protocols=["published"])
    scores = table(as_claimed)
    found = verdicts(study, scores[scores.backbone == "resnet50"], controls())
    assert (found.verdict == NOT_ASKED).all()
    assert found.because.str.contains("cannot be asked of this study").all()


def test_other_readings_stand_beside_the_first():
    study = Study.from_profile("paper", protocols=["published", "corrected"])
    scores = pd.concat([table(as_claimed), table(lambda *_: 0.3).assign(protocol="corrected")])
    both = pd.concat([controls(), controls().assign(protocol="corrected")])
    found = verdicts(study, scores, both)
    assert (found.verdict == REPRODUCED).all()
    assert found.other_readings.str.startswith("corrected: ").all()
    assert not found.other_readings.str.startswith("corrected: reproduced").any()


def test_on_the_demo_verdicts_speak_of_the_demo_only():
    study = Study.from_profile("demo", protocols=["published"])
    found = verdicts(study, table(as_claimed), controls())
    assert found.speaks_of.str.contains("of nothing else").all()
    assert found.speaks_of.str.contains("No evidence about DCLS").all()


@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_few_pictures_decide_nothing_but_what_is_beyond_doubt(n):
    found = decided(lambda *_: 0.3, noise=0.3, n=n)
    assert {row.verdict for row in found.values()} == {UNDECIDED}


def test_maps_that_are_all_constant_are_told_as_that():
    study = Study.from_profile("paper", protocols=["published"])
    scores = table(as_claimed)
    lost = (scores.backbone == "caformer_s18") & (scores.method == "grad_cam")
    scores.loc[lost, "validity"] = "constant model map"
    found = verdicts(study, scores, controls()).set_index("claim")
    row = found[found.index.str.startswith("CAFormer")].iloc[0]
    assert row.verdict == UNDECIDED
    assert "no picture has a valid grad_cam map of caformer_s18" in row.because
