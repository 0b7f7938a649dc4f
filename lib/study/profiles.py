"""Profiles: which images, which weights, and what results may claim. One row each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib.base.paths import DATA, DEMO
from lib.base.tables import Table
from lib.networks.backbones import BACKBONES, THE_EIGHT, Backbone
from lib.networks.sources import SHARDS

CLASS_NAMES = DEMO / "classes.txt"
DEMO_RECIPE = "the demo's"


@dataclass(frozen=True)
class Profile:
    """A row: which pictures, which weights, and what results may claim.

    data        : folder of shards and weights; None for one that the user may choose
    shard_names : every shard that a whole run needs, in reading order
    mini        : the weights are the embedded example's miniatures
    classes     : number of classes; labels lie below it
    photographs : Figures 5 and 6 show "held-out" pictures of the shards, or
                  "photographs" that packages ship or the user provides
    caveat      : printed on every figure and table made from it; "" for none
    sample      : pictures for analyses that score many methods or networks a model
    published_ceiling : its people are ClickMe's, how well they agree is published
    own         : models that a reader's file added
    """

    key: str
    label: str
    data: Path | None
    shard_names: tuple[str, ...]
    mini: bool
    classes: int
    photographs: str
    caveat: str
    sample: int
    published_ceiling: bool = False
    own: tuple[Backbone, ...] = ()

    @property
    def backbones(self) -> tuple[Backbone, ...]:
        """All that a whole run studies."""
        return tuple(b for b in self.known if b.compared)

    @property
    def known(self) -> tuple[Backbone, ...]:
        """All that can be chosen."""
        if self.mini:
            return THE_EIGHT + self.own
        return tuple(b for b in BACKBONES.values() if not b.origin or b in self.own)


PROFILES: Table[Profile] = Table(
    "profile",
    [
        Profile(
            "demo", "embedded example", DEMO, ("val-0.tfrecords",),
            mini=True, classes=12, photographs="held-out",
            caveat="Embedded example: simulated people, miniature models. No evidence about DCLS.",
            sample=48,
        ),
        Profile(
            "paper", "ClickMe", None,
            tuple(f"{key}.tfrecords" for key in SHARDS),
            mini=False, classes=1000, photographs="photographs", caveat="", sample=1024,
            published_ceiling=True,
        ),
        Profile(
            "rehearsal", "rehearsal", DATA / "rehearsal" / "data",
            tuple(f"{key}.tfrecords" for key in SHARDS),
            mini=False, classes=1000, photographs="photographs",
            caveat="Rehearsal: full-size networks with random weights, generated pictures and "
            "maps. No result.",
            sample=16,
        ),
    ],
)  # fmt: skip
