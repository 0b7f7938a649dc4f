"""The paper's five claims, each decided by a statistic of the per-image scores.

The rules are those of `lib.study.rules`, in words in docs/statistics.md. A claim about how many
models do something is decided by how many surely do and how many may: by p values corrected for
their number, and the smallest effect that matters.
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
# Models of a family share an architecture, and size goes with it.
_FAMILIES = {
    "resnet50": "ResNet", "convnext_tiny": "ConvNeXt", "convnext_small": "ConvNeXt",
    "convnext_base": "ConvNeXt", "caformer_s18": "MetaFormer", "convformer_s18": "MetaFormer",
    "fastvit_sa24": "FastViT", "fastvit_sa36": "FastViT",
}  # fmt: skip
_RESAMPLES = 4000


@dataclass(frozen=True)
class Verdict:
    """One claim: what was measured, with its interval, and what follows.

    n     : images behind it, the fewest of its comparisons
    notes : what a reader must know beside it
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


class _Missing(Exception):
    """The study lacks what a claim is about; says what.

    verdict : what follows: it was not chosen, or has no valid image
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
                raise _NotChosen(f"{key} is not among its choices")
        if (backbone, dcls, method) not in self.wide:
            variant = f"{backbone} {'with' if dcls else 'without'} DCLS"
            raise _Missing(f"no image has a valid {method} map of {variant}")
        return self.wide[backbone, dcls, method] / self.divisor

    @cached_property
    def divisor(self) -> float:
        """One for all of the protocol: models are compared with one another, and the parts of the
        human maps that they see hardly differ in how well people agree."""
        of_all = [self.ceilings.of(self.protocol, b.preprocessing).divisor for b in THE_EIGHT]
        return float(np.mean(of_all))

    def gain(self, backbone: str, method: str) -> pd.Series:
        """Score with DCLS minus without it, image by image."""
        difference = self.of(backbone, True, method) - self.of(backbone, False, method)
        return difference.dropna()


def verdicts(
    study: Study, scores: pd.DataFrame, controls: pd.DataFrame, ceilings: Ceilings
) -> pd.DataFrame:
    """A row per claim, as `Verdict` tells, on the study's first protocol.

    scores, controls : per-image tables, as `score_study` and `score_controls` make them

    `other_readings` is what the other protocols' scores say, `speaks_of` on what it rests,
    `rules` the version of the rules.
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
    return f"{verdict.verdict} ({verdict.value:.3g} [{verdict.low:.3g}, {verdict.high:.3g}])"


def _decided(
    study: Study,
    scores: pd.DataFrame,
    controls: pd.DataFrame,
    ceilings: Ceilings,
    protocol: str,
) -> list[Verdict]:
    """The five claims by one protocol."""
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
            why = f"cannot be asked of this study: {missing}"
            found.append(Verdict(claim, missing.verdict, because=why))
    return found


class _Controls:
    """Per-image scores of the controls under one protocol."""

    def __init__(self, controls: pd.DataFrame, ceilings: Ceilings, protocol: str, divisor: float):
        self.protocol, self._divisor = protocol, divisor
        self._valid = controls[(controls.protocol == protocol) & (controls.validity == VALID)]
        self._means = summarise_controls(self._valid, ceilings) if len(self._valid) else None

    def strongest(self, backbone: Backbone) -> str:
        """The control with the highest score of a backbone's reading."""
        reading = PROTOCOLS[self.protocol].reading_name(backbone.preprocessing)
        if self._means is not None:
            here = self._means[self._means.reading == reading].dropna(subset="score")
            if len(here):
                return here.loc[here.score.idxmax()].control
        raise _Missing("there are no controls: no image has a map beside its own to compare with")

    def of(self, backbone: Backbone, control: str) -> pd.Series:
        """A control's scores by image. Raises _Missing where it has none."""
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
    """How many of several comparisons surely rise, fall, lie within the smallest effect (`little`;
    of these `rise_little` surely rise), and are open."""

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
        f"{c.up} surely rise, {c.down} surely fall, {c.little} change by less than "
        f"{smallest:g} ({c.rise_little} of them surely rise), {c.open} are open (p corrected by "
        f"Holm for {len(gains)}); {needed} must rise"
    )
    return {
        "verdict": verdict, "statistic": f"{what} rises, of {len(gains)} [surely, at most]",
        "value": positive, "low": c.up, "high": c.up + c.open, "n": min(map(len, gains)),
        "because": _or_too_few(because, c.few),
    }  # fmt: skip


def _or_too_few(because: str, few: bool) -> str:
    return f"with fewer than {RULES.fewest_images} images nothing is decided" if few else because


