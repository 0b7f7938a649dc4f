"""The paper's five claims, each decided by a statistic of the per-image scores.

`lib.study.rules` has the rules, and docs/statistics.md explains them. A claim about how many
models do something is decided by how many models significantly do so and how many may. This
depends on
p values corrected for the number of models, and on the smallest effect that matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats

from ..maps.methods import METHODS
from ..networks.backbones import THE_EIGHT, Backbone
from ..networks.building import parameter_counts
from ..people.protocols import PROTOCOLS
from ..study.choices import Choices
from ..study.inputs import Inputs
from ..study.rules import NOT_ASKED, RULES
from ..study.study import Study
from .agreements import VALID
from .ceiling import Ceilings
from .controls import CONTROLS, OTHER_HUMAN
from .decisions import FALLS, LITTLE, OPEN, RISES, RISES_LITTLE, TOO_FEW, decisions
from .results import summarise_controls
from .statistics import SEED, mean_interval, mean_p

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
UNDECIDED = "undecided at this n"
TOO_SMALL = "too small to matter"
NO_DIFFERENCE = "equivalent"
TOO_FEW_IMAGES = "too few images"
MISSING = "missing"

_METAFORMERS = ("caformer_s18", "convformer_s18")
_FASTVITS = ("fastvit_sa24", "fastvit_sa36")
_PLAIN, _THRESHOLD = "grad_cam", "threshold_grad_cam"
# Models of a family share an architecture, and size depends on the architecture.
_FAMILIES = {
    "resnet50": "ResNet", "convnext_tiny": "ConvNeXt", "convnext_small": "ConvNeXt",
    "convnext_base": "ConvNeXt", "caformer_s18": "MetaFormer", "convformer_s18": "MetaFormer",
    "fastvit_sa24": "FastViT", "fastvit_sa36": "FastViT",
}  # fmt: skip
_RESAMPLES = 4000


@dataclass(frozen=True)
class Verdict:
    """One claim: the statistic, its interval, and what follows from it.

    n      : number of images behind it, the fewest of its comparisons
    notes  : what a reader must also know
    counts : the statistic in words, if it is a count and not a value with its interval
    """

    claim: str
    verdict: str
    statistic: str = ""
    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    n: int = 0
    because: str = ""
    notes: str = ""
    counts: str = ""


class _Missing(Exception):
    """The study lacks something that a claim is about. The message names it.

    verdict : what follows from this: it was not chosen, or it has no valid image
    """

    verdict = MISSING


class _NotChosen(_Missing):
    verdict = NOT_ASKED


class _Scores:
    """Per-image scores of one protocol: a column per backbone, dcls and method."""

    def __init__(self, choices: Choices, scores: pd.DataFrame, ceilings: Ceilings, protocol: str):
        self.choices, self.ceilings, self.protocol = choices, ceilings, protocol
        self._chosen = {b.key for b in choices.backbones}, {m.key for m in choices.methods}
        valid = scores[(scores.validity == VALID) & (scores.protocol == protocol)]
        self.wide = valid.pivot(
            index="image_id", columns=["backbone", "dcls", "method"], values="rho"
        )
        self.images = len(self.wide)

    def of(self, backbone: str, dcls: bool, method: str) -> pd.Series:
        for key, chosen in zip((backbone, method), self._chosen, strict=True):
            if key not in chosen:
                raise _NotChosen(f"{key} was not chosen")
        if (backbone, dcls, method) not in self.wide:
            variant = f"{backbone} {'with' if dcls else 'without'} DCLS"
            raise _Missing(f"{variant} has no valid {method} map of any image")
        return self.wide[backbone, dcls, method] / self.divisor

    @cached_property
    def divisor(self) -> float:
        """One divisor for the whole protocol. Models are compared with one another, and people
        agree almost equally well on the parts of the human maps that different models see."""
        of_all = [self.ceilings.of(self.protocol, b.preprocessing).divisor for b in THE_EIGHT]
        return float(np.mean(of_all))

    def gain(self, backbone: str, method: str) -> pd.Series:
        """Score with DCLS minus score without it, for each image."""
        difference = self.of(backbone, True, method) - self.of(backbone, False, method)
        return difference.dropna()


def verdicts(
    study: Study, scores: pd.DataFrame, controls: pd.DataFrame, ceilings: Ceilings
) -> pd.DataFrame:
    """Return one row per claim, with the fields of `Verdict`, for the study's first protocol.

    scores, controls : per-image tables from `score_study` and `score_controls`

    `other_readings` gives the verdicts under the other protocols, `speaks_of` the data behind the
    verdict, and `rules` the version of the rules.
    """
    first, *others = study.choices.protocols
    table = pd.DataFrame([asdict(v) for v in _decided(study, scores, controls, ceilings, first)])
    elsewhere = {p: _decided(study, scores, controls, ceilings, p) for p in others}
    table["other_readings"] = [
        "; ".join(f"{protocol}: {_in_brief(found[row])}" for protocol, found in elsewhere.items())
        for row in range(len(table))
    ]
    images = _Scores(study.choices, scores, ceilings, first).images
    speaks_of = f"{study.choices.profile.label}, {images} images, {first} protocol"
    if study.choices.profile.caveat:
        speaks_of += f", and of nothing else: {study.choices.profile.caveat}"
    return table.assign(speaks_of=speaks_of, rules=study.choices.rules.version)


def _in_brief(verdict: Verdict) -> str:
    if np.isnan(verdict.value):
        return verdict.verdict
    interval = f"{verdict.value:.3g} [{verdict.low:.3g}, {verdict.high:.3g}]"
    return f"{verdict.verdict} ({verdict.counts or interval})"


def _decided(
    study: Study,
    scores: pd.DataFrame,
    controls: pd.DataFrame,
    ceilings: Ceilings,
    protocol: str,
) -> list[Verdict]:
    """The five claims under one protocol."""
    of_protocol = _Scores(study.choices, scores, ceilings, protocol)
    of_controls = _Controls(controls, ceilings, protocol, of_protocol.divisor)
    sizes = _sizes(study.choices)
    found = []
    for claim, decide in (
        ("DCLS raises the score in seven of the eight backbones",
         lambda: _dcls_raises(of_protocol, study.inputs)),
        ("CAFormer's and ConvFormer's Grad-CAM maps look random and score low",
         lambda: _metaformers_random(of_protocol, of_controls)),
        ("Threshold-Grad-CAM raises the score of nearly all models",
         lambda: _threshold_raises(of_protocol)),
        ("FastViT's result is mixed", lambda: _fastvit_mixed(of_protocol)),
        ("Larger baselines score higher", lambda: _larger_higher(of_protocol, sizes)),
    ):  # fmt: skip
        try:
            found.append(Verdict(claim, **decide()))
        except _Missing as missing:
            why = f"this study cannot decide the claim: {missing}"
            found.append(Verdict(claim, missing.verdict, because=why))
    return found


class _Controls:
    """Per-image scores of the controls under one protocol."""

    def __init__(self, controls: pd.DataFrame, ceilings: Ceilings, protocol: str, divisor: float):
        self.protocol, self._divisor = protocol, divisor
        self._valid = controls[(controls.protocol == protocol) & (controls.validity == VALID)]
        self._means = summarise_controls(self._valid, ceilings) if len(self._valid) else None

    def strongest(self, backbone: Backbone) -> str:
        """The control with the highest score for the human maps that a backbone sees."""
        reading = PROTOCOLS[self.protocol].reading_name(backbone.preprocessing)
        if self._means is not None:
            here = self._means[self._means.reading == reading].dropna(subset="score")
            if len(here):
                return here.loc[here.score.idxmax()].control
        raise _Missing("there are no controls: no image has another image's human map as a control")

    def of(self, backbone: Backbone, control: str) -> pd.Series:
        """A control's scores by image. Raises _Missing if it has none."""
        reading = PROTOCOLS[self.protocol].reading_name(backbone.preprocessing)
        rows = self._valid[(self._valid.reading == reading) & (self._valid.control == control)]
        if rows.empty:
            raise _Missing(f"no image has the control {control}")
        return rows.set_index("image_id").rho / self._divisor


