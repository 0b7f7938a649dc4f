"""COSE's pairs of a whole study, computed unless cached, one block of images at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import pandas as pd
from tqdm import tqdm

from ...base.fingerprint import code_of, fingerprint, sha256_of
from ...base.geometry import Preprocessing
from ...base.progress_bar import progress_bar
from ...base.threads import reuse_memory
from ...maps.methods import PUBLISHED_METHODS
from ...networks.backbones import Backbone, variant_name
from ...networks.batch_size import BatchSize
from ...networks.checkpoints import WeightsError
from ...networks.models import StudyModel
from ...people.clickme import ClickMe
from ...people.stored import StoredError
from ...scores.kept import LEFT_OUT, facts_of_maps, read_kept, write_kept
from ...scores.units import foretell
from ...study.study import Study
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
        of = [(chosen.index, chosen.place) for chosen in self.some.chosen]
        return {"part": self.some.part.digest(), "images": of}

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
    clickme = study.clickme(limit=images or study.choices.limit)
    blocks = [ClickMeBlock(some, n) for n, some in enumerate(clickme.blocks(BLOCK))]
    variants = study.networks.there()
    earlier = {(b, dcls): study.inputs.training_checkpoints(b.key, dcls) for b, dcls in variants}
    work = Work(study, blocks, earlier)
    work.missed |= clickme.left_out
    work.missed |= {
        backbone.key: "its weights or its learned modules are missing or cannot be read"
        for backbone in study.choices.backbones
        if (backbone, False) not in variants
    }
    work.tell_how_long()
    tables = list(work.tables())
    if not blocks or all(table.empty for table in tables):
        raise StoredError("no image of the study can be read: check its images and human maps")
    table = pd.concat(tables, ignore_index=True)
    table.attrs[LEFT_OUT] = work.missed
    return table


@dataclass
class Work:
    """All pairs of some variants on some images, computed or read from the cache.

    earlier : {(backbone, dcls): weights files from earlier in its training}
    with_spearman : as for `pairs_of_changed_images`
    missed  : {image, network or backbone: why it was skipped}; it grows during the work
    """

    study: Study
    blocks: Sequence[Block]
    earlier: Mapping[tuple[Backbone, bool], Sequence[Path]]
    with_spearman: bool = False
    missed: dict[str, str] = field(default_factory=dict)

    def tell_how_long(self) -> None:
        """Print how long methods with many forward passes per map will take."""
        choices = self.study.choices
        if choices.keep_going or not any(method.forwards for method in choices.methods):
            return
        backbone, dcls = next(iter(self.earlier))
        model = self.study.networks.inference_model(backbone.key, dcls)
        images = sum(map(len, self.blocks))
        # The variant on changed images, then the variant and the other network on unchanged ones.
        maps = sum(1 + CHANGES + 2 * (1 + len(files)) for files in self.earlier.values())
        first = next(self.blocks[0].shown(backbone.preprocessing))
        tqdm.write(foretell(model, first.pixels[:1], choices.methods, maps * images))

    def tables(self) -> Iterator[pd.DataFrame]:
        """Yield the pairs of one variant after another: `backbone, dcls`, then `COLUMNS`.

        Raises WeightsError, and what reading an image raises.
        """
        reuse_memory()
        others = {variant: self._others(*variant) for variant in self.earlier}
        total = sum(map(len, self.blocks)) * sum(map(len, others.values()))
        with progress_bar(total=total, desc="COSE", unit="image") as bar:
            for (backbone, dcls), compared in others.items():
                bar.set_postfix_str(variant_name(backbone.key, dcls))
                variant = _Variant(self.study, backbone, dcls, self.with_spearman)
                frames = [
                    frame
                    for other in compared
                    for frame in self._of_other(variant, other, bar)
                    if len(frame)
                ]
                columns = variant.columns
                table = pd.concat(frames) if frames else pd.DataFrame(columns=columns)
                table = table.assign(backbone=backbone.key, dcls=dcls)
                yield table[["backbone", "dcls", *columns]].reset_index(drop=True)

    def _of_other(self, variant: _Variant, other: _Other, bar: tqdm) -> list[pd.DataFrame]:
        frames = []
        try:
            for block in self.blocks:
                frame = variant.pairs(other, block)
                self.missed |= frame.attrs.pop(LEFT_OUT, {}) | block.left_out
                frames.append(frame)
                bar.update(len(block))
        except WeightsError as error:
            if not self.study.choices.keep_going or other.load is None:
                raise
            name = f"{variant.name}, {other.name}"
            self.missed[name] = str(error)
            tqdm.write(f"skipped: {name}: {error}")
        return frames

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


class _Variant:
    """Makes pairs with at most the variant and one changed network in memory."""

    def __init__(self, study: Study, backbone: Backbone, dcls: bool, with_spearman: bool):
        self._study, self._key = study, (backbone.key, dcls)
        self.name = variant_name(backbone.key, dcls)
        self.columns = COLUMNS + [SPEARMAN] * with_spearman
        self._facts = facts_of_maps(study, backbone, dcls) | {
            "code of COSE": code_of(*_CODE),
            "columns": self.columns,
            "torchvision": version("torchvision"),
        }
        self._geometry, self._with_spearman = backbone.preprocessing, with_spearman
        self._whole: StudyModel | None = None
        self._changed: tuple[_Other, StudyModel] | None = None
        choices = study.choices
        self._size = BatchSize.chosen(
            choices.batch_size, study.networks.device(), choices.profile.mini, _OF_MINIATURES
        )

    def pairs(self, other: _Other, block: Block) -> pd.DataFrame:
        """The pairs of a block of images, from the cache or computed and then cached."""
        here = {"other": [other.name, other.hash]} | block.facts()
        name = f"{self.name}-{block.name}-{fingerprint(self._facts | here)}"
        path = self._study.places.scores.with_name("cose") / f"{name}.parquet"
        table = read_kept(path, self._study.choices.keep_going, self.columns)
        if table is None:
            frames = [self._made(other, shown) for shown in block.shown(self._geometry)]
            table = pd.concat(frames) if frames else pd.DataFrame(columns=self.columns)
            write_kept(path, table, block.left_out)
        return table

    def _made(self, other: _Other, shown: ShownImages) -> pd.DataFrame:
        methods = self._study.choices.methods
        if self._whole is None:
            self._whole = self._study.networks.inference_model(*self._key)
        if other.load is None:
            return pairs_of_changed_images(
                self._whole, methods, shown, self._size, self._with_spearman
            )
        if self._changed is None or self._changed[0] != other:
            self._changed = None  # free its memory before the next network is loaded
            self._changed = other, self._study.networks.made_ready(other.load())
        changed = self._changed[1]
        return pairs_of_changed_network(
            self._whole, changed, other.name, methods, shown, self._size, self._with_spearman
        )
