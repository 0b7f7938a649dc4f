"""Threshold-Grad-CAM makes two changes to Grad-CAM: which of them matters?

Every order of ReLU and mean over channels is scored with every floor, all in one pass.
"""

from __future__ import annotations

from itertools import product

import pandas as pd

from ..maps.methods import FLOORS, METHODS, PUBLISHED_FLOOR, family_key
from ..scores.agreements import VALID
from ..scores.ceiling import Ceilings
from ..scores.statistics import mean_interval, means_by
from ..scores.study_scores import score_study
from ..study.study import Study

ORDERS = {False: "mean, then ReLU", True: "ReLU, then mean"}
CHANGES = {
    "floor alone": (False, PUBLISHED_FLOOR),
    "ReLU first alone": (True, 0.0),
    "both: Threshold-Grad-CAM": (True, PUBLISHED_FLOOR),
}


def score_family(study: Study) -> pd.DataFrame:
    """Return the per-image table of all orders and floors, on the profile's sample of images."""
    keys = [family_key(order, floor) for order, floor in product(ORDERS, FLOORS)]
    methods = tuple(METHODS[key] for key in keys)
    return score_study(study.sampled(methods=methods, protocols=study.choices.protocols[:1]))


def sweep(scores: pd.DataFrame, ceilings: Ceilings) -> pd.DataFrame:
    """Return `score, low, high, tied, attainable, n, ceiling` of every model, order and floor."""
    rows = []
    scores = ceilings.scored(scores)
    groups = dict(list(scores[scores.validity == VALID].groupby(["backbone", "dcls", "method"])))
    models = scores[["backbone", "dcls"]].drop_duplicates().itertuples(index=False)
    for (backbone, dcls), order, floor in product(models, ORDERS, FLOORS):
        valid = groups.get((backbone, dcls, family_key(order, floor)), scores.iloc[:0])
        found = mean_interval(valid.score)
        rows.append(
            {"backbone": backbone, "dcls": dcls, "order": ORDERS[order], "floor": floor,
             "score": found.mean, "low": found.low, "high": found.high,
             "tied": valid.tied.mean(), "attainable": valid.attainable.mean(), "n": found.n,
             "ceiling": valid.ceiling.max()}
        )  # fmt: skip
    return pd.DataFrame(rows)


def two_by_two(scores: pd.DataFrame, ceilings: Ceilings) -> pd.DataFrame:
    """Return each model's paired change of score from plain Grad-CAM: `change, low, high, n,
    ceiling`."""
    scores = ceilings.scored(scores)
    wide = scores.assign(score=scores.score.where(scores.validity == VALID)).pivot(
        index=["backbone", "dcls", "image_id"], columns="method", values="score"
    )
    changes = [
        (wide[family_key(order, floor)] - wide.grad_cam)
        .rename("change")
        .reset_index()
        .assign(change_by=name)
        for name, (order, floor) in CHANGES.items()
    ]
    table = means_by(pd.concat(changes), ["backbone", "dcls", "change_by"], "change", "change")
    return table.assign(ceiling=table.backbone.map(scores.groupby("backbone").ceiling.first()))
