"""Protocols: how stored human maps become what is scored.

"published" reads them as the published study did, with its defects; "corrected" mends them all.
Each correction can be applied alone ("published+blur"), which shows its effect on a score.
Both blur the stored map, as ClickMe's clicks require. Gaze is already blurred, by the Gaussian
that its data set states: "gaze" equals "corrected" without a second blur.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..base.geometry import Preprocessing
from ..base.tables import Table

_WHOLE_BATCH = 32


@dataclass(frozen=True)
class Mend:
    """A correction of the published protocol. label : what it does"""

    key: str
    label: str


MENDS: Table[Mend] = Table(
    "mend",
    [
        Mend("images", "images of a partial batch and of the last shard are scored"),
        Mend("crop", "the human map is cropped exactly as the image is"),
        Mend("blur", "the human map's blur is symmetric and does not dim the borders"),
        Mend("ties", "maps are rounded to 1e-5 of their range before ranking"),
    ],
)


@dataclass(frozen=True)
class Protocol:
    """How stored human maps are read.

    mends : keys of `MENDS`
    blurs : whether the stored map is blurred
    """

    key: str
    label: str
    mends: frozenset[str]
    blurs: bool = True

    def scored(self, stored: int, unread: int = 0) -> int:
        """Return how many of the stored images are scored: the first ones, in reading order.

        unread : the number of images in the last shard, if it is the one that is never read
        """
        if "images" in self.mends:
            return stored
        return (stored - unread) // _WHOLE_BATCH * _WHOLE_BATCH

    @property
    def settles(self) -> bool:
        """Whether maps are rounded before ranking."""
        return "ties" in self.mends

    def reading(self, geometry: Preprocessing) -> tuple:
        """Return what determines this protocol's ranked human maps for a backbone."""
        crop = (geometry.resize, geometry.crop) if "crop" in self.mends else None
        if crop and crop[0] == crop[1]:
            crop = None
        return (self.blur, crop, self.settles)

    @property
    def blur(self) -> str:
        """Which blur makes this protocol's human maps: "published", "mended" or "none"."""
        return ("mended" if "blur" in self.mends else "published") if self.blurs else "none"

    def reading_name(self, geometry: Preprocessing) -> str:
        """Return the part of the human maps that a backbone is compared with, in words."""
        _, crop, _ = self.reading(geometry)
        return "whole" if crop is None else f"centre, {crop[1]} of {crop[0]}"


def _protocols() -> list[Protocol]:
    alone = [
        Protocol(f"published+{m.key}", f"as published, but {m.label}", frozenset({m.key}))
        for m in MENDS.values()
    ]
    return [
        Protocol("published", "as published", frozenset()),
        Protocol("corrected", "corrected", frozenset(MENDS)),
        Protocol("gaze", "as stated, blurred once", frozenset(MENDS), blurs=False),
        *alone,
    ]


PROTOCOLS: Table[Protocol] = Table("protocol", _protocols())
DEFAULT_PROTOCOLS = ("published", "corrected")
