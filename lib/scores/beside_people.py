"""Models' agreement with people, and people's agreement with one another, on one scale."""

from __future__ import annotations

import pandas as pd

from ..maps.methods import METHODS, RANDOM_CAM
from ..networks.backbones import BACKBONES
from ..people.protocols import PROTOCOLS
from ..study.choices import Choices
from ..study.study import Study
from .ceiling import Ceilings
from .control_scores import score_controls
from .controls import CONTROL, NETWORK, PEOPLE, control_labels
from .observers import ceilings_of, people_of
from .results import beside_controls, summarise, summarise_controls
from .study_scores import score_study

COLUMNS = ["protocol", "reading", "kind", "label", "rho", "low", "high", "n", "above_control"]


def scores_beside_people(
    choices: Choices, summary: pd.DataFrame, controls: pd.DataFrame, ceilings: Ceilings
) -> pd.DataFrame:
    """Return the mean Spearman's rho of models, controls and people, one row each: `COLUMNS`.

    summary  : as returned by `lib.scores.results.beside_controls`
    controls : as returned by `summarise_controls`

    kind : "network" for a model's heatmaps and the human map, "control" for a map that no model
           made and the human map, "people" for groups of observers compared with one another
    low, high : 95 % interval over images; n : number of images
    above_control : whether a model reliably lies above the strongest control

    The control with random channel weights explains nothing and is omitted. A model's heatmap and
    a control are compared with the map of all observers, and one person's map with the map of all
    others. "as many other people" is the human ceiling: what another group of this size would
    reach, extrapolated from halves by the Spearman-Brown formula.
    """
    rows = []
    for (protocol, reading), _ in controls.groupby(["protocol", "reading"], sort=False):
        read = {
            b.key
            for b in choices.backbones
            if PROTOCOLS[protocol].reading_name(b.preprocessing) == reading
        }
        place = {"protocol": protocol, "reading": reading}
        here = summary[(summary.protocol == protocol) & summary.backbone.isin(read)]
        several = len(choices.variants) > 1
        for row in here.itertuples():
            if row.method == RANDOM_CAM:
                continue
            label = METHODS[row.method].label
            if several:
                label = f"{BACKBONES[row.backbone].titled(row.dcls)}, {label}"
            found = _row(place, NETWORK, label, row.raw, row.raw_low, row.raw_high, row.n)
            rows.append(found | {"above_control": row.above_control})
        those = controls[(controls.protocol == protocol) & (controls.reading == reading)]
        rows += [
            _row(place, CONTROL, control_labels().get(c.control, c.control), c.raw, c.raw_low,
                 c.raw_high, c.n)
            for c in those.itertuples()
        ]  # fmt: skip
        ceiling = ceilings.read(protocol, reading)
        for label, found in (
            ("one person with all others", ceiling.one_against_rest),
            ("one half of the people with the other", ceiling.split_half),
        ):
            rows.append(_row(place, PEOPLE, label, found.mean, found.low, found.high, found.n))
        rows.append(
            _row(place, PEOPLE, "as many other people (the ceiling)", ceiling.value, ceiling.low,
                 ceiling.high, ceiling.images)
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table[table.rho.notna()].reset_index(drop=True)


def score_beside_people(study: Study) -> pd.DataFrame:
    """Return `scores_beside_people` for a study.

    Its models, the controls and its observers are scored unless their scores are cached. Raises
    MissingInputs, StoredError, WeightsError."""
    scores, controls = score_study(study), score_controls(study)
    ceilings = ceilings_of(study.choices, people_of(study))
    summary = summarise(study.choices, scores, ceilings)
    summary = beside_controls(study.choices, scores, controls, ceilings, summary)
    strength = summarise_controls(controls, ceilings)
    return scores_beside_people(study.choices, summary, strength, ceilings)


def _row(place: dict, kind: str, label: str, rho: float, low: float, high: float, n: int) -> dict:
    return place | {"kind": kind, "label": label, "rho": rho, "low": low, "high": high, "n": n}
