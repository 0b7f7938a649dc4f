"""Which CAM method agrees most with people, which is most faithful, and what does each cost?"""

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


# The methods of deletion, insertion and ROAD, which cost most: the study's two, two of other
# kinds, the control, and every learned one that is asked for. A short run's are in its `Brief`.
CONTRASTED = ("grad_cam", "threshold_grad_cam", "layer_cam", "eigen_cam", RANDOM_CAM)


def contrasted(
    methods: Sequence[CamMethod], keys: Sequence[str] = CONTRASTED
) -> tuple[CamMethod, ...]:
    """Those of the methods that have one of these keys or are learned; the first two if none."""
    found = tuple(method for method in methods if method.key in keys or method.learned)
    return found or tuple(methods[:2])


def shown_backbones(study: Study) -> list[Backbone]:
    """Those whose maps are looked at method by method: ConvNeXt-T and ResNet-50 where they are
    chosen; in a short run the first alone."""
    keys = ("convnext_tiny",) if study.choices.brief else ("convnext_tiny", "resnet50")
    return study.networks.prefer(*keys)


def quick(methods: Sequence[CamMethod]) -> tuple[CamMethod, ...]:
    """Those that need no further forwards of the network, or one."""
    return tuple(method for method in methods if method.forwards in (0, 1))


def method_costs(
    study: Study, backbone: Backbone, methods: Sequence[CamMethod], count: int = 4
) -> pd.DataFrame:
    """Of each method: `method, ms, in_forwards`, an image's time beyond the one forward and head
    gradient that all share, and that as a multiple of the network's plain forward."""
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
        if method.forwards:  # many: once, on one image
            seconds = timed(lambda m=method: enlarge(m.maps(model, x[:1], alone)))
        else:
            seconds = typical(lambda m=method: enlarge(m.maps(model, x, passed)))
        rows.append({"method": method.key, "ms": 1e3 * seconds, "in_forwards": seconds / forward})
    return pd.DataFrame(rows)


def estimate(costs: pd.DataFrame, methods: Sequence[CamMethod], images: int) -> str:
    """In words: how long maps of so many images will take, forwards left out."""
    seconds = costs.set_index("method").ms[[m.key for m in methods]].sum() * images / 1e3
    return f"about {seconds:.0f} s" if seconds < 120 else f"about {seconds / 60:.0f} min"


def alignment(scores: pd.DataFrame, ceilings: Ceilings) -> pd.DataFrame:
    """Score of each model and method: `backbone, dcls, method, score, low, high, n, ceiling`."""
    valid = ceilings.scored(scores[scores.validity == VALID])
    ceiling = valid.groupby("backbone").ceiling.first()
    most = 1 / ceiling.fillna(1)  # of a correlation of 1
    by = ["backbone", "dcls", "method"]
    table = means_by(valid, by, "score", "score", lambda key: (-most[key[0]], most[key[0]]))
    return table.assign(ceiling=table.backbone.map(ceiling))


def score_contrasted(
    study: Study, backbones: Sequence[Backbone], methods: Sequence[CamMethod]
) -> pd.DataFrame:
    """As `score_faithfulness`: average drop and increase in confidence of every method; of the
    first backbone and the contrasted methods, on a sixth of the images, also deletion, insertion
    and ROAD."""
    drops = score_faithfulness(study, backbones, methods, study.choices.few(4), False)
    few = study.choices.few(24)
    kinds = contrasted(methods, study.choices.briefly("contrasted", CONTRASTED))
    more = score_faithfulness(study, backbones[:1], kinds, few, True)
    more = more[~more.measure.isin(drops.measure.unique())]
    return pd.concat([drops, more], ignore_index=True)


def summarise_faithfulness(values: pd.DataFrame) -> pd.DataFrame:
    """Mean of every measure: `backbone, dcls, method, measure, value, low, high, n`.

    A measure that is none of `FAITHFULNESS`, such as "score", has no ends.
    """
    by = ["backbone", "dcls", "method", "measure"]
    unbounded = (-np.inf, np.inf)
    return means_by(
        values, by, "value", "value",
        lambda key: ends_of(key[-1]) if key[-1] in FAITHFULNESS else unbounded,
    )  # fmt: skip


_REFERENCE, CONTROL = "grad_cam", RANDOM_CAM


def rank_methods(scores: pd.DataFrame, ceilings: Ceilings) -> pd.DataFrame:
    """Methods by their score over all models, the best first.

    `method, label, score, low, high, n, pairs, pairs_in_all, ceiling`, and the difference to
    Grad-CAM, paired per image: `difference, difference_low, difference_high, p_holm`. Intervals
    are over images: an image's score is its mean over the models of which every method but the
    control has a valid map of it, so that methods are compared on the same; `pairs` of
    `pairs_in_all` images and models.
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
    """Within each model, the rank correlation over methods of score and faithfulness.

    both : `backbone, dcls, method, score, drop`; the control is left out
    Returns `backbone, dcls, rho, methods`; 1: what agrees with people is faithful too.
    """
    rows = []
    for key, chosen in both[both.method != CONTROL].groupby(["backbone", "dcls"], sort=False):
        rho = chosen.score.corr(-chosen["drop"], method="spearman")
        rows.append((*key, rho, len(chosen)))
    return pd.DataFrame(rows, columns=["backbone", "dcls", "rho", "methods"])


def concepts_of(
    study: Study, backbone: Backbone, images: int = 4, count: int = 5
) -> tuple[np.ndarray, np.ndarray, list[str], str]:
    """Of a backbone without DCLS, for drawing: images, (image, concept, side, side) maps of
    concepts in their features, from 0 to 1, the likeliest classes of each concept, and a title.

    Each map lies where the network looked; NaN outside of that.
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
    """One image's maps, for drawing: {method label: (variant, side, side)}, image, names.

    Each lies where the network looked; NaN outside of that, and wherever it is constant.
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
