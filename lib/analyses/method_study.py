"""The study of methods: agreement with people, faithfulness and cost of each CAM method."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import pandas as pd
import torch

from ..maps.feature_concepts import factorised
from ..maps.forward import enlarge, head_pass
from ..maps.methods import METHODS, RANDOM_CAM, CamMethod
from ..maps.placed import heatmaps
from ..networks.backbones import Backbone
from ..scores.agreements import VALID
from ..scores.ceiling import Ceilings
from ..scores.statistics import holm, mean_interval, mean_p, means_by
from ..study.exhibits import held_out
from ..study.study import Study
from .faithfulness.definitions import FAITHFULNESS, ends_of
from .faithfulness.study import score_faithfulness

_ROUNDS = 3


# The methods for deletion, insertion and ROAD, which cost most: the study's two, two of other
# kinds, the control, and every learned method that is chosen. A short run's are in its `Brief`.
CONTRASTED = ("grad_cam", "threshold_grad_cam", "layer_cam", "eigen_cam", RANDOM_CAM)


def contrasted(
    methods: Sequence[CamMethod], keys: Sequence[str] = CONTRASTED
) -> tuple[CamMethod, ...]:
    """Return the methods that have one of these keys or are learned; the first two if none does."""
    found = tuple(method for method in methods if method.key in keys or method.learned)
    return found or tuple(methods[:2])


def shown_backbones(study: Study) -> list[Backbone]:
    """Those whose maps are looked at method by method: ConvNeXt-T and ResNet-50 where they are
    chosen; in a short run the first alone."""
    return study.networks.prefer(*study.choices.briefly("shown", ("convnext_tiny", "resnet50")))


def quick(methods: Sequence[CamMethod]) -> tuple[CamMethod, ...]:
    """Return the methods that need at most one additional forward pass of the network."""
    return tuple(method for method in methods if method.forwards in (0, 1))


def method_costs(
    study: Study, backbone: Backbone, methods: Sequence[CamMethod], count: int = 4
) -> pd.DataFrame:
    """Return the cost of each method: `method, ms, in_forwards`.

    `ms` is the time per image in milliseconds, beyond the forward pass and head gradient that all
    methods share. `in_forwards` is the same as a multiple of the network's plain forward pass."""
    batch = held_out(study, count)
    model = study.networks.inference_model(backbone.key, False, methods)
    x = model.prepare(batch.images)

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
    passed, alone = (
        head_pass(model, some, study.choices.asked(batch.labels[: len(some)]))
        for some in (x, x[:1])
    )
    rows = []
    for method in methods:
        if method.forwards:  # many forward passes, so timed once, on one image
            seconds = timed(lambda m=method: enlarge(m.maps(model, x[:1], alone)))
        else:
            seconds = typical(lambda m=method: enlarge(m.maps(model, x, passed)))
        rows.append({"method": method.key, "ms": 1e3 * seconds, "in_forwards": seconds / forward})
    return pd.DataFrame(rows)


def estimate(costs: pd.DataFrame, methods: Sequence[CamMethod], images: int) -> str:
    """Return in words how long maps of so many images will take, without the shared passes."""
    seconds = costs.set_index("method").ms[[m.key for m in methods]].sum() * images / 1e3
    return f"about {seconds:.0f} s" if seconds < 120 else f"about {seconds / 60:.0f} min"


def alignment(scores: pd.DataFrame, ceilings: Ceilings) -> pd.DataFrame:
    """Return the score of each model and method, one row each.

    The columns are `backbone, dcls, method, score, low, high, n, ceiling`."""
    valid = ceilings.scored(scores[scores.validity == VALID])
    ceiling = valid.groupby("backbone").ceiling.first()
    most = 1 / ceiling.fillna(1)  # the score of a correlation of 1
    by = ["backbone", "dcls", "method"]
    table = means_by(valid, by, "score", "score", lambda key: (-most[key[0]], most[key[0]]))
    return table.assign(ceiling=table.backbone.map(ceiling))


def score_contrasted(
    study: Study, backbones: Sequence[Backbone], methods: Sequence[CamMethod]
) -> pd.DataFrame:
    """Return the table of `score_faithfulness` with average drop and increase in confidence for
    every method. For the first backbone and the contrasted methods it also has deletion, insertion
    and ROAD, on a sixth of the images."""
    drops = score_faithfulness(study, backbones, methods, study.choices.few(4, least=6), False)
    few = study.choices.few(24)
    kinds = contrasted(methods, study.choices.briefly("contrasted", CONTRASTED))
    more = score_faithfulness(study, backbones[:1], kinds, few, True)
    more = more[~more.measure.isin(drops.measure.unique())]
    return pd.concat([drops, more], ignore_index=True)


