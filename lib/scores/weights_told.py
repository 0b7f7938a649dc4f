"""What a reader of the scores must know of the weights: their files, and whether they classify as
the weights of that name are known to. Swapped positions, another preprocessing or a wrong file
pass every check of names and shapes, and show in the accuracy.
"""

from __future__ import annotations

import pandas as pd
from scipy.stats import binomtest

from lib.base.fingerprint import sha256_of
from lib.base.paths import shown
from lib.networks.backbones import variant_name
from lib.study.study import Study

# Sixteen models are compared: one in sixty runs would raise a false alarm.
ALARM = 0.001
COLUMNS = [
    "backbone", "label", "dcls", "file", "sha256", "verified", "n", "top1", "top1_known", "p",
    "remarks",
]  # fmt: skip


# Points by which weights of unknown accuracy may fall behind what is known of their baseline.
BEHIND = 0.03


def known_top1(study: Study, key: str, dcls: bool) -> float:
    """ImageNet's top-1 (0-1) that is known of a variant's weights; missing where it is not, where
    the file is not the published one, or the pictures are a reader's own."""
    return _known(study, key, dcls, dcls)


def _known(study: Study, key: str, dcls: bool, of: bool) -> float:
    """The same of its form without or with DCLS (`of`), told of a variant."""
    if study.choices.pictures or study.inputs.published(key, dcls) is None:
        return float("nan")
    known = next(b for b in study.choices.profile.known if b.key == key).top1[of]
    return float("nan") if known is None else known / 100


def weights_table(study: Study, scores: pd.DataFrame) -> pd.DataFrame:
    """A row per variant that was scored.

    file, sha256 : the weights
    verified     : "yes" by the publisher's checksum, or why not; "" for no published file
    n, top1      : pictures, and the share of them that it classifies correctly
    top1_known   : of these weights on ImageNet's validation pictures, see `known_top1`
    p            : of a gap as wide or wider by chance (exact binomial test, two-sided)
    remarks      : what must be told, in words, "" for nothing
    """
    told, unverified = study.networks.told(), study.inputs.unverified()
    mini, rows = study.choices.profile.mini, []
    of = dict(list(scores.groupby(["backbone", "dcls"])))
    for backbone, dcls in study.choices.variants:
        if (backbone.key, dcls) not in of:
            continue
        pictures = of[backbone.key, dcls].drop_duplicates("image_id")
        path = study.inputs.weights_path(backbone.key, dcls)
        n, right = len(pictures), int(pictures.top1.sum())
        known = known_top1(study, backbone.key, dcls)
        p = float("nan") if pd.isna(known) else binomtest(right, n, known).pvalue
        baseline = _known(study, backbone.key, dcls, False)
        published = study.inputs.published(backbone.key, dcls) is not None
        remarks = [*told.get(variant_name(backbone.key, dcls), [])]
        if p < ALARM:
            remarks.append(_gap(right / n, n, known))
        elif pd.isna(known) and _is_behind(right, n, baseline):
            remarks.append(_behind(right / n, n, baseline))
        rows.append(
            [backbone.key, backbone.titled(dcls) + " mini" * (mini and not backbone.origin), dcls,
             shown(path), sha256_of(path), unverified.get(path, "yes" * published),
             n, right / n, known, p, "; ".join(remarks)]
        )  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _is_behind(right: int, n: int, baseline: float) -> bool:
    """Whether fewer are right than chance allows if it is nearly as good as its baseline."""
    if pd.isna(baseline):
        return False
    return binomtest(right, n, baseline - BEHIND, alternative="less").pvalue < ALARM


def _behind(top1: float, n: int, baseline: float) -> str:
    return (
        f"top-1 {100 * top1:.1f} % of {n} pictures; nothing is published of it, and of its "
        f"baseline {100 * baseline:.1f} %: {_DISTRUST}"
    )


def _gap(top1: float, n: int, known: float) -> str:
    words = f"top-1 {100 * top1:.1f} % of {n} pictures, and {100 * known:.1f} % is known of it"
    if top1 > known:
        return f"{words}: more than chance allows; other pictures than ImageNet's validation set?"
    return f"{words}: {_DISTRUST}"


_DISTRUST = (
    "less than chance allows. A wrong file, positions with exchanged axes, another preprocessing "
    "or other pictures would do that: do not trust its score"
)


def remarks(table: pd.DataFrame) -> list[str]:
    """What a table of weights has to tell, a line per model."""
    return [f"{row.label}: {row.remarks}" for row in table.itertuples() if row.remarks]