def _sizes(choices: Choices) -> dict[str, int]:
    return {
        b.key: parameter_counts(b, mini=choices.profile.mini, classes=choices.profile.classes)[
            False
        ]
        for b in THE_EIGHT
    }


@dataclass(frozen=True)
class _Count:
    """How many of several comparisons significantly rise, significantly fall, change by less than
    the smallest effect (`little`; `rise_little` of them significantly rise), and are open."""

    up: int
    down: int
    little: int
    rise_little: int
    open: int
    few: bool

    @classmethod
    def of(cls, gains: Sequence[pd.Series], smallest: float) -> _Count:
        words = decisions(gains, smallest)
        return cls(
            words.count(RISES),
            words.count(FALLS),
            sum(word in LITTLE for word in words),
            words.count(RISES_LITTLE),
            words.count(OPEN) + words.count(TOO_FEW),
            all(word == TOO_FEW for word in words),
        )

    def in_words(self, gains: Sequence[pd.Series]) -> str:
        """How many rise in their mean, significantly, and at most."""
        rise = sum(gain.mean() > 0 for gain in gains)
        most = f", at most {self.up + self.open} once all are decided" * bool(self.open)
        return f"{rise} of {len(gains)} rise in the mean, {self.up} significantly{most}"


def _counted(gains: Sequence[pd.Series], needed: int, what: str, smallest: float) -> dict:
    c = _Count.of(gains, smallest)
    positive = sum(gain.mean() > 0 for gain in gains)
    if c.few:
        verdict = TOO_FEW_IMAGES
    elif c.up >= needed:
        verdict = REPRODUCED
    elif c.up + c.open >= needed:
        verdict = UNDECIDED
    elif c.up + c.rise_little >= needed:
        verdict = TOO_SMALL
    elif c.little == len(gains):
        verdict = NO_DIFFERENCE
    else:
        verdict = NOT_REPRODUCED
    because = (
        f"{c.up} significantly rise, {c.down} significantly fall, {c.little} change by less than "
        f"{smallest:g} ({c.rise_little} of them significantly rise), {c.open} are open "
        "(Holm-corrected p "
        f"over {len(gains)} comparisons); {needed} must rise"
    )
    return {
        "verdict": verdict, "statistic": f"{what} rises, of {len(gains)} [significantly, at most]",
        "value": positive, "low": c.up, "high": c.up + c.open, "n": min(map(len, gains)),
        "counts": c.in_words(gains),
        "because": _or_too_few(because, c.few),
    }  # fmt: skip


