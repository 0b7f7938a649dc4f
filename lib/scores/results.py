"""From per-image scores to the study's numbers: scores, differences, sample sizes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pandas as pd

from lib.base.paths import shown
from lib.networks.backbones import THE_EIGHT, Backbone
from lib.networks.building import parameter_counts
from lib.people.protocols import PROTOCOLS
from lib.scores.agreements import CONSTANT_HUMAN_MAP, CONSTANT_MODEL_MAP, NON_FINITE, VALID
from lib.scores.ceiling import HUMAN_CEILING
from lib.scores.controls import FLOOR
from lib.scores.statistics import effect_size, holm, images_needed, mean_interval, sign_flip_p
from lib.study.choices import Choices
from lib.study.inputs import MissingInputs
from lib.study.outputs import saved_provenance
from lib.study.places import Places
from lib.study.study import Study


def table_path(places: Places, name: str = "scores") -> Path:
    """Where notebooks write a study's per-image tables."""
    return places.tables / f"{name}.parquet"


def load_table(study: Study, name: str, notebook: str) -> pd.DataFrame:
    """A per-image table that a notebook wrote for just this study.

    Raises MissingInputs if there is none, or it was made by other choices, or from
    other pictures or weights, than the study's.
    """
    path = table_path(study.places, name)
    mend = f"run notebook {notebook} with the same parameters first"
    try:
        saved = saved_provenance(path)
        scores = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise MissingInputs(f"there is no table in {shown(path)}; {mend} ({error})") from None
    other = study.unlike(saved["study"])
    other += [
        f"{name} has changed"
        for name, sha256 in study.inputs.hashes("pictures", "weights").items()
        if saved["inputs"].get(name) != sha256 and not other
    ]
    if other:
        raise MissingInputs(f"{shown(path)} is of another study ({'; '.join(other)}); {mend}")
    return scores


def load_scores(study: Study) -> pd.DataFrame:
    """The per-image scores of notebook 04; see `load_table`."""
    return load_table(study, "scores", "04_scoring")


def load_controls(study: Study) -> pd.DataFrame:
    """The control maps' per-image scores of notebook 04b; see `load_table`."""
    return load_table(study, "controls", "04b_controls")


def _groups(choices: Choices) -> Iterator[tuple[Backbone, bool, str, str]]:
    for backbone in choices.backbones:
        for row in product(backbone.forms, choices.protocols, choices.methods):
            dcls, protocol, method = row
            yield backbone, dcls, protocol, method.key


_REASONS = {
    "n_constant_model": CONSTANT_MODEL_MAP,
    "n_constant_human": CONSTANT_HUMAN_MAP,
    "n_non_finite": NON_FINITE,
}


def mean_score(valid: pd.DataFrame) -> dict[str, float]:
    """`score, low, high, raw`: mean rho over the human ceiling with its interval, and mean rho."""
    found = mean_interval(valid.rho / HUMAN_CEILING)
    return {
        "score": found.mean, "low": found.low, "high": found.high, "raw": valid.rho.mean()
    }  # fmt: skip


def left_out_of(scores: pd.DataFrame, **reasons: str) -> dict[str, int]:
    """How many rows have no score, by these reasons: {name: count} for {name: validity}."""
    counts = scores.validity.value_counts()
    return {name: counts.get(why, 0) for name, why in reasons.items()}


def summarise(choices: Choices, scores: pd.DataFrame) -> pd.DataFrame:
    """Score of each variant that there is, and method: one row each.

    score, low, high : mean rho of the valid images divided by the human ceiling,
                       and its 95 % bootstrap interval over images
    raw              : mean rho itself
    partial          : the same with the distance from the picture's centre held constant
    correct, n_correct : score over the images that the model classifies correctly
    tied, attainable : share of tied pixels, and the largest rho that ties
                       allow against a human map without any; means
    n, n_constant_model, n_constant_human, n_non_finite : images scored, left out
    top1             : share of all images classified correctly
    parameters_millions : learnable parameters
    """
    rows = []
    sizes = {
        b.key: parameter_counts(b, mini=choices.profile.mini, classes=choices.profile.classes)
        for b in choices.backbones
    }
    of = dict(list(scores.groupby(["backbone", "dcls", "protocol", "method"])))
    for backbone, has_dcls, protocol, method in _groups(choices):
        chosen = of.get((backbone.key, has_dcls, protocol, method), scores.iloc[:0])
        valid = chosen[chosen.validity == VALID]
        rows.append(
            {
                "backbone": backbone.key,
                "label": backbone.label,
                "dcls": has_dcls,
                "protocol": protocol,
                "method": method,
                "parameters_millions": sizes[backbone.key][has_dcls] / 1e6,
                "top1": chosen.top1.mean(),
                **mean_score(valid),
                "partial": valid.partial.mean(),
                "correct": valid.rho[valid.top1].mean() / HUMAN_CEILING,
                "n_correct": int(valid.top1.sum()),
                "tied": valid.tied.mean(),
                "attainable": valid.attainable.mean(),
                "n": len(valid),
                **left_out_of(chosen, **_REASONS),
            }
        )
    return pd.DataFrame(rows)


