"""The table of faithfulness measures: units, range, direction, and the source of the definition."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ...base.tables import Table

SHARES = (1.0, 0.5, 0.15)
# Mean of the map in per cent. It is no measure of quality, but a map that hides less drops less.
LET_THROUGH = "let_through"

_LCAM = "Chattopadhyay et al. 2018, {} of the pixels as L-CAM (Gkartzonika et al. 2022)"
_RISE = "RISE (Petsiuk et al. 2018)"
_ROAD = "ROAD (Rong et al. 2022), 20, 50 and 80 % of the pixels, mean"
_PACKAGE = "pytorch-grad-cam's class of this name"
_ARCC = "pytorch-grad-cam's class ARCC"


@dataclass(frozen=True)
class FaithfulnessMeasure:
    """A row of the table of faithfulness measures.

    unit        : unit of its values
    ends        : the smallest and the largest possible value
    faithful    : whether "less" or "more" is more faithful; "neither" if it does not measure
                  quality
    definition  : source of the definition
    from_package : whether it is pytorch-grad-cam's, for any target, from `package_metrics`; the
                  others use the probability of the predicted class
    """

    key: str
    unit: str
    ends: tuple[float, float]
    faithful: str
    definition: str
    from_package: bool = False


def _of_share(share: float) -> list[FaithfulnessMeasure]:
    pixels, definition = f"{share:.0%}", _LCAM.format(f"{100 * share:.0f} %")
    return [
        FaithfulnessMeasure(f"average_drop_{pixels}", "% of the probability", (0, 100), "less",
                            definition),
        FaithfulnessMeasure(f"increase_{pixels}", "% of the images", (0, 100), "more", definition),
    ]  # fmt: skip


def _package(
    key: str, unit: str, ends: tuple[float, float], faithful: str, definition: str = _PACKAGE
) -> FaithfulnessMeasure:
    return FaithfulnessMeasure(key, unit, ends, faithful, definition, from_package=True)


_SCORE, _ANY = "unit of the target", (-np.inf, np.inf)
_ROADS = [
    _package("ROADMostRelevantFirst", f"{_SCORE}, change", _ANY, "less"),
    _package("ROADLeastRelevantFirst", f"{_SCORE}, change", _ANY, "more"),
]

FAITHFULNESS: Table[FaithfulnessMeasure] = Table(
    "measure of faithfulness",
    [
        FaithfulnessMeasure(LET_THROUGH, "%, mean of the map", (0, 100), "neither", "this study"),
        *(row for share in SHARES for row in _of_share(share)),
        FaithfulnessMeasure("deletion", "probability, area under the curve", (0, 1), "less", _RISE),
        FaithfulnessMeasure("insertion", "probability, area under the curve", (0, 1), "more",
                            _RISE),
        FaithfulnessMeasure("road_morf", "probability left", (0, 1), "less", _ROAD),
        FaithfulnessMeasure("road_lerf", "probability left", (0, 1), "more", _ROAD),
        FaithfulnessMeasure("road_combined", "probability, (LeRF − MoRF) ÷ 2", (-0.5, 0.5), "more",
                            "the two ROADs, combined as in pytorch-grad-cam"),
        _package("CamMultImageConfidenceChange", f"{_SCORE}, change", _ANY, "more"),
        _package("DropInConfidence", _SCORE, (0, np.inf), "less"),
        _package("IncreaseInConfidence", "share of the images", (0, 1), "more"),
        *_ROADS,
        *(replace(row, key=f"{row.key}Average") for row in _ROADS),
        _package("ROADCombined", f"{_SCORE}, (LeRF − MoRF) ÷ 2", _ANY, "more"),
        _package("Complexity", "mean of the map", (0, 1), "neither", _ARCC),
        _package("Coherency", "(1 + Pearson's r) ÷ 2", (0, 1), "more", _ARCC),
        _package("ARCC", "harmonic mean of three in 0–1", (0, 1), "more"),
    ],
)  # fmt: skip


def ends_of(measure: str) -> tuple[float, float]:
    """Return the smallest and the largest possible value of a measure. Raises UnknownName."""
    return FAITHFULNESS[measure].ends


def define_measures(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per measure in a table: `measure, unit, faithful, definition`.

    table : has a column `measure`
    """
    rows = [FAITHFULNESS[key] for key in table.measure.unique()]
    columns = ["measure", "unit", "faithful", "definition"]
    return pd.DataFrame([(r.key, r.unit, r.faithful, r.definition) for r in rows], columns=columns)
