"""Maps that no network made, by name; `lib.control_scores` makes and scores them."""

from __future__ import annotations

from dataclasses import dataclass

from lib.tables import Table

FLOOR = "other_human"


@dataclass(frozen=True)
class Control:
    """label : as figures name it"""

    key: str
    label: str


CONTROLS: Table[Control] = Table(
    "control",
    [
        Control("mean_human", "mean human map of the other pictures"),
        Control("centre", "centred Gaussian"),
        Control("random", "random 7×7 map"),
        Control(FLOOR, "another picture's human map (floor)"),
    ],
)
