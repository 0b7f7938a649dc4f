"""The study's numbers from per-image scores: mean scores, differences, sample sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd

from ..base.paths import shown
from ..networks.backbones import BACKBONES, Backbone, variant_name
from ..networks.building import parameter_counts
from ..people.protocols import PROTOCOLS
from ..study.choices import Choices
from ..study.comparisons import Placed, arranged, forms_of, pairs_of
from ..study.inputs import MissingInputs
from ..study.outputs import saved_provenance
from ..study.places import Places
from ..study.rules import RULES
from ..study.study import Study
from .agreements import CONSTANT_HUMAN_MAP, CONSTANT_MODEL_MAP, NON_FINITE, VALID
from .ceiling import Ceiling, Ceilings
from .controls import OTHER_HUMAN
from .decisions import decisions
from .observers import ceilings_of
from .statistics import effect_size, holm, images_needed, mean_interval, mean_p


def table_path(places: Places, name: str = "scores") -> Path:
    """Where notebooks write a study's per-image tables."""
    return places.tables / f"{name}.parquet"


def load_table(study: Study, name: str, notebook: str) -> pd.DataFrame:
    """Return a per-image table that a notebook wrote for exactly this study.

    Raises MissingInputs if the table does not exist, or if it was made with other choices, images
    or weights than the study's.
    """
    path = table_path(study.places, name)
    mend = f"run notebook {notebook} with the same parameters first"
    try:
        saved = saved_provenance(path)
        scores = pd.read_parquet(path)
    except FileNotFoundError:
        raise MissingInputs(f"{shown(path)} does not exist: {mend}") from None
    except (OSError, ValueError) as error:
        raise MissingInputs(f"{shown(path)} cannot be read ({error}): {mend}") from None
    other = study.unlike(saved["study"])
    other += [
        f"{name} has changed"
        for name, sha256 in study.inputs.hashes("images", "weights").items()
        if saved["inputs"].get(name) != sha256 and not other
    ]
    if other:
        raise MissingInputs(f"{shown(path)} is of another study ({'; '.join(other)}): {mend}")
    return scores


def load_scores(study: Study) -> pd.DataFrame:
    """Return the per-image scores that notebook 04 wrote; see `load_table`."""
    return load_table(study, "scores", "04_scoring")


def load_controls(study: Study) -> pd.DataFrame:
    """Return the controls' per-image scores that notebook 04b wrote; see `load_table`."""
    return load_table(study, "controls", "04b_controls")


def load_ceilings(study: Study) -> Ceilings:
    """Return the ceilings by which notebook 04 divided; see `load_table` for estimated ones."""
    return ceilings_of(study.choices, load_table(study, "people", "04_scoring"))


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


def mean_score(valid: pd.DataFrame, ceiling: Ceiling) -> dict[str, float]:
    """Return the mean score and the mean rho of the valid images, with 95 % intervals.

    `score, low, high` are mean rho over the ceiling and its interval, which includes the
    uncertainty of the ceiling. `raw, raw_low, raw_high` are mean rho and its own interval.
    `ceiling` is the divisor.

    valid : `image_id, rho`, each image once
    """
    rho = valid.set_index("image_id").rho
    found, raw = ceiling.interval(rho, most=1), mean_interval(rho, within=(-1, 1))
    if len(rho) < 2:  # a ceiling from one image has no interval either
        found = replace(found, low=np.nan, high=np.nan)
    return {
        "score": found.mean, "low": found.low, "high": found.high,
        "raw": raw.mean, "raw_low": raw.low, "raw_high": raw.high, "ceiling": ceiling.value,
        "reachable": ceiling.reachable,
    }  # fmt: skip


def left_out_of(scores: pd.DataFrame, **reasons: str) -> dict[str, int]:
    """Count the rows without a score for each reason: {name: count} for {name: validity}."""
    counts = scores.validity.value_counts()
    return {name: counts.get(why, 0) for name, why in reasons.items()}


