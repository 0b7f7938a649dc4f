"""Which weights were scored, and whether they classify as well as the published ones.

Swapped positions, a different preprocessing or a wrong file pass every check of names and shapes.
They show in the accuracy.
"""

from __future__ import annotations

import pandas as pd
from scipy.stats import binomtest

from ..base.paths import shown
from ..networks.backbones import Backbone, variant_name
from ..networks.published_top1 import evaluated_at, published_top1
from ..networks.sources import Source
from ..study.study import Study

ALARM = 0.001  # a gap with a smaller p is reported; small, because sixteen models are compared
# How far top-1 may fall short before the score is called unreliable. The images are a selection,
# stored at 256 pixels, which alone may explain a gap that chance does not.
MARGIN = 0.03
COLUMNS = [
    "backbone", "label", "dcls", "file", "sha256", "verified", "n", "top1", "top1_known", "p",
    "remarks",
]  # fmt: skip


def known_top1(study: Study, key: str, dcls: bool) -> float:
    """Return the known ImageNet top-1 accuracy (0-1) of a variant's weights.

    It is NaN if no accuracy is known, if the file is not the published one, or if the images are
    not ImageNet's. The model's row may state it. Otherwise it is the accuracy that timm publishes
    for its own weights, at the image size that this model takes or, if timm lists none for that
    size, at timm's evaluation size."""
    return _known(study, key, dcls)[0]


def _known(study: Study, key: str, dcls: bool) -> tuple[float, bool]:
    """`known_top1`, and whether it was measured at the image size that this model takes."""
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
    """Return the published ImageNet top-1 accuracy of a variant's weights, and its source.

    The accuracy is in percent (0-100). timm's is preferred, because timm measures all models in
    the same way; otherwise it is the authors'. It is NaN, with the source "", if nothing is
    published or the file is not the published one. It does not depend on the study's images."""
    row, source = _in_table(study, key), study.inputs.published(key, dcls)
    if source is None:
        return float("nan"), ""
    known, side = _of_timm(row, source, dcls)
    if side:
        return known, f"timm, images of {side} px"
    stated = row.top1[dcls]
    return (known, "") if stated is None else (stated, "published with the weights")


def _of_timm(row: Backbone, source: Source, dcls: bool) -> tuple[float, int]:
    """Top-1 in percent that timm publishes for its weights, and the side of the images: the size
    that the model takes, else timm's evaluation size. NaN and 0 if the weights are not timm's."""
    sides = evaluated_at(row.timm_tag)
    if dcls or not sides or row.timm_tag not in source.place:
        return float("nan"), 0
    side = row.preprocessing.crop if row.preprocessing.crop in sides else sides[0]
    return published_top1(row.timm_tag, side), side


def _of_its_baseline(study: Study, key: str) -> float:
    """The same for the baseline that was trained like the DCLS weights: the baseline of the
    fairer pair, if there is one."""
    fairer = next((b.key for b in study.choices.profile.known if b.pair_of == key), key)
    known = _in_table(study, fairer).top1[False]
    return float("nan") if known is None else known / 100


def _in_table(study: Study, key: str) -> Backbone:
    return next(b for b in study.choices.profile.known if b.key == key)


def weights_table(study: Study, scores: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each variant that was scored.

    file, sha256 : the weights
    verified     : "yes" if the publisher's checksum matches, otherwise why it was not verified;
                   "" for a file that is not published
    n, top1      : number of images, and the share of them that the model classifies correctly
    top1_known   : accuracy of these weights on ImageNet's validation images, see `known_top1`
    p            : probability of a gap at least this wide by chance (exact binomial test,
                   two-sided); NaN if top1_known was measured at another image size
    remarks      : what a reader must know, in words; "" if there is nothing
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
    """The columns `n, top1, top1_known, p, remark` of a variant."""
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
    words += f"{100 * known:.1f} %, and chance does not explain this gap"
    if top1 > known - MARGIN:
        return f"{words}. The selection of images may explain a gap this small"
    return f"{words}. {_DISTRUST}"


def _behind(right: int, n: int, baseline: float) -> str:
    """A remark on weights without a published accuracy that fall far behind their baseline."""
    if pd.isna(baseline) or binomtest(right, n, baseline - MARGIN, "less").pvalue >= ALARM:
        return ""
    return (
        f"top-1 is {100 * right / n:.1f} % on {n} images; its accuracy is not published, and its "
        f"baseline's is {100 * baseline:.1f} %. {_DISTRUST}"
    )


_DISTRUST = (
    "A wrong file, positions with swapped axes, a different preprocessing or other images would "
    "explain this: do not trust its score"
)


def remarks_of(table: pd.DataFrame) -> list[str]:
    """The remarks of a table of weights, one line per model."""
    return [f"{row.label}: {row.remarks}" for row in table.itertuples() if row.remarks]