def _or_too_few(because: str, few: bool) -> str:
    return f"no decision is made with fewer than {RULES.fewest_images} images" if few else because


def _dcls_raises(scores: _Scores, inputs: Inputs) -> dict:
    recipes = {b.label: [inputs.recipe(b.key, dcls) for dcls in (False, True)] for b in THE_EIGHT}
    unequal = [
        label
        for label, (base, dcls) in recipes.items()
        if base != dcls and "unknown" not in (base, dcls)
    ]
    notes = []
    if unequal:
        notes.append(f"Training recipes differ with and without DCLS: {', '.join(unequal)}.")
    for b in scores.choices.backbones:
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
    plain = _by_method(scores, _PLAIN)
    notes.append(f"With Grad-CAM: {plain['verdict']}, {plain['counts']}.")
    return _by_method(scores, _THRESHOLD) | {"notes": " ".join(notes)}


def _by_method(scores: _Scores, method: str) -> dict:
    gains = [scores.gain(b.key, method) for b in THE_EIGHT]
    what = f"backbones whose {METHODS[method].label} score"
    return _counted(gains, RULES.dcls_raises, what, scores.choices.smallest_effect)


def _threshold_raises(scores: _Scores) -> dict:
    gains = [
        (scores.of(b.key, d, _THRESHOLD) - scores.of(b.key, d, _PLAIN)).dropna()
        for b in THE_EIGHT
        for d in (False, True)
    ]
    smallest = scores.choices.smallest_effect
    return _counted(gains, RULES.threshold_raises, "models whose score", smallest)


