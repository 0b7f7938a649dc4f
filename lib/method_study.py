"""Which CAM method agrees most with people, which is most faithful, and what does each cost?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import pandas as pd
import torch

from lib.backbones import Backbone, variant_name
from lib.cam import enlarge, head_pass
from lib.heatmaps import held_out
from lib.methods import METHODS, CamMethod
from lib.results import HUMAN_CEILING
from lib.scoring import VALID
from lib.statistics import mean_interval, means_by
from lib.study import Study

_ROUNDS = 3


def quick(methods: Sequence[CamMethod]) -> tuple[CamMethod, ...]:
    """Those that need no further forwards of the network."""
    return tuple(method for method in methods if not method.forwards)


def method_costs(
    study: Study, backbone: Backbone, methods: Sequence[CamMethod], count: int = 4
) -> pd.DataFrame:
    """Of each method: `method, ms, forwards`, a picture's time beyond the one forward and head
    gradient that all share, and that as a multiple of the network's plain forward."""
    batch = held_out(study, count)
    model = study.load_model(backbone.key, False).for_inference(keep_plain=True)
    x = model.prepare(batch.pictures)

    def timed(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        if x.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def typical(work: Callable[[], object]) -> float:
        return median([timed(work) for _ in range(_ROUNDS + 1)][1:]) / len(x)

    with torch.inference_mode():
        forward = typical(lambda: model(x))
    passed, alone = (head_pass(model, some, batch.labels[: len(some)]) for some in (x, x[:1]))
    rows = []
    for method in methods:
        if method.forwards:  # many: once, on one picture
            seconds = timed(lambda m=method: enlarge(m.maps(model, x[:1], alone)))
        else:
            seconds = typical(lambda m=method: enlarge(m.maps(model, x, passed)))
        rows.append({"method": method.key, "ms": 1e3 * seconds, "forwards": seconds / forward})
    return pd.DataFrame(rows)


def estimate(costs: pd.DataFrame, methods: Sequence[CamMethod], pictures: int) -> str:
    """In words: how long maps of so many pictures will take, forwards left out."""
    seconds = costs.set_index("method").ms[[m.key for m in methods]].sum() * pictures / 1e3
    return f"about {seconds:.0f} s" if seconds < 120 else f"about {seconds / 60:.0f} min"


def alignment(scores: pd.DataFrame) -> pd.DataFrame:
    """Score of each model and method: `backbone, dcls, method, score, low, high, n`."""
    valid = scores[scores.validity == VALID]
    valid = valid.assign(score=valid.rho / HUMAN_CEILING)
    return means_by(valid, ["backbone", "dcls", "method"], "score", "score")


def faithfulness(values: pd.DataFrame) -> pd.DataFrame:
    """Mean of every measure: `backbone, dcls, method, measure, value, low, high, n`."""
    return means_by(values, ["backbone", "dcls", "method", "measure"], "value", "value")


def rank_methods(scores: pd.DataFrame) -> pd.DataFrame:
    """Methods by their score over all models, the best first: `method, score, low, high, n`.

    Images are what the intervals are over: each image's score is its mean over the models for
    which every method has a map of it, so that methods are compared on the same.
    """
    valid = scores[scores.validity == VALID]
    wide = valid.pivot(index=["backbone", "dcls", "image_id"], columns="method", values="rho")
    per_image = (wide.dropna() / HUMAN_CEILING).groupby(level="image_id").mean()
    rows = []
    for method in per_image:
        found = mean_interval(per_image[method])
        rows.append(
            {"method": method, "label": METHODS[method].label, "score": found.mean,
             "low": found.low, "high": found.high, "n": found.n}
        )  # fmt: skip
    return pd.DataFrame(rows).sort_values("score", ascending=False, ignore_index=True)


@torch.no_grad()
def map_grid(
    study: Study, methods: Sequence[CamMethod], variants: Sequence[tuple[Backbone, bool]]
) -> tuple[dict[str, object], object, list[str]]:
    """One picture's maps: {method label: (variant, side, side)}, the picture, variants' names."""
    batch = held_out(study, 1)
    rows: dict[str, list] = {method.label: [] for method in methods}
    for backbone, dcls in variants:
        model = study.load_model(backbone.key, dcls).for_inference(
            keep_plain=any(method.plain for method in methods)
        )
        x = model.prepare(batch.pictures)
        passed = head_pass(model, x, batch.labels)
        for method in methods:
            maps = enlarge(method.maps(model, x, passed), batch.pictures.shape[1])
            rows[method.label].append(maps[0].cpu().numpy())
    names = [variant_name(b.key, d) for b, d in variants]
    return rows, batch.pictures[0], names
