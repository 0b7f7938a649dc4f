"""Profiles: which images, which weights, and what results may claim. One row each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..base.paths import DATA, DEMO, GAZE
from ..base.tables import Table
from ..maps.methods import ONE_PASS_METHODS, PUBLISHED_METHODS
from ..networks.backbones import BACKBONES, THE_EIGHT, Backbone
from ..networks.sources import SHARDS
from ..people.protocols import DEFAULT_PROTOCOLS

TARGETS = ("true", "predicted")  # the class whose evidence a heatmap shows; published: true
CLASS_NAMES = DEMO / "classes.txt"
DEMO_RECIPE = "the demo's"


@dataclass(frozen=True)
class Brief:
    """A smaller sample of the long analyses.

    images : number of images, in place of the profile's `sample`
    models : keys of backbones, in place of all, where the user chooses none
    cose   : the fewest images for COSE, which then has no intervals if they are under twelve
    fields : number of images for receptive fields
    watched : images, batch and epochs of the training that notebook 08 watches
    contrasted : keys of the methods of deletion, insertion and ROAD
    shown  : keys of the backbones whose heatmaps are looked at method by method
    """

    images: int
    models: tuple[str, ...]
    cose: int
    fields: int
    watched: tuple[int, int, int]
    contrasted: tuple[str, ...]
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """A row: which images, which weights, and what results may claim.

    data        : folder of shards and weights; None for one that the user may choose
    images      : folder of images and gaze instead of shards
    models      : keys of its own backbones, if these are not the study's
    methods, protocols, target : the defaults
    notebooks   : numbers of those in a full run; () for all except the gaze profile's
    shard_names : every shard that a full run needs, in reading order
    mini        : whether the weights are the embedded example's miniatures
    classes     : number of classes; labels lie below it
    photographs : Figures 5 and 6 show "held-out" images of the shards, or
                  "photographs" that packages contain or the user provides
    caveat      : printed on every figure and table made from it; "" for none
    warns       : whether the caveat warns of results, and does not only describe the data
    sample      : number of images in analyses that score many methods or models
    brief       : the smaller sample of these analyses unless `Choices.whole`; None if there is none
    published_ceiling : whether the people are ClickMe's, whose ceiling is published
    own         : models that a user's file added
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
    brief: Brief | None = None
    warns: bool = True
    published_ceiling: bool = False
    images: Path | None = None
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = PUBLISHED_METHODS
    protocols: tuple[str, ...] = DEFAULT_PROTOCOLS
    target: str = TARGETS[0]
    notebooks: tuple[str, ...] = ()
    own: tuple[Backbone, ...] = ()

    @property
    def backbones(self) -> tuple[Backbone, ...]:
        """All backbones that a full run studies."""
        return tuple(b for b in self.known if b.compared)

    @property
    def known(self) -> tuple[Backbone, ...]:
        """All backbones that can be chosen."""
        if self.mini:
            return THE_EIGHT + self.own
        if self.models:
            return tuple(BACKBONES[key] for key in self.models) + self.own
        return tuple(b for b in BACKBONES.values() if b in self.own or not (b.origin or b.embedded))

    @property
    def is_embedded(self) -> bool:
        """Whether its files come with the project."""
        return self.mini or self.images is not None


PROFILES: Table[Profile] = Table(
    "profile",
    [
        Profile(
            "gaze", "OSIE photographs, gaze of 15 people", GAZE, (),
            mini=False, classes=1000, photographs="held-out",
            caveat="15 people looked freely at scenes, without a task.", warns=False,
            sample=48, images=GAZE, models=("mobilenetv2_100",), methods=ONE_PASS_METHODS,
            protocols=("gaze",), target="predicted", notebooks=("00", "04", "04b"),
        ),
        Profile(
            "demo", "embedded example", DEMO, ("val-0.tfrecords",),
            mini=True, classes=12, photographs="held-out",
            caveat="Embedded example: simulated people, miniature models. No evidence about DCLS.",
            sample=48,
            brief=Brief(
                16, ("convnext_tiny", "resnet50"), cose=12, fields=5, watched=(48, 16, 4),
                contrasted=(*PUBLISHED_METHODS, "random_cam"), shown=("convnext_tiny",),
            ),
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
            caveat="Rehearsal: full-size models with random weights, generated images and "
            "maps. Not a result.",
            sample=16,
        ),
    ],
)  # fmt: skip