def _dcls_raises(scores: _Scores, inputs: Inputs) -> dict:
    recipes = {b.label: [inputs.recipe(b.key, dcls) for dcls in (False, True)] for b in THE_EIGHT}
    unequal = [
        label
        for label, (base, dcls) in recipes.items()
        if base != dcls and "unknown" not in (base, dcls)
    ]
    notes = []
    if unequal:
        notes.append(f"Trained by other recipes with DCLS than without: {', '.join(unequal)}.")
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
    notes.append(
        f"By Grad-CAM: {plain['verdict']}, {plain['value']} [{plain['low']}, {plain['high']}]."
    )
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
    """By the strongest control; what another image's human map says stands beside it."""
    for b in THE_EIGHT:
        scores.of(b.key, False, _PLAIN)  # raises for what was not chosen, or has no map
    names = {b.key: controls.strongest(b) for b in THE_EIGHT}
    found = _low_above(scores, controls, names)
    told = ", ".join(sorted({CONTROLS[name].label for name in names.values()}))
    notes = f"Height is counted from the strongest control: {told}."
    if set(names.values()) != {OTHER_HUMAN}:
        try:
            other = _low_above(scores, controls, dict.fromkeys(names, OTHER_HUMAN))
            notes += (
                f" From another image's human map: {other['verdict']} ({other['value']:.3g} "
                f"[{other['low']:.3g}, {other['high']:.3g}])."
            )
        except _Missing as missing:
            notes += f" From another image's human map: {missing}."
    return found | {"notes": notes}


def _low_above(scores: _Scores, controls: _Controls, names: dict[str, str]) -> dict:
    """Each of the two's height above a control, less a share of the other baselines' mean height.

    Both must surely lie below 0 (each at alpha: it takes both), and the others surely above the
    control: where no baseline does, nothing sets these two apart.
    """
    heights = pd.DataFrame(
        {b.key: scores.of(b.key, False, _PLAIN) - controls.of(b, names[b.key]) for b in THE_EIGHT}
    )
    heights = heights.dropna()  # the same images of all: those without a map may be hard ones
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
        f"above the control the higher of the two scores {heights[higher].mean():.3f}, the other "
        f"baselines {height.mean:.3f} [{height.low:.3f}, {height.high:.3f}]; less than "
        f"{RULES.height:g} of that counts as random-looking"
    )
    if not others_above:
        because += "; the others do not surely lie above it, so nothing sets the two apart"
    return {
        "verdict": verdict,
        "statistic": f"Grad-CAM's height above the control, less {RULES.height:g} of the others'",
        "value": found.mean, "low": found.low, "high": found.high, "n": n,
        "because": _or_too_few(because, n < RULES.fewest_images),
    }  # fmt: skip


def _fastvit_mixed(scores: _Scores) -> dict:
    gains = [scores.gain(key, method) for key in _FASTVITS for method in (_PLAIN, _THRESHOLD)]
    c = _Count.of(gains, scores.choices.smallest_effect)
    # Each side needs one that is decided for it, or open.
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
        f"of {len(gains)} comparisons (two models, two methods) {c.up} surely rise by DCLS, "
        f"{c.down} surely fall, {c.little} change by less than {scores.choices.smallest_effect:g}, "
        f"{c.open} are open; mixed means that at least one surely rises and one surely falls, each "
        "by what may matter"
    )
    return {
        "verdict": verdict,
        "statistic": f"comparisons that rise, of {len(gains)} [surely, at most]",
        "value": sum(gain.mean() > 0 for gain in gains), "low": c.up, "high": c.up + c.open,
        "n": min(map(len, gains)), "because": _or_too_few(because, c.few),
    }  # fmt: skip


def _larger_higher(scores: _Scores, sizes: dict[str, int]) -> dict:
    """Within families, by a rule that is the same both ways: models' t test, and images."""
    # The same images of all: those of which one model has no map may be hard ones.
    table = pd.concat([scores.of(b.key, False, _THRESHOLD) for b in THE_EIGHT], axis=1).dropna()
    families = [_FAMILIES[b.key] for b in THE_EIGHT]
    size = np.array([sizes[b.key] for b in THE_EIGHT])
    means = table.mean().to_numpy()
    value = float(within_families(size, means[None], families)[0])
    n = len(table)
    low = high = np.nan
    if n >= RULES.fewest_images:
        # Means of so many images are near enough to normal; images are shared by all models.
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
        f"t test over the eight models with their families taken out ({freedom} degrees of "
        f"freedom): {_p_in_words(p)}; and the interval over images. Either answer needs both, so "
        "that it may stay open with any number of images"
    )
    if np.isnan(value):
        because = "the scores do not differ within any family: there is no order to correlate"
    return {
        "verdict": verdict,
        "statistic": "rank correlation of size and Threshold-Grad-CAM score within families [95 %]",
        "value": value, "low": low, "high": high, "n": n,
        "because": _or_too_few(because, n < RULES.fewest_images),
        "notes": "Eight models of four families: between families, size goes with architecture.",
    }  # fmt: skip


def within_families(size: np.ndarray, scores: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """Correlation of the ranks of size and of score once each family's mean rank is taken out.

    size : (model,), scores : (row, model). NaN where nothing differs within any family
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
    """Two-sided p of a correlation, by Student's t."""
    if np.isnan(r):
        return 1.0
    with np.errstate(divide="ignore"):
        t = abs(r) * np.sqrt(freedom / (1 - np.float64(r) ** 2))
    return float(2 * stats.t.sf(t, freedom))


def _p_in_words(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
