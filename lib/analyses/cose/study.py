"""COSE's pairs of a whole study, as units: a variant, what it is compared with, some images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import pandas as pd

from ...base.fingerprint import code_of, sha256_of
from ...base.geometry import Preprocessing
from ...maps.methods import PUBLISHED_METHODS
from ...networks.backbones import Backbone, variant_name
from ...networks.batch_size import BatchSize
from ...networks.models import StudyModel
from ...people.clickme import ClickMe
from ...people.stored import StoredError
from ...scores.kept import facts_of_images, facts_of_maps
from ...scores.models import Models
from ...scores.units import foretell
from ...study.study import Study
from ...work.cache import LEFT_OUT
from ...work.doing import tables
from ...work.units import Unit, Work
from .changes import CHANGES
from .pairs import (
    COLUMNS,
    ITSELF,
    SPEARMAN,
    ShownImages,
    pairs_of_changed_images,
    pairs_of_changed_network,
)

# The default: the study's two methods, one that highlights other regions, and the control.
COSE_METHODS = (*PUBLISHED_METHODS, "grad_cam_plus_plus", "random_cam")
SEED = 20240803
RANDOM = "random weights"
EARLIER = "earlier: "  # the prefix of a network from earlier in a training
BLOCK = 16  # images whose pairs are cached together
_OF_MINIATURES = 24  # changed images per forward pass of a miniature
_CODE = tuple(f"analyses.cose.{name}" for name in ("changes", "pairs", "readings", "ssim"))


class Block(Protocol):
    """Some images whose pairs are cached together.

    name     : the prefix of the name of the cached file
    left_out : {image: why it cannot be read}; it grows while images are read
    """

    name: str
    left_out: dict[str, str]

    def __len__(self) -> int: ...

    def facts(self) -> dict:
        """Return what determines the images, their places and labels."""

    def shown(self, geometry: Preprocessing) -> Iterator[ShownImages]:
        """Yield the images as a network of this geometry sees them."""


@dataclass
class ClickMeBlock:
    """Images of one part of a study."""

    some: ClickMe
    number: int

    @property
    def name(self) -> str:
        return f"{self.some.part.name}-{self.number}"

    @property
    def left_out(self) -> dict[str, str]:
        return self.some.left_out

    def __len__(self) -> int:
        return len(self.some)

    def facts(self) -> dict:
        return facts_of_images(self.some)

    def shown(self, geometry: Preprocessing) -> Iterator[ShownImages]:
        for batch in self.some.batches(BLOCK):
            yield ShownImages.of_clickme(batch, geometry)


@dataclass(frozen=True)
class _Other:
    """The network that a variant is compared with.

    name : ITSELF for the variant itself on changed images, otherwise the changed network's name
    load : makes the changed network; None for the variant itself
    hash : hash of what determines its weights
    """

    name: str
    load: Callable[[], StudyModel] | None = None
    hash: str = ""


def score_cose(study: Study, images: int = 0) -> pd.DataFrame:
    """Return all pairs of all variants, methods and images: `backbone, dcls` and `COLUMNS`.

    images : number of the study's images, 0 for all

    Networks change to random weights, and to each file of `Inputs.training_checkpoints`. Finished
    blocks are cached, so that a run continues where another ended. Raises MissingInputs,
    StoredError, WeightsError. With `keep_going`, files that cannot be read are skipped, and
    `lib.scores.study_scores.left_out` lists them.
    """
    study.inputs.require()
    work = StudyPairs(study, images=images)
    found = pairs_by_variant(work)
    if all(table.empty for table in found):
        raise StoredError("no image of the study can be read: check its images and human maps")
    table = pd.concat(found, ignore_index=True)
    table.attrs[LEFT_OUT] = work.missed
    return table


def pairs_by_variant(work: PairsWork) -> list[pd.DataFrame]:
    """Return the pairs of one variant after another: `backbone, dcls`, then `COLUMNS`.

    Raises WeightsError, and what reading an image raises.
    """
    frames: dict[tuple[str, bool], list[pd.DataFrame]] = {
        (backbone.key, dcls): [] for backbone, dcls in work.earlier
    }
    for unit, table in tables(work):
        if len(table):
            frames[unit.of.backbone.key, unit.of.dcls].append(table)
    found = []
    for (backbone, dcls), of_variant in frames.items():
        table = pd.concat(of_variant) if of_variant else pd.DataFrame(columns=work.columns)
        table = table.assign(backbone=backbone, dcls=dcls)
        found.append(table[["backbone", "dcls", *work.columns]].reset_index(drop=True))
    return found


@dataclass(frozen=True)
class _Pairs:
    """A unit: a variant, what it is compared with, and a block of images."""

    backbone: Backbone
    dcls: bool
    other: _Other
    block: Block


class PairsWork(Work):
    """All pairs of some variants on some images.

    blocks  : the images, some at a time
    earlier : {(backbone, dcls): weights files from earlier in its training}
    with_spearman : as for `pairs_of_changed_images`
    """

    folder, bar = "cose", ("COSE", "image")

    def __init__(
        self,
        study: Study,
        blocks: Sequence[Block],
        earlier: Mapping[tuple[Backbone, bool], Sequence[Path]],
        with_spearman: bool = False,
    ):
        super().__init__(study)
        self.blocks, self.earlier, self._with_spearman = blocks, earlier, with_spearman
        self.columns = COLUMNS + [SPEARMAN] * with_spearman
        self._models = Models(study, most=1)
        self._changed: tuple[_Pairs, StudyModel] | None = None

    @cached_property
    def _size(self) -> BatchSize:
        choices, device = self.study.choices, self._models.device
        return BatchSize.chosen(choices.batch_size, device, choices.profile.mini, _OF_MINIATURES)

    def pieces(self) -> Iterator[tuple[str, str, _Pairs, int]]:
        for backbone, dcls in self.earlier:
            variant = variant_name(backbone.key, dcls)
            for other in self._others(backbone, dcls):
                model = variant if other.load is None else f"{variant}, {other.name}"
                for block in self.blocks:
                    of = _Pairs(backbone, dcls, other, block)
                    yield f"{model}, {block.name}", model, of, len(block)

    def stem(self, name: str, of: _Pairs) -> str:
        return f"{variant_name(of.backbone.key, of.dcls)}-{of.block.name}"

    def facts(self, of: _Pairs) -> dict:
        return facts_of_maps(self.study, of.backbone, of.dcls) | {
            "code of COSE": code_of(*_CODE),
            "columns": self.columns,
            "torchvision": version("torchvision"),
            "other": [of.other.name, of.other.hash],
            **of.block.facts(),
        }

    def skipped(self, of: _Pairs) -> dict[str, str]:
        return of.block.left_out

    def foretold(self, units: Sequence[Unit]) -> str:
        choices = self.study.choices
        if not any(method.forwards for method in choices.methods):
            return ""
        first: _Pairs = units[0].of
        # The variant on changed images, or the variant and the other network on unchanged ones.
        maps = sum(len(u.of.block) * (2 if u.of.other.load else 1 + CHANGES) for u in units)
        shown = next(first.block.shown(first.backbone.preprocessing))
        model = self._models.of(first.backbone, first.dcls)
        return foretell(model, shown.pixels[:1], choices.methods, maps)

    def compute(self, of: _Pairs) -> pd.DataFrame:
        frames = [self._made(of, shown) for shown in of.block.shown(of.backbone.preprocessing)]
        return pd.concat(frames) if frames else pd.DataFrame(columns=self.columns)

    def _made(self, of: _Pairs, shown: ShownImages) -> pd.DataFrame:
        methods, whole = self.study.choices.methods, self._models.of(of.backbone, of.dcls)
        if of.other.load is None:
            return pairs_of_changed_images(whole, methods, shown, self._size, self._with_spearman)
        changed = self._changed_network(of)
        return pairs_of_changed_network(
            whole, changed, of.other.name, methods, shown, self._size, self._with_spearman
        )

    def _changed_network(self, of: _Pairs) -> StudyModel:
        if self._changed is not None:
            last, model = self._changed
            if (last.backbone, last.dcls, last.other) == (of.backbone, of.dcls, of.other):
                return model
        self._changed = None  # free its memory before the next network is loaded
        self._changed = of, self.study.networks.made_ready(of.other.load())
        return self._changed[1]

    def _others(self, backbone: Backbone, dcls: bool) -> list[_Other]:
        networks, key = self.study.networks, backbone.key
        earlier = [
            _Other(
                f"{EARLIER}{path.name}",
                lambda path=path: networks.load_model(key, dcls, path),
                sha256_of(path),
            )
            for path in self.earlier[backbone, dcls]
        ]
        untrained = _Other(RANDOM, lambda: networks.untrained_model(key, dcls, SEED), str(SEED))
        return [_Other(ITSELF), untrained, *earlier]


class StudyPairs(PairsWork):
    """All pairs of a study's variants on `images` of its images, 0 for all."""

    def __init__(self, study: Study, images: int):
        clickme = study.clickme(limit=images or study.choices.limit)
        blocks = [ClickMeBlock(some, n) for n, some in enumerate(clickme.blocks(BLOCK))]
        variants = study.networks.there()
        earlier = {
            (b, dcls): study.inputs.training_checkpoints(b.key, dcls) for b, dcls in variants
        }
        super().__init__(study, blocks, earlier)
        self.arguments = {"images": images}
        self.missed |= clickme.left_out
        self.missed |= {
            backbone.key: "its weights or its learned modules are missing or cannot be read"
            for backbone in study.choices.backbones
            if (backbone, False) not in variants
        }