def _metaformers_random(scores: _Scores, controls: _Controls) -> dict:
    """The verdict from the strongest control; a note gives it from another image's human map."""
    for b in THE_EIGHT:
        scores.of(b.key, False, _PLAIN)  # raises if it was not chosen, or has no map
    names = {b.key: controls.strongest(b) for b in THE_EIGHT}
    found = _low_above(scores, controls, names)
    told = ", ".join(sorted({CONTROLS[name].label for name in names.values()}))
    notes = f"Scores are compared with the strongest control: {told}."
    if set(names.values()) != {OTHER_HUMAN}:
        try:
            other = _low_above(scores, controls, dict.fromkeys(names, OTHER_HUMAN))
            notes += (
                f" Compared with another image's human map: {other['verdict']} "
                f"({other['value']:.3g} [{other['low']:.3g}, {other['high']:.3g}])."
            )
        except _Missing as missing:
            notes += f" Compared with another image's human map: {missing}."
    return found | {"notes": notes}


def _low_above(scores: _Scores, controls: _Controls, names: dict[str, str]) -> dict:
    """How far each of the two lies above a control, minus a share of the other baselines' mean.

    Both differences must lie significantly below 0 (each at alpha, because both are required), and
    the other baselines must lie significantly above the control. Otherwise nothing distinguishes
    these two.
    """
    heights = pd.DataFrame(
        {b.key: scores.of(b.key, False, _PLAIN) - controls.of(b, names[b.key]) for b in THE_EIGHT}
    )
    heights = heights.dropna()  # the same images for all: images without a map may be hard ones
    others = heights.drop(columns=list(_METAFORMERS)).mean(axis=1)
    excess = {key: heights[key] - RULES.height * others for key in _METAFORMERS}
    higher = max(excess, key=lambda key: excess[key].mean())
    found, height = mean_interval(excess[higher]), mean_interval(others)
    n = min([*map(len, excess.values()), height.n])
    low = all(mean_p(some, 0, "less") < RULES.alpha for some in excess.values())
    not_low = any(mean_p(some, 0, "greater") < RULES.alpha / 2 for some in excess.values())
    others_above = mean_p(others, 0, "greater") < RULES.alpha
    others_below = mean_p(others, 0, "less") < RULES.alpha
    if n < RULES.fewest_images:
        verdict = TOO_FEW_IMAGES
    elif others_below:
        verdict = NOT_REPRODUCED
    elif not others_above:
        verdict = UNDECIDED
    else:
        verdict = REPRODUCED if low else NOT_REPRODUCED if not_low else UNDECIDED
    because = (
        f"the higher of the two scores {heights[higher].mean():.3f} above the control, the other "
        f"baselines {height.mean:.3f} [{height.low:.3f}, {height.high:.3f}]; less than "
        f"{RULES.height:g} of the latter counts as random-looking"
    )
    if not others_above:
        because += (
            "; the others do not lie significantly above it, so nothing distinguishes the two"
        )
    return {
        "verdict": verdict,
        "statistic": f"Grad-CAM score above the control, minus {RULES.height:g} of the others'",
        "value": found.mean, "low": found.low, "high": found.high, "n": n,
        "because": _or_too_few(because, n < RULES.fewest_images),
    }  # fmt: skip