def summarise(choices: Choices, scores: pd.DataFrame, ceilings: Ceilings) -> pd.DataFrame:
    """Return the score of each variant and method, one row each.

    score, low, high : mean rho of the valid images over the human ceiling, and its 95 %
                       interval over images; rho itself if there is no ceiling
    raw, raw_low, raw_high : mean rho, and its 95 % interval
    ceiling, reachable : the divisor (NaN if there is none), and the score of a perfect model
    partial          : the score with the distance from the image's centre held constant
    correct, n_correct : score over the images that the model classifies correctly, and their number
    tied, attainable : mean share of tied pixels, and mean of the largest rho that these ties
                       allow against a human map without ties
    n, n_constant_model, n_constant_human, n_non_finite : number of images scored, and of images
                       without a score for each reason
    top1, top1_low, top1_high : share of the images with a class that are classified correctly,
                       and Wilson's interval
    parameters_millions : number of learnable parameters, in millions
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
        ceiling = ceilings.of(protocol, backbone.preprocessing)
        top1 = mean_interval(chosen.top1.astype(float), within=(0, 1))
        rows.append(
            {
                "variant": variant_name(backbone.key, has_dcls),
                "backbone": backbone.key,
                "label": backbone.label,
                "dcls": has_dcls,
                "protocol": protocol,
                "method": method,
                "parameters_millions": sizes[backbone.key][has_dcls] / 1e6,
                "top1": top1.mean,
                "top1_low": top1.low,
                "top1_high": top1.high,
                **mean_score(valid, ceiling),
                "partial": valid.partial.mean(),
                "correct": valid.rho[valid.top1 == 1].mean() / ceiling.divisor,
                "n_correct": int(valid.top1.sum()),
                "tied": valid.tied.mean(),
                "attainable": valid.attainable.mean(),
                "n": len(valid),
                **left_out_of(chosen, **_REASONS),
            }
        )
    return pd.DataFrame(rows)


def summarise_controls(controls: pd.DataFrame, ceilings: Ceilings) -> pd.DataFrame:
    """Return the score of each control, protocol and reading, one row each.

    The columns are `score, low, high, raw, …, partial, n`, and `strongest`: whether the control
    has the highest score of its protocol and reading."""
    rows = []
    names = ("protocol", "reading", "control")
    for key, of_control in controls.groupby([*names], sort=False):
        valid = of_control[of_control.validity == VALID]
        rows.append(
            dict(zip(names, key, strict=True))
            | mean_score(valid, ceilings.read(*key[:2]))
            | {"partial": valid.partial.mean(), "n": len(valid)}
        )
    table = pd.DataFrame(rows, columns=None if rows else [*names, "score", "high"])
    highest = table.groupby(["protocol", "reading"]).score.transform("max")
    return table.assign(strongest=table.score == highest)


def beside_controls(
    choices: Choices,
    scores: pd.DataFrame,
    controls: pd.DataFrame,
    ceilings: Ceilings,
    summary: pd.DataFrame,
) -> pd.DataFrame:
    """Return the summary with a comparison of each score with the controls.

    scores, controls : per-image tables
    summary          : as returned by `summarise`

    control, control_score : the strongest control of the same protocol and reading
    over_control, over_control_low, over_control_high : score minus that control's score, paired by
                       image, and its 95 % interval
    above_control    : whether that interval lies above 0 and there are enough images to say so
    other_human      : the score of another image's human map
    rescaled, rescaled_low, rescaled_high : over_control as a share of the distance from the
                       strongest control (0) to the ceiling (1); in the interval, the control
                       counts as exact
    not_rescaled     : why `rescaled` is missing: no ceiling is known, or the control comes near it
    """
    of_control = controls_by_reading(controls)
    valid = scores[scores.validity == VALID]
    of_model = {
        key: rows.set_index("image_id").rho
        for key, rows in valid.groupby(["backbone", "dcls", "protocol", "method"])
    }
    geometry = {backbone.key: backbone.preprocessing for backbone in choices.backbones}
    found = []
    for row in summary.itertuples():
        reading = PROTOCOLS[row.protocol].reading_name(geometry[row.backbone])
        rho = of_model.get((row.backbone, row.dcls, row.protocol, row.method))
        of = of_control.get((row.protocol, reading), {})
        found.append(beside(rho, of, ceilings.read(row.protocol, reading)))
    return pd.concat([summary, pd.DataFrame(found, index=summary.index)], axis=1)


def controls_by_reading(controls: pd.DataFrame) -> dict[tuple[str, str], dict[str, pd.Series]]:
    """Return {(protocol, reading): {control: rho by image_id}} for the valid rows."""
    found: dict[tuple[str, str], dict[str, pd.Series]] = {}
    valid = controls[controls.validity == VALID]
    for (protocol, reading, control), rows in valid.groupby(["protocol", "reading", "control"]):
        found.setdefault((protocol, reading), {})[control] = rows.set_index("image_id").rho
    return found


def beside(
    rho: pd.Series | None, of_control: Mapping[str, pd.Series], ceiling: Ceiling
) -> dict[str, object]:
    """Return the columns that `beside_controls` adds to one row.

    rho, of_control : correlations by image_id, of the heatmaps and of each control
    """
    found = dict.fromkeys(_BESIDE, np.nan) | {"control": "", "above_control": False}
    found |= {"not_rescaled": "no control has a score"}
    if rho is None:
        return found
    # On the images of these maps only: on others another control may be the strongest.
    there = {name: some[some.index.isin(rho.index)] for name, some in of_control.items()}
    there = {name: some for name, some in there.items() if len(some)}
    if not there:
        return found
    name = max(there, key=lambda name: there[name].mean())
    control, differences = ceiling.interval(there[name]), (rho - there[name]).dropna()
    over = ceiling.interval(differences)
    found |= {
        "control": name, "control_score": control.mean, "over_control": over.mean,
        "over_control_low": over.low, "over_control_high": over.high,
        "above_control": mean_p(differences, 0, "greater") < RULES.alpha / 2,
    }  # fmt: skip
    if OTHER_HUMAN in there:
        found["other_human"] = there[OTHER_HUMAN].mean() / ceiling.divisor
    if not ceiling.is_known:
        return found | {"not_rescaled": "no human ceiling is known"}
    if len(differences) < 2:
        return found | {"not_rescaled": "too few images"}
    if not 1 - control.high >= RULES.least_span:
        return found | {"not_rescaled": "the strongest control comes near the human ceiling"}
    span = 1 - control.mean
    return found | {
        "rescaled": over.mean / span, "rescaled_low": over.low / span,
        "rescaled_high": over.high / span, "not_rescaled": "",
    }  # fmt: skip


_BESIDE = (
    "control", "control_score", "over_control", "over_control_low", "over_control_high",
    "above_control", "other_human", "rescaled", "rescaled_low", "rescaled_high", "not_rescaled",
)  # fmt: skip


def per_image_differences(
    choices: Choices, scores: pd.DataFrame, ceilings: Ceilings
) -> pd.DataFrame:
    """Return each later model of the comparison minus its group's first model, image by image.

    The columns are `protocol, panel, group, form, image_id, rho, difference`: the difference of
    the correlations, and the same in units of the score. Only images with valid maps of both
    models are included.

    Two models that see different parts of the human map (*corrected*) are compared by their
    correlations, each with its own part, divided by the ceiling of the first.
    """
    frames = [
        difference.rename("rho").reset_index().assign(
            protocol=protocol, panel=later.panel, group=later.group.label, form=later.member.form,
            difference=difference.to_numpy() / ceiling.divisor,
        )
        for protocol, _, later, difference, ceiling in _differences(choices, scores, ceilings)
    ]  # fmt: skip
    columns = ["protocol", "panel", "group", "form", "image_id", "rho", "difference"]
    return pd.concat(frames or [pd.DataFrame(columns=columns)])[columns]


def _differences(
    choices: Choices, scores: pd.DataFrame, ceilings: Ceilings
) -> Iterator[tuple[str, Placed, Placed, pd.Series, Ceiling]]:
    """Yield, for each protocol and pair of the comparison, the first and the later model, the
    differences of their correlations by `image_id`, and the ceiling that divides them."""
    of = _rho_of(scores)
    pairs = pairs_of(choices)
    nothing = pd.Series(dtype=float, index=pd.Index([], name="image_id", dtype=str))
    for protocol in choices.protocols:
        for first, later in pairs:
            rho, other = (
                of.get((p.member.variant, p.method.key, protocol), nothing) for p in (first, later)
            )
            difference = (other - rho).dropna().rename_axis("image_id")
            ceiling = ceilings.of(protocol, first.member.backbone.preprocessing)
            yield protocol, first, later, difference, ceiling


def _rho_of(scores: pd.DataFrame) -> dict[tuple[str, str, str], pd.Series]:
    """{(variant, method, protocol): rho by image_id} for the valid rows."""
    valid = scores[scores.validity == VALID]
    return {
        (variant_name(backbone, dcls), method, protocol): rows.set_index("image_id").rho
        for (backbone, dcls, method, protocol), rows in valid.groupby(
            ["backbone", "dcls", "method", "protocol"]
        )
    }


def paired_comparison(rho: pd.Series, ceiling: Ceiling) -> dict[str, float]:
    """The columns of a paired comparison. rho : differences of correlations, by image_id"""
    found, effect = ceiling.interval(rho), effect_size(rho)
    return {
        "difference": found.mean, "low": found.low, "high": found.high,
        "median": rho.median() / ceiling.divisor, "n_paired": len(rho), "p": mean_p(rho),
        "effect": effect, "spread": rho.std() / ceiling.divisor,
        "images_needed": images_needed(effect), "ceiling": ceiling.value,
    }  # fmt: skip


_COMPARED = [
    "difference", "low", "high", "median", "n_paired", "p", "effect", "spread", "images_needed",
    "ceiling", "p_holm", "decision",
]  # fmt: skip


def judged(rows: list[dict], samples: Sequence[pd.Series], smallest: float) -> list[dict]:
    """The rows of a family with `p_holm` and `decision`. samples : in units of the score"""
    corrected = holm([row["p"] for row in rows])
    words = decisions(samples, smallest)
    return [
        row | {"p_holm": p, "decision": word}
        for row, p, word in zip(rows, corrected, words, strict=True)
    ]


def paired_differences(choices: Choices, scores: pd.DataFrame, ceilings: Ceilings) -> pd.DataFrame:
    """Return each later model of the comparison minus its group's first model, paired by image.

    Only images valid for both are used. There is one row per protocol, panel and later model.

    comparison, panel, group, form : see `lib.study.comparisons`
    first, second         : the labels of the two models
    backbone, dcls, method : those of the second model
    difference, low, high : mean in units of the score, and its 95 % interval
    median                : far from the mean if a few images cause the difference
    n_paired              : number of images in the comparison
    p, p_holm             : p value of a mean of 0; Holm-corrected over all pairs of the same
                            protocol, panel and family of groups. NaN if there are too few images
                            for a decision
    effect                : Cohen's d
    spread                : standard deviation over images
    images_needed         : number of images for a paired t test to find this effect four times in
                            five
    decision              : from p_holm and the smallest effect, see `lib.scores.decisions`
    """
    rows: list[dict] = []
    families: dict[tuple[str, str, str], list[tuple[int, pd.Series]]] = {}
    for protocol, first, later, difference, ceiling in _differences(choices, scores, ceilings):
        family = families.setdefault((protocol, later.panel, later.group.family), [])
        family.append((len(rows), difference / ceiling.divisor))
        rows.append(
            {
                "comparison": choices.comparison.key, "protocol": protocol, "panel": later.panel,
                "group": later.group.label, "form": later.member.form,
                "first": first.member.label, "second": later.member.label,
                "backbone": later.member.backbone.key, "dcls": later.member.dcls,
                "method": later.method.key,
            }
            | paired_comparison(difference, ceiling)
        )  # fmt: skip
    for family in families.values():
        places = [place for place, _ in family]
        samples = [sample for _, sample in family]
        found = judged([rows[place] for place in places], samples, choices.smallest_effect)
        for place, row in zip(places, found, strict=True):
            rows[place] = row
    return pd.DataFrame(rows, columns=[*_OF_A_PAIR, *_COMPARED])


_OF_A_PAIR = [
    "comparison", "protocol", "panel", "group", "form", "first", "second", "backbone", "dcls",
    "method",
]  # fmt: skip


def compare_models(choices: Choices, scores: pd.DataFrame, ceilings: Ceilings) -> pd.DataFrame:
    """Return the difference between each two compared models, paired by image.

    Only images valid for both are used. The columns are `protocol, first, second`, their labels,
    `methods` (which made the maps), and those of `paired_differences` for second minus first; p is
    Holm-corrected over the pairs of a protocol. `choices.compared` names the models: variants, with
    a method after a colon if it is not the preferred one. Two models that see different parts of
    the human map (*corrected*) are compared by their correlations, each with its own part, divided
    by the ceiling of the first.
    """
    of = _rho_of(scores)
    nothing = pd.Series(dtype=float)
    rows = []
    labels = {
        m.name: m.label if ":" in m.name else m.backbone.titled(m.dcls) for m in choices.compared
    }
    for protocol in choices.protocols:
        compared, samples = [], []
        for first, second in combinations(choices.compared, 2):
            rho, other = (
                of.get((m.variant, m.method.key, protocol), nothing) for m in (first, second)
            )
            difference = (other - rho).dropna()
            ceiling = ceilings.of(protocol, first.backbone.preprocessing)
            compared.append(
                {
                    "protocol": protocol,
                    "first": first.name,
                    "second": second.name,
                    "first_label": labels[first.name],
                    "second_label": labels[second.name],
                    "methods": first.method.label
                    if first.method == second.method
                    else f"{first.method.label}, {second.method.label}",
                }
                | paired_comparison(difference, ceiling)
            )
            samples.append(difference / ceiling.divisor)
        rows += judged(compared, samples, choices.smallest_effect)
    names = ["protocol", "first", "second", "first_label", "second_label", "methods"]
    return pd.DataFrame(rows, columns=[*names, *_COMPARED])


def power_table(paired: pd.DataFrame, differences: tuple[float, ...]) -> pd.DataFrame:
    """Return the number of images needed to find each of these differences, from the spread."""
    columns = {
        f"images to find {difference:g}": [
            images_needed(difference / spread) if spread else float("nan")
            for spread in paired.spread
        ]
        for difference in differences
    }
    names = ["protocol", "panel", "group", "form", "n_paired", "spread"]
    return paired[names].assign(**columns)


def arrange(choices: Choices, summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary with the place of each row in the study's comparison.

    A model in two groups has two rows.

    comparison, panel, group, place, form : see `lib.study.comparisons`
    model   : the label of the model, with its method if that distinguishes it
    at      : the place on the comparison's axis; NaN if it has none
    shared  : whether all groups of several models have the same forms
    """
    comparison, shared = choices.comparison, bool(forms_of(choices))
    rows = [
        {
            "variant": each.member.variant, "method": each.method.key,
            "comparison": comparison.key, "panel": each.panel, "group": each.group.label,
            "place": each.place, "form": each.member.form, "model": each.member.label,
            "at": np.nan if each.member.at is None else each.member.at, "shared": shared,
        }
        for each in arranged(choices)
    ]  # fmt: skip
    table = pd.DataFrame(rows).merge(summary, on=["variant", "method"], how="left", sort=False)
    if comparison.along != "at":
        table["at"] = table[comparison.along]
    return table


def one_of_each(arranged: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that represent one model each, for one protocol and panel of `arrange`.

    They are the first row of each group if the groups share their forms, otherwise all rows. The
    fairer pair of another model, untrained models and checkpoints are omitted."""
    rows = [BACKBONES[key] for key in arranged.backbone]
    plain = np.array([not (b.pair_of or b.untrained or b.series) for b in rows], bool)
    chosen = arranged[plain & ((arranged.place == 0) | ~arranged.shared)]
    return chosen.drop_duplicates(["variant", "method"])


def size_correlation(models: pd.DataFrame) -> float:
    """Return the rank correlation of size and score over models; NaN if all scores are equal.

    models : rows of `one_of_each`"""
    if models.score.nunique() < 2:
        return float("nan")
    return float(models.parameters_millions.corr(models.score, method="spearman"))
