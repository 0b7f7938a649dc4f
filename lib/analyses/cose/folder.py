"""COSE on a folder of images, with or without labels; no human maps are needed.

It can also write the pairs in the format of the published code (cvl-umass/COSE, src/explain.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ...base.fingerprint import code_of, sha256_of
from ...base.geometry import Preprocessing
from ...base.threads import each
from ...networks.backbones import Backbone, variant_name
from ...networks.sources import WEIGHTS_SUFFIXES
from ...people.image_folders import ImageFolderError, centre_crop
from ...people.labels import LabelledFolder, LabelledImage
from ...study.study import Study
from .changes import KINDS
from .pairs import ITSELF, MATCHED, SSIM, ShownImages
from .readings import CORRECTED, PUBLISHED
from .study import BLOCK, EARLIER, RANDOM, PairsWork

# Names and order of the published results; the other names are spelled as there.
_NETWORKS = {RANDOM: "random"}
_CHECKPOINT = "mid_ckpt"
PUBLISHED_COLUMNS = [
    "test_idx", "target_class", "pred_class", "transform_type", "tranform_magnitude",
    "t_pred_class", "ssim", "spearman",
]  # fmt: skip
COLUMNS = [
    *PUBLISHED_COLUMNS, "model", "method", "image", "condition", "cells", "side", "constant",
    SSIM[CORRECTED], *MATCHED.values(),
]  # fmt: skip


@dataclass
class FolderBlock:
    """Some images of a folder, as a `lib.analyses.cose.study.Block`."""

    name: str
    images: Sequence[LabelledImage]
    keep_going: bool
    left_out: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def facts(self) -> dict:
        of = [(p.name, sha256_of(p.path), p.place, p.label) for p in self.images]
        return {"images": of, "reading": code_of("people.image_folders")}

    def shown(self, geometry: Preprocessing) -> Iterator[ShownImages]:
        def read(image: LabelledImage) -> np.ndarray | ImageFolderError:
            try:
                return centre_crop(image.path, geometry)
            except ImageFolderError as error:
                return error

        there, pixels = [], []
        for image, found in zip(self.images, each(read, self.images), strict=True):
            if isinstance(found, ImageFolderError):
                if not self.keep_going:
                    raise ImageFolderError(
                        f"{found}; results so far are cached, and --keep-going skips this image"
                    )
                self.left_out[image.name] = str(found)
            else:
                there.append(image)
                pixels.append(found)
        if there:
            labels = None if there[0].label is None else [p.label for p in there]
            yield ShownImages(
                [p.name for p in there], np.stack(pixels), [p.place for p in there], labels
            )


def work_on_folder(
    study: Study,
    folder: LabelledFolder,
    name: str,
    earlier: Mapping[tuple[Backbone, bool], Sequence[Path]],
) -> PairsWork:
    """Prepare COSE of a study's variants on a folder; `pairs_by_variant` computes it.

    name    : the folder's name, for the names of cached files
    earlier : {(backbone, dcls): weights files from earlier in its training}
    """
    short = re.sub(r"[^\w.-]+", "_", name)[:40] or "images"
    starts = range(0, len(folder.images), BLOCK)
    blocks = [
        FolderBlock(
            f"{short}-{number}", folder.images[start : start + BLOCK], study.choices.keep_going
        )
        for number, start in enumerate(starts)
    ]
    return PairsWork(study, blocks, earlier, with_spearman=True)


def as_published(pairs: pd.DataFrame, folder: LabelledFolder) -> pd.DataFrame:
    """Return pairs with the columns of the published code, followed by this study's own columns.

    pairs : from `pairs_by_variant`

    There is one row per pair, in the published order of changes. Without labels, the target is the
    class predicted for the unchanged image.
    """
    places = {image.name: image.place for image in folder.images}
    names = dict(enumerate(folder.names))
    kinds = {kind.key: kind.published for kind in KINDS.values()}
    networks = {name: _called(name) for name in pairs.network.unique() if name != ITSELF}
    order = {name: n for n, name in enumerate([*networks.values(), *kinds.values()])}

    def called(classes: pd.Series) -> pd.Series:
        return classes.astype(int).map(lambda number: names.get(number, number))

    variants = [
        variant_name(*of) for of in zip(pairs.backbone, pairs.dcls.astype(bool), strict=True)
    ]
    table = pairs.assign(
        test_idx=pairs.image_id.map(places),
        target_class=called(pairs.label),
        pred_class=called(pairs.predicted),
        transform_type=pairs.change.map(kinds | networks),
        tranform_magnitude=pairs.magnitude.astype(float),
        t_pred_class=called(pairs.predicted_after),
        ssim=pairs[SSIM[PUBLISHED]],
        model=variants,
        image=pairs.image_id,
    )
    keys = [
        pd.factorize(table.model)[0], pd.factorize(table.method)[0], table.test_idx,
        table.transform_type.map(order),
    ]  # fmt: skip
    return table.iloc[np.lexsort(keys[::-1])][COLUMNS].reset_index(drop=True)


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the weights files of a folder, sorted by name.

    Raises ValueError if there are none, or if two would have the same name in the results."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give a folder of checkpoints")
    found = sorted(p for p in folder.iterdir() if p.is_file() and p.name.endswith(WEIGHTS_SUFFIXES))
    if not found:
        raise ValueError(f"{folder} holds no weights files ({', '.join(WEIGHTS_SUFFIXES)})")
    called: dict[str, Path] = {}
    for path in found:
        other = called.setdefault(_called(EARLIER + path.name), path)
        if other is not path:
            raise ValueError(
                f"{other} and {path.name} would both be called {_called(EARLIER + path.name)} in "
                "the results: rename one of them"
            )
    return found


def _called(network: str) -> str:
    """random, mid_ckpt_e007, mid_ckpt_<name of the file>."""
    if network in _NETWORKS:
        return _NETWORKS[network]
    name = network.removeprefix(EARLIER)
    stem = next(name.removesuffix(end) for end in WEIGHTS_SUFFIXES if name.endswith(end))
    epoch = re.search(r"(?:^|[_.-])e(?:poch)?[_-]?(\d+)$", stem)
    return f"{_CHECKPOINT}_e{int(epoch[1]):03d}" if epoch else f"{_CHECKPOINT}_{stem}"