def _fastvit_mixed(scores: _Scores) -> dict:
    gains = [scores.gain(key, method) for key in _FASTVITS for method in (_PLAIN, _THRESHOLD)]
    c = _Count.of(gains, scores.choices.smallest_effect)
    # Each side needs one comparison that is decided for it, or that is open.
    possible = c.up + c.open > 0 and c.down + c.open > 0 and c.up + c.down + c.open > 1
    if c.few:
        verdict = TOO_FEW_IMAGES
    elif c.up and c.down:
        verdict = REPRODUCED
    elif possible:
        verdict = UNDECIDED
    elif c.little == len(gains):
        verdict = NO_DIFFERENCE
    else:
        verdict = NOT_REPRODUCED
    because = (
        f"with DCLS, {c.up} of {len(gains)} comparisons (two models, two methods) significantly "
        "rise, "
        f"{c.down} significantly fall, {c.little} change by less than "
        f"{scores.choices.smallest_effect:g}, "
        f"{c.open} are open; mixed means that at least one significantly rises and one "
        "significantly falls, each "
        "by an amount that may matter"
    )
    return {
        "verdict": verdict,
        "statistic": f"comparisons that rise, of {len(gains)} [significantly, at most]",
        "counts": c.in_words(gains),
        "value": sum(gain.mean() > 0 for gain in gains), "low": c.up, "high": c.up + c.open,
        "n": min(map(len, gains)), "because": _or_too_few(because, c.few),
    }  # fmt: skip


def _larger_higher(scores: _Scores, sizes: dict[str, int]) -> dict:
    """Within families, by one rule for either answer: a t test over models, and images."""
    # The same images for all models: images without a map from one of them may be hard ones.
    table = pd.concat([scores.of(b.key, False, _THRESHOLD) for b in THE_EIGHT], axis=1).dropna()
    families = [_FAMILIES[b.key] for b in THE_EIGHT]
    size = np.array([sizes[b.key] for b in THE_EIGHT])
    means = table.mean().to_numpy()
    value = float(within_families(size, means[None], families)[0])
    n = len(table)
    low = high = np.nan
    if n >= RULES.fewest_images:
        # Means over this many images are nearly normal; all models share the images.
        error = table.cov().to_numpy() / n
        drawn = np.random.default_rng(SEED).multivariate_normal(
            means, error, _RESAMPLES, check_valid="ignore", method="eigh"
        )
        found = within_families(size, drawn, families)
        if not np.isnan(found).any():
            low, high = map(float, np.quantile(found, [RULES.alpha / 2, 1 - RULES.alpha / 2]))
    freedom = len(size) - len(set(families)) - 1
    p = _correlation_p(value, freedom)
    if n < RULES.fewest_images:
        verdict = TOO_FEW_IMAGES
    elif p < RULES.alpha and low > 0:
        verdict = REPRODUCED
    elif p < RULES.alpha and high < 0:
        verdict = NOT_REPRODUCED
    else:
        verdict = UNDECIDED
    because = (
        f"t test over the eight models after subtracting family means ({freedom} degrees of "
        f"freedom): {_p_in_words(p)}; and the interval over images. Either answer needs both, so "
        "the claim may stay open with any number of images"
    )
    if np.isnan(value):
        because = "the scores do not differ within any family, so their order cannot be correlated"
    return {
        "verdict": verdict,
        "statistic": "rank correlation of size and Threshold-Grad-CAM score within families [95 %]",
        "value": value, "low": low, "high": high, "n": n,
        "because": _or_too_few(because, n < RULES.fewest_images),
        "notes": "Eight models of four families: across families, size depends on architecture.",
    }  # fmt: skip


def within_families(size: np.ndarray, scores: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """Return the correlation of the ranks of size and score after subtracting family means.

    size     : (model,)
    scores   : (row, model)
    families : the family of each model
    Returns (row,), from -1 to 1; NaN if nothing differs within any family.
    """
    names = np.array(families)
    projection = np.eye(len(names))
    for name in set(families):
        members = names == name
        projection[np.ix_(members, members)] -= 1 / members.sum()
    ours = stats.rankdata(size) @ projection
    theirs = stats.rankdata(scores, axis=1) @ projection
    product = theirs @ ours
    scale = np.sqrt((theirs**2).sum(axis=1) * (ours**2).sum())
    scale = np.where(scale > 1e-9, scale, np.nan)
    return np.clip(product / scale, -1, 1)


def _correlation_p(r: float, freedom: int) -> float:
    """Two-sided p value of a correlation, from Student's t."""
    if np.isnan(r):
        return 1.0
    with np.errstate(divide="ignore"):
        t = abs(r) * np.sqrt(freedom / (1 - np.float64(r) ** 2))
    return float(2 * stats.t.sf(t, freedom))


def _p_in_words(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