def summarise_controls(controls: pd.DataFrame) -> pd.DataFrame:
    """Score of each control, protocol and reading: `score, low, high, raw, partial, n`."""
    rows = []
    for key, of_control in controls.groupby(["protocol", "reading", "control"], sort=False):
        valid = of_control[of_control.validity == VALID]
        rows.append(
            dict(zip(("protocol", "reading", "control"), key, strict=True))
            | mean_score(valid)
            | {"partial": valid.partial.mean(), "n": len(valid)}
        )
    return pd.DataFrame(rows)


def rescale(choices: Choices, summary: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """The summary with `floor`, and `rescaled`: 0 at the floor, 1 at the human ceiling.

    controls : as `summarise_controls` makes it; the floor is taken for given in the interval
    """
    floors = controls[controls.control == FLOOR].set_index(["protocol", "reading"]).score
    geometry = {backbone.key: backbone.preprocessing for backbone in choices.backbones}
    floor = pd.Series(
        [
            floors.get((row.protocol, PROTOCOLS[row.protocol].reading_name(geometry[row.backbone])))
            for row in summary.itertuples()
        ],
        index=summary.index,
        dtype=float,
    )
    spread = {
        name: (summary[column] - floor) / (1 - floor)
        for name, column in (("rescaled", "score"), ("rescaled_low", "low"),
                             ("rescaled_high", "high"))
    }  # fmt: skip
    return summary.assign(floor=floor, **spread)


def per_image_differences(choices: Choices, scores: pd.DataFrame) -> pd.DataFrame:
    """DCLS minus baseline for every image valid for both, in units of the score.

    `protocol, backbone, method, image_id, difference`
    """
    index = ["protocol", "backbone", "method", "image_id"]
    wide = scores[scores.validity == VALID].pivot(index=index, columns="dcls", values="rho")
    wide = wide.reindex(columns=[False, True]).dropna()
    gain = (wide[True] - wide[False]) / HUMAN_CEILING
    chosen = [b.key for b in choices.backbones]
    table = gain.rename("difference").reset_index()
    return table[table.backbone.isin(chosen)]


_PAIRED = [
    "protocol", "backbone", "method", "difference", "low", "high", "median", "n_paired", "p",
    "effect", "spread", "images_needed", "p_holm",
]  # fmt: skip


def paired_differences(choices: Choices, scores: pd.DataFrame) -> pd.DataFrame:
    """DCLS minus baseline, paired per image on the images valid for both; a row per protocol,
    method and backbone that has a DCLS form.

    difference, low, high : mean in units of the score, 95 % bootstrap interval
    median                : far from the mean where a few pictures make the difference
    n_paired              : images in the comparison
    p, p_holm             : of the sign-flip test; corrected over the study's backbones of the
                            same protocol and method, and over a reader's own apart from these;
                            missing for a fairer pair of one of them, which is not counted
    effect                : Cohen's d
    spread                : standard deviation over images
    images_needed         : for a paired t test to find this effect four times in five
    """
    by_pair = per_image_differences(choices, scores).groupby(["protocol", "method", "backbone"])
    differences = {pair: rows.difference for pair, rows in by_pair}
    rows = []
    for protocol, method in product(choices.protocols, choices.methods):
        family, pairs = [], [b for b in choices.backbones if b.dcls is not None]
        for backbone in pairs:
            gain = differences.get((protocol, method.key, backbone.key), pd.Series(dtype=float))
            found, effect = mean_interval(gain), effect_size(gain)
            family.append(
                {"protocol": protocol, "backbone": backbone.key, "method": method.key,
                 "difference": found.mean, "low": found.low, "high": found.high,
                 "median": gain.median(), "n_paired": found.n, "p": sign_flip_p(gain),
                 "effect": effect, "spread": gain.std(), "images_needed": images_needed(effect)}
            )  # fmt: skip
        for own in (False, True):
            places = [i for i, b in enumerate(pairs) if bool(b.origin) == own and not b.pair_of]
            corrected = holm([family[i]["p"] for i in places])
            for i, p in zip(places, corrected, strict=True):
                family[i]["p_holm"] = p
        rows += family
    return pd.DataFrame(rows, columns=_PAIRED)


def power_table(paired: pd.DataFrame, differences: tuple[float, ...]) -> pd.DataFrame:
    """Images needed to find each of these differences, given how much images differ."""
    columns = {
        f"images to find {difference:g}": [
            images_needed(difference / spread) if spread else float("nan")
            for spread in paired.spread
        ]
        for difference in differences
    }
    names = ["protocol", "method", "backbone", "n_paired", "spread"]
    return paired[names].assign(**columns)


def size_correlation(summary: pd.DataFrame, method: str) -> float:
    """Rank correlation of size and score over the eight's baselines under one method."""
    eight = summary.backbone.isin([b.key for b in THE_EIGHT])
    base = summary[eight & ~summary.dcls & (summary.method == method)]
    return float(base.parameters_millions.corr(base.score, method="spearman"))
