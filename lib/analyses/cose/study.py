"""COSE's pairs of a whole study: made where not kept, a block of images at a time."""

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

# Unless others are asked for: the study's two, one that looks elsewhere, and the control.
COSE_METHODS = (*PUBLISHED_METHODS, "grad_cam_plus_plus", "random_cam")
SEED = 20240803
RANDOM = "random weights"
EARLIER = "earlier: "  # begins the name of a network from earlier in a training
BLOCK = 16  # images whose pairs are kept at once
_OF_MINIATURES = 24  # changed images a forward
_CODE = tuple(f"analyses.cose.{name}" for name in ("changes", "pairs", "readings", "ssim"))


class Block(Protocol):
    """Some images, whose pairs are kept at once.

    name     : begins the name of the file in which they are kept
    left_out : {image: why it cannot be read}, growing as they are read
    """

    name: str
    left_out: dict[str, str]

    def __len__(self) -> int: ...

    def facts(self) -> dict:
        """What determines the images, their places and labels."""

    def shown(self, geometry: Preprocessing) -> Iterator[ShownImages]:
        """The images as a network of this geometry sees them."""


@dataclass
class ClickMeBlock:
    """Images of a study, of one part."""

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
    """What a variant is compared with.

    name : ITSELF on changed images, else what the network became
    load : makes the changed network, None for the variant itself
    hash : of what determines its weights
    """

    name: str
    load: Callable[[], StudyModel] | None = None
    hash: str = ""


def score_cose(study: Study, images: int = 0) -> pd.DataFrame:
    """Every pair of every variant, method and image: `backbone, dcls` and `COLUMNS`.

    images : so many of the study's, 0 for all

    Networks change to random weights, and to each file of `Inputs.training_checkpoints`. What
    is done is kept, so that a run goes on where one ended. Raises MissingInputs, StoredError,
    WeightsError; with `keep_going` what cannot be read is left out, and told by
    `lib.scores.study_scores.left_out`.
    """
    study.inputs.require()
    clickme = study.clickme(limit=images or study.choices.limit)
    blocks = [ClickMeBlock(some, n) for n, some in enumerate(clickme.blocks(BLOCK))]
    variants = study.networks.there()
    earlier = {(b, dcls): study.inputs.training_checkpoints(b.key, dcls) for b, dcls in variants}
    work = Work(study, blocks, earlier)
    work.missed |= clickme.left_out
    work.missed |= {
        backbone.key: "its weights, or a learned method's for it, are missing or cannot be read"
        for backbone in study.choices.backbones
        if (backbone, False) not in variants
    }
    work.tell_how_long()
    tables = list(work.tables())
    if not blocks or all(table.empty for table in tables):
        raise StoredError("no image of the study can be read")
    table = pd.concat(tables, ignore_index=True)
    table.attrs[LEFT_OUT] = work.missed
    return table


@dataclass
class Work:
    """All pairs of some variants on some images, made or read from what is kept.

    earlier : {(backbone, dcls): files of its weights from earlier in its training}
    with_spearman : as for `pairs_of_changed_images`
    missed  : {image, network or backbone: why it was left out}, growing
    """

    study: Study
    blocks: Sequence[Block]
    earlier: Mapping[tuple[Backbone, bool], Sequence[Path]]
    with_spearman: bool = False
    missed: dict[str, str] = field(default_factory=dict)

    def tell_how_long(self) -> None:
        """Print how long methods will take that need many forwards a map."""
        choices = self.study.choices
        if choices.keep_going or not any(method.forwards for method in choices.methods):
            return
        backbone, dcls = next(iter(self.earlier))
        model = self.study.networks.inference_model(backbone.key, dcls)
        images = sum(map(len, self.blocks))
        # Itself on changed images; then it and the other on the unchanged ones.
        maps = sum(1 + CHANGES + 2 * (1 + len(files)) for files in self.earlier.values())
        first = next(self.blocks[0].shown(backbone.preprocessing))
        tqdm.write(foretell(model, first.pixels[:1], choices.methods, maps * images))

    def tables(self) -> Iterator[pd.DataFrame]:
        """A variant's pairs, one variant after another: `backbone, dcls`, then as made.

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
            tqdm.write(f"left out: {name}: {error}")
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
    """Makes pairs, holding the variant and one changed network in memory at most."""

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
        """Of a block of images: kept from before, or made and kept."""
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
            self._changed = None  # its memory goes before the next one's comes
            self._changed = other, self._study.networks.made_ready(other.load())
        changed = self._changed[1]
        return pairs_of_changed_network(
            self._whole, changed, other.name, methods, shown, self._size, self._with_spearman
        )
