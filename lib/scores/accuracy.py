"""Which weights were scored, and whether they classify as the published ones do.

Swapped positions, another preprocessing or a wrong file pass every check of names and shapes,
and show in the accuracy.
"""

from __future__ import annotations

import pandas as pd
from scipy.stats import binomtest

from ..base.paths import shown
from ..networks.backbones import Backbone, variant_name
from ..networks.published_top1 import evaluated_at, published_top1
from ..networks.sources import Source
from ..study.study import Study

ALARM = 0.001  # the chance at which a gap is told: sixteen models are compared
# How far top-1 may fall short before its score is not to be trusted. The images are a selection,
# stored at 256 pixels, so that a gap beyond chance alone may be theirs.
MARGIN = 0.03
COLUMNS = [
    "backbone", "label", "dcls", "file", "sha256", "verified", "n", "top1", "top1_known", "p",
    "remarks",
]  # fmt: skip


def known_top1(study: Study, key: str, dcls: bool) -> float:
    """ImageNet's top-1 (0-1) that is known of a variant's weights; missing where it is not, where
    the file is not the published one, or the images are not ImageNet's.

    It is what the model's row states, else what timm publishes of its own weights: of images of
    the size that this model takes; if there is no such row, at timm's evaluation size."""
    return _known(study, key, dcls)[0]


def _known(study: Study, key: str, dcls: bool) -> tuple[float, bool]:
    """`known_top1`, and whether it holds for images of the size that this model takes."""
    if study.choices.images or study.choices.profile.is_embedded:
        return float("nan"), False
    row, source = _in_table(study, key), study.inputs.published(key, dcls)
    if source is None:
        return float("nan"), False
    if row.top1[dcls] is not None:
        return row.top1[dcls] / 100, True
    known, side = _of_timm(row, source, dcls)
    return known / 100, side == row.preprocessing.crop


def imagenet_top1(study: Study, key: str, dcls: bool) -> tuple[float, str]:
    """ImageNet's top-1 in percent (0-100) that is published of a variant's weights, and where:
    by timm, so that models are measured alike, else by their authors. Missing and "" where nothing
    is published, or the file is not the published one. Whatever images the study has: the number
    is the weights' own."""
    row, source = _in_table(study, key), study.inputs.published(key, dcls)
    if source is None:
        return float("nan"), ""
    known, side = _of_timm(row, source, dcls)
    if side:
        return known, f"timm, images of {side} px"
    stated = row.top1[dcls]
    return (known, "") if stated is None else (stated, "published with the weights")


def _of_timm(row: Backbone, source: Source, dcls: bool) -> tuple[float, int]:
    """Top-1 in percent that timm publishes of its weights, and the side of the images: the model's
    own, else timm's evaluation size. Missing and 0 where they are not timm's."""
    sides = evaluated_at(row.timm_tag)
    if dcls or not sides or row.timm_tag not in source.place:
        return float("nan"), 0
    side = row.preprocessing.crop if row.preprocessing.crop in sides else sides[0]
    return published_top1(row.timm_tag, side), side


def _of_its_baseline(study: Study, key: str) -> float:
    """The same of the baseline that was trained as the DCLS weights were: of the fairer pair, if
    there is one."""
    fairer = next((b.key for b in study.choices.profile.known if b.pair_of == key), key)
    known = _in_table(study, fairer).top1[False]
    return float("nan") if known is None else known / 100


def _in_table(study: Study, key: str) -> Backbone:
    return next(b for b in study.choices.profile.known if b.key == key)


def weights_table(study: Study, scores: pd.DataFrame) -> pd.DataFrame:
    """A row per variant that was scored.

    file, sha256 : the weights
    verified     : "yes" by the publisher's checksum, or why not; "" for no published file
    n, top1      : images, and the share of them that it classifies correctly
    top1_known   : of these weights on ImageNet's validation images, see `known_top1`
    p            : of a gap as wide or wider by chance (exact binomial test, two-sided); missing
                   where top1_known is of images of another size
    remarks      : what a reader must know, in words, "" for nothing
    """
    remarks, unverified = study.networks.remarks(), study.inputs.unverified()
    of = dict(list(scores.groupby(["backbone", "dcls"])))
    rows = []
    for backbone, dcls in study.choices.variants:
        if (backbone.key, dcls) not in of:
            continue
        path = study.inputs.weights_path(backbone.key, dcls)
        mini = " mini" * (study.choices.profile.mini and not backbone.origin)
        published = study.inputs.published(backbone.key, dcls) is not None
        found = _accuracy(study, backbone, dcls, of[backbone.key, dcls])
        own = [*remarks.get(variant_name(backbone.key, dcls), []), found.pop("remark")]
        rows.append(
            {
                "backbone": backbone.key,
                "label": backbone.titled(dcls) + mini,
                "dcls": dcls,
                "file": shown(path),
                "sha256": study.inputs.weights_sha256(backbone.key, dcls),
                "verified": unverified.get(path, "yes") if published else "",
                **found,
                "remarks": "; ".join(filter(None, own)),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _accuracy(study: Study, backbone: Backbone, dcls: bool, scores: pd.DataFrame) -> dict:
    """`n, top1, top1_known, p, remark` of a variant."""
    images = scores.drop_duplicates("image_id").dropna(subset=["top1"])  # of a known class
    n, right = len(images), int(images.top1.sum())
    (known, same_size), p, remark = _known(study, backbone.key, dcls), float("nan"), ""
    if not n:
        return {"n": 0, "top1": p, "top1_known": known, "p": p, "remark": remark}
    if not pd.isna(known):
        if same_size:
            p = binomtest(right, n, known).pvalue
        if p < ALARM:
            remark = _gap(right / n, n, known)
    elif dcls and study.inputs.published(backbone.key, dcls) and not study.choices.images:
        baseline = _of_its_baseline(study, backbone.key)
        remark = _behind(right, n, baseline)
    return {"n": n, "top1": right / n, "top1_known": known, "p": p, "remark": remark}


def _gap(top1: float, n: int, known: float) -> str:
    words = f"top-1 is {100 * top1:.1f} % on {n} images; its published accuracy is "
    words += f"{100 * known:.1f} %, and chance allows no such gap"
    if top1 > known - MARGIN:
        return f"{words}. A gap this small may come from the selection of images"
    return f"{words}. {_DISTRUST}"


def _behind(right: int, n: int, baseline: float) -> str:
    """Of weights whose accuracy is not published: whether they fall far behind their baseline."""
    if pd.isna(baseline) or binomtest(right, n, baseline - MARGIN, "less").pvalue >= ALARM:
        return ""
    return (
        f"top-1 is {100 * right / n:.1f} % on {n} images; its accuracy is not published, and its "
        f"baseline's is {100 * baseline:.1f} %. {_DISTRUST}"
    )


_DISTRUST = (
    "A wrong file, positions with exchanged axes, another preprocessing or other images would do "
    "that: do not trust its score"
)


def remarks_of(table: pd.DataFrame) -> list[str]:
    """What a table of weights has to tell, a line per model."""
    return [f"{row.label}: {row.remarks}" for row in table.itertuples() if row.remarks]
