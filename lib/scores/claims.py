"""The paper's five claims, each decided by a statistic of the per-image scores.

A claim about how many models do something is decided by how many surely do and how many
may: a model surely does when its interval, corrected for their number, excludes zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats

from lib.maps.methods import METHODS
from lib.networks.backbones import THE_EIGHT
from lib.networks.building import parameter_counts
from lib.people.protocols import PROTOCOLS
from lib.scores.agreements import VALID
from lib.scores.ceiling import HUMAN_CEILING
from lib.scores.controls import FLOOR
from lib.scores.statistics import SEED, mean_interval
from lib.study.choices import Choices
from lib.study.inputs import Inputs
from lib.study.rules import FEWEST_IMAGES
from lib.study.study import Study

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
UNDECIDED = "undecided at this n"
NOT_ASKED = "not asked"

_METAFORMERS = ("caformer_s18", "convformer_s18")
_FASTVITS = ("fastvit_sa24", "fastvit_sa36")
_PLAIN, _THRESHOLD = "grad_cam", "threshold_grad_cam"
_HALF = 0.5  # of the others' height above the floor: below it maps count as random-looking


@dataclass(frozen=True)
class Verdict:
    """One claim: what was measured, with its interval, and what follows.

    notes : what a reader must know beside it
    """

    claim: str
    verdict: str
    statistic: str = ""
    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    because: str = ""
    notes: str = ""


class _Missing(Exception):
    """The study lacks what a claim is about; says what.

    verdict : what follows: it was not chosen, or has no valid picture
    """

    verdict = UNDECIDED


class _NotChosen(_Missing):
    verdict = NOT_ASKED


class _Scores:
    """Per-image correlations of one protocol: a column per backbone, dcls and method."""

    def __init__(self, choices: Choices, scores: pd.DataFrame, protocol: str):
        self._chosen = {b.key for b in choices.backbones}, {m.key for m in choices.methods}
        valid = scores[(scores.validity == VALID) & (scores.protocol == protocol)]
        self.wide = valid.pivot(
            index="image_id", columns=["backbone", "dcls", "method"], values="rho"
        )
        self.images = len(self.wide)

    def of(self, backbone: str, dcls: bool, method: str) -> pd.Series:
        for key, chosen in zip((backbone, method), self._chosen, strict=True):
            if key not in chosen:
                raise _NotChosen(f"{key} is not among its choices")
        if (backbone, dcls, method) not in self.wide:
            variant = f"{backbone} {'with' if dcls else 'without'} DCLS"
            raise _Missing(f"no picture has a valid {method} map of {variant}")
        return self.wide[backbone, dcls, method] / HUMAN_CEILING

    def gain(self, backbone: str, method: str) -> pd.Series:
        """Score with DCLS less without it, image by image."""
        difference = self.of(backbone, True, method) - self.of(backbone, False, method)
        return difference.dropna()


def verdicts(study: Study, scores: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """A row per claim, as `Verdict` tells, on the study's first protocol.

    scores, controls : per-image tables, as `score_study` and `score_controls` make them

    `other_readings` is what the other protocols' scores say, `speaks_of` on what it rests.
    """
    first, *others = study.choices.protocols
    table = pd.DataFrame([asdict(v) for v in _decided(study, scores, controls, first)])
    elsewhere = {p: _decided(study, scores, controls, p) for p in others}
    table["other_readings"] = [
        "; ".join(f"{protocol}: {_in_brief(found[row])}" for protocol, found in elsewhere.items())
        for row in range(len(table))
    ]
    images = _Scores(study.choices, scores, first).images
    speaks_of = f"{study.choices.profile.label}, {images} pictures, {first} protocol"
    if study.choices.profile.caveat:
        speaks_of += f", and of nothing else: {study.choices.profile.caveat}"
    return table.assign(speaks_of=speaks_of)


def _in_brief(verdict: Verdict) -> str:
    if np.isnan(verdict.value):
        return verdict.verdict
    return f"{verdict.verdict} ({verdict.value:.3g} [{verdict.low:.3g}, {verdict.high:.3g}])"


def _decided(
    study: Study, scores: pd.DataFrame, controls: pd.DataFrame, protocol: str
) -> list[Verdict]:
    """The five claims by one protocol."""
    of_protocol = _Scores(study.choices, scores, protocol)
    floors = _floors(study.choices, controls, protocol)
    sizes = _sizes(study.choices)
    found = []
    for claim, decide in (
        ("DCLS raises the score in seven of the eight backbones",
         lambda: _dcls_raises(of_protocol, study.choices, study.inputs)),
        ("CAFormer's and ConvFormer's Grad-CAM maps look random and score low",
         lambda: _metaformers_random(of_protocol, floors)),
        ("Threshold-Grad-CAM raises the score of nearly all models",
         lambda: _threshold_raises(of_protocol)),
        ("FastViT's result is mixed", lambda: _fastvit_mixed(of_protocol)),
        ("Larger baselines score higher", lambda: _larger_higher(of_protocol, sizes)),
    ):  # fmt: skip
        try:
            found.append(Verdict(claim, *decide()))
        except _Missing as missing:
            why = f"cannot be asked of this study: {missing}"
            found.append(Verdict(claim, missing.verdict, because=why))
    return found


def _floors(choices: Choices, controls: pd.DataFrame, protocol: str) -> dict[str, pd.Series]:
    """{backbone: image by image the score of another picture's human map}."""
    chosen = controls[
        (controls.control == FLOOR) & (controls.protocol == protocol) & (controls.validity == VALID)
    ]
    by_reading = {
        reading: rows.set_index("image_id").rho / HUMAN_CEILING
        for reading, rows in chosen.groupby("reading")
    }
    return {
        b.key: by_reading.get(
            PROTOCOLS[protocol].reading_name(b.preprocessing), pd.Series(dtype=float)
        )
        for b in choices.backbones
    }


def _sizes(choices: Choices) -> dict[str, int]:
    return {
        b.key: parameter_counts(b, mini=choices.profile.mini, classes=choices.profile.classes)[
            False
        ]
        for b in THE_EIGHT
    }


def _count(gains: Sequence[pd.Series]) -> tuple[int, int, int]:
    """How many surely rise, may rise, and surely fall: intervals at 1 - 0.05 / their number."""
    found = [mean_interval(gain, 1 - 0.05 / len(gains)) for gain in gains]
    up = sum(f.low > 0 for f in found)
    down = sum(f.high < 0 for f in found)
    return up, len(found) - up - down, down


def _counted(gains: Sequence[pd.Series], needed: int, what: str) -> tuple:
    up, open_, down = _count(gains)
    positive = sum(gain.mean() > 0 for gain in gains)
    if up >= needed:
        verdict = REPRODUCED
    elif up + open_ < needed:
        verdict = NOT_REPRODUCED
    else:
        verdict = UNDECIDED
    because = (
        f"{up} surely rise, {down} surely fall, {open_} may do either "
        f"(95 % intervals corrected for {len(gains)}); {needed} are needed"
    )
    statistic = f"{what} rises, of {len(gains)} [surely, at most]"
    return verdict, statistic, positive, up, up + open_, because


def _dcls_raises(scores: _Scores, choices: Choices, inputs: Inputs) -> tuple:
    recipes = {b.label: [inputs.recipe(b.key, dcls) for dcls in (False, True)] for b in THE_EIGHT}
    unequal = [
        label
        for label, (base, dcls) in recipes.items()
        if base != dcls and "unknown" not in (base, dcls)
    ]
    notes = []
    if unequal:
        notes.append(f"Trained by other recipes with DCLS than without: {', '.join(unequal)}.")
    for b in choices.backbones:
        if b.pair_of:
            try:
                found = mean_interval(scores.gain(b.key, _THRESHOLD))
            except _Missing as missing:
                notes.append(f"Pair of equal recipe, {b.label}: {missing}.")
                continue
            notes.append(
                f"Pair of equal recipe, {b.label}: {found.mean:+.3f} "
                f"[{found.low:+.3f}, {found.high:+.3f}]."
            )
    by_plain, _, value, low, high, _ = _by_method(scores, _PLAIN)
    notes.append(f"By Grad-CAM: {by_plain}, {value} [{low}, {high}].")
    return *_by_method(scores, _THRESHOLD), " ".join(notes)


def _by_method(scores: _Scores, method: str) -> tuple:
    gains = [scores.gain(b.key, method) for b in THE_EIGHT]
    return _counted(gains, 7, f"backbones whose {METHODS[method].label} score")


def _threshold_raises(scores: _Scores) -> tuple:
    gains = [
        (scores.of(b.key, d, _THRESHOLD) - scores.of(b.key, d, _PLAIN)).dropna()
        for b in THE_EIGHT
        for d in (False, True)
    ]
    return _counted(gains, 14, "models whose score")


def _metaformers_random(scores: _Scores, floors: dict[str, pd.Series]) -> tuple:
    """Each's height above the floor less half of the other baselines' mean height."""
    heights = {}
    for b in THE_EIGHT:
        height = scores.of(b.key, False, _PLAIN)
        if floors[b.key].empty:
            raise _Missing("there is no floor: no picture has another one's human map beside it")
        heights[b.key] = height - floors[b.key].reindex(height.index)
    table = pd.DataFrame(heights)
    others = table.drop(columns=list(_METAFORMERS)).mean(axis=1)
    table = pd.concat([table[list(_METAFORMERS)], others], axis=1).to_numpy()

    def excess(images: np.ndarray) -> float:
        first, second, other = np.nanmean(table[images], axis=0)
        return max(first, second) - _HALF * other

    value, low, high = _resampled(excess, len(table))
    higher, other = np.nanmax(np.nanmean(table[:, :2], axis=0)), np.nanmean(table[:, 2])
    verdict = REPRODUCED if high < 0 else NOT_REPRODUCED if low > 0 else UNDECIDED
    because = (
        f"above another picture's human map the higher of the two scores {higher:.3f}, the other "
        f"baselines {other:.3f}; less than half of that counts as random-looking"
    )
    statistic = "Grad-CAM's height above the floor, less half of the others' [95 %]"
    return verdict, statistic, value, low, high, because


def _fastvit_mixed(scores: _Scores) -> tuple:
    gains = [scores.gain(key, method) for key in _FASTVITS for method in (_PLAIN, _THRESHOLD)]
    up, open_, down = _count(gains)
    if up and down:
        verdict = REPRODUCED
    elif up == len(gains) or down == len(gains):
        verdict = NOT_REPRODUCED
    else:
        verdict = UNDECIDED
    because = (
        f"{up} of {len(gains)} comparisons (two models, two methods) surely rise by DCLS, {down} "
        f"surely fall, {open_} may do either; mixed means that some rise and some fall"
    )
    positive = sum(gain.mean() > 0 for gain in gains)
    statistic = f"comparisons that rise, of {len(gains)} [surely, at most]"
    return verdict, statistic, positive, up, up + open_, because


def _larger_higher(scores: _Scores, sizes: dict[str, int]) -> tuple:
    size = np.array([sizes[b.key] for b in THE_EIGHT])
    table = pd.concat([scores.of(b.key, False, _THRESHOLD) for b in THE_EIGHT], axis=1).to_numpy()

    def correlation(images: np.ndarray) -> float:
        return stats.spearmanr(size, np.nanmean(table[images], axis=0)).statistic

    value, low, high = _resampled(correlation, len(table), 1000)
    ranks = stats.rankdata(size)
    p = stats.permutation_test(
        (np.nanmean(table, axis=0),),
        # Of all permutations together; it orders them as the rank correlation does.
        lambda score, axis: (stats.rankdata(score, axis=axis) * ranks).sum(axis=axis),
        permutation_type="pairings", alternative="greater", n_resamples=9999, vectorized=True,
        rng=np.random.default_rng(SEED),
    ).pvalue  # fmt: skip
    if p < 0.05 and low > 0:
        verdict = REPRODUCED
    elif high < 0:
        verdict = NOT_REPRODUCED
    else:
        verdict = UNDECIDED
    because = (
        f"one-sided permutation p = {p:.3f} over the eight models, and the interval over pictures; "
        "an open verdict may stay open with any number of pictures"
    )
    notes = "Eight models of four families: size goes with architecture."
    statistic = "rank correlation of size and Threshold-Grad-CAM score [95 %]"
    return verdict, statistic, value, low, high, because, notes


def _resampled(
    statistic: Callable[[np.ndarray], float], images: int, resamples: int = 2000
) -> tuple[float, float, float]:
    """A statistic of all images, and its 95 % bootstrap interval; missing for few images."""
    value = float(statistic(np.arange(images)))
    if images < FEWEST_IMAGES:  # nothing but a count of models can be decided
        return value, np.nan, np.nan
    rng = np.random.default_rng(SEED)
    found = [statistic(rng.integers(0, images, images)) for _ in range(resamples)]
    low, high = np.quantile(found, [0.025, 0.975])  # missing if one of them is
    return value, float(low), float(high)