def summarise_faithfulness(values: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of every measure: `backbone, dcls, method, measure, value, low, high, n`.

    A measure outside `FAITHFULNESS`, such as "score", has no smallest or largest value.
    """
    by = ["backbone", "dcls", "method", "measure"]
    unbounded = (-np.inf, np.inf)
    return means_by(
        values, by, "value", "value",
        lambda key: ends_of(key[-1]) if key[-1] in FAITHFULNESS else unbounded,
    )  # fmt: skip


_REFERENCE, CONTROL = "grad_cam", RANDOM_CAM


def rank_methods(scores: pd.DataFrame, ceilings: Ceilings) -> pd.DataFrame:
    """Return the methods ranked by their score over all models, the best first.

    The columns are `method, label, score, low, high, n, pairs, pairs_in_all, ceiling`, and the
    difference from Grad-CAM, paired by image: `difference, difference_low, difference_high,
    p_holm`. Intervals are over images. An image's score is its mean over the models for which
    every method except the control has a valid map of it, so that all methods are compared on the
    same pairs of image and model: `pairs` of `pairs_in_all`.
    """
    scores = ceilings.scored(scores)
    valid = scores[scores.validity == VALID]
    wide = valid.pivot(index=["backbone", "dcls", "image_id"], columns="method", values="score")
    compared = [method for method in wide if method != CONTROL] or list(wide)
    common = wide.dropna(subset=compared)
    in_all = len(scores.drop_duplicates(["backbone", "dcls", "image_id"]))
    per_image = common.groupby(level="image_id").mean()
    reference = per_image.get(_REFERENCE)
    rows = []
    for method in per_image:
        found = mean_interval(per_image[method])
        row = {"method": method, "label": METHODS[method].label, "score": found.mean,
               "low": found.low, "high": found.high, "n": found.n,
               "pairs": int(common[method].notna().sum()), "pairs_in_all": in_all,
               "ceiling": valid.ceiling.mean()}  # fmt: skip
        if reference is not None:
            differences = per_image[method] - reference
            paired = mean_interval(differences)
            p = np.nan if method == _REFERENCE else mean_p(differences)
            row |= {"difference": paired.mean, "difference_low": paired.low,
                    "difference_high": paired.high, "p_holm": p}  # fmt: skip
        rows.append(row)
    columns = ["method", "label", "score", "low", "high", "n", "pairs", "pairs_in_all",
               "ceiling"]  # fmt: skip
    table = pd.DataFrame(rows, columns=None if rows else columns)
    if "p_holm" in table:
        table["p_holm"] = holm(table.p_holm)
    return table.sort_values("score", ascending=False, ignore_index=True)


def same_order(both: pd.DataFrame) -> pd.DataFrame:
    """Return, for each model, the rank correlation of score and faithfulness over methods.

    both : `backbone, dcls, method, score, drop`; the control is skipped
    Returns `backbone, dcls, rho, methods`. 1 means that methods that agree more with people are
    also more faithful.
    """
    rows = []
    for key, chosen in both[both.method != CONTROL].groupby(["backbone", "dcls"], sort=False):
        rho = chosen.score.corr(-chosen["drop"], method="spearman")
        rows.append((*key, rho, len(chosen)))
    return pd.DataFrame(rows, columns=["backbone", "dcls", "rho", "methods"])


def concepts_of(
    study: Study, backbone: Backbone, images: int = 4, count: int = 5
) -> tuple[np.ndarray, np.ndarray, list[str], str]:
    """Return concepts in the features of a backbone without DCLS, for drawing.

    The results are the images; (image, concept, side, side) maps of the concepts from 0 to 1; the
    likeliest classes of each concept; and a title. Each map covers the part of the image that the
    network sees, and is NaN outside.
    """
    batch = held_out(study, images)
    model = study.networks.inference_model(backbone.key, False, ())
    side = batch.images.shape[1]
    window = backbone.preprocessing.window(side)
    found = factorised(model, model.prepare(batch.images), count, window.stop - window.start)
    maps = np.full((len(batch.images), count, side, side), np.nan, np.float32)
    maps[..., window, window] = found.maps.cpu().numpy()
    names = study.networks.class_names()
    shares = found.answers.float().softmax(dim=1).topk(2)
    words = [
        ", ".join(f"{names[c]} {p:.2f}" for c, p in zip(classes, ps, strict=True))
        for classes, ps in zip(shares.indices.tolist(), shares.values.tolist(), strict=True)
    ]
    return batch.images, maps, words, f"Concepts of {backbone.titled(False)}"


def map_grid(
    study: Study, methods: Sequence[CamMethod], variants: Sequence[tuple[Backbone, bool]]
) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Return one image's maps for drawing: {method label: (variant, side, side)}, image, names.

    Each map covers the part of the image that the network sees, and is NaN outside; a constant map
    is NaN everywhere.
    """
    batch = held_out(study, 1)
    rows: dict[str, list] = {method.label: [] for method in methods}
    for backbone, dcls in variants:
        model = study.networks.inference_model(backbone.key, dcls, methods)
        asked = study.choices.asked(batch.labels)
        placed = heatmaps(model, batch.images, asked, tuple(methods))
        for label, (of_image,) in placed.items():
            constant = np.nanmin(of_image) == np.nanmax(of_image)
            rows[label].append(np.full_like(of_image, np.nan) if constant else of_image)
    names = [backbone.titled(dcls) for backbone, dcls in variants]
    return {label: np.stack(maps) for label, maps in rows.items()}, batch.images[0], names
