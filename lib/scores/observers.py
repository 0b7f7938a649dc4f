"""How well an image's observers agree: split halves, and each observer against the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..base.fingerprint import code_of
from ..base.geometry import Preprocessing
from ..base.progress_bar import progress_bar
from ..people.clickme import ClickMe
from ..people.human_maps import human_maps_by
from ..people.protocols import PROTOCOLS, Protocol
from ..study.choices import Choices
from ..study.study import Study
from ..work.doing import tables
from ..work.units import Work
from .ceiling import (
    GIVEN,
    HUMAN_CEILING,
    PUBLISHED,
    SPEARMAN_BROWN,
    Ceiling,
    Ceilings,
    estimated_ceiling,
    withheld,
)
from .kept import DETERMINING_CODE, facts_of_images
from .spearman import ranks_of_rows

SPLITS = 4  # random splits of an image's observers into halves, with a fixed seed
SEED = 20240803
_MAPS = 80
# The rows and columns that are compared: 112 of 224, as many on either side of the centre.
_COMPARED = np.r_[0:111:2, 113:224:2]
COLUMNS = [
    "protocol", "reading", "image_id", "observers", "half", "split_half", "one_against_rest",
]  # fmt: skip


def study_ceilings(study: Study) -> Ceilings:
    """Return the ceilings of a study's human maps: given, published, or estimated from observers.

    Estimates are computed once and cached. Raises StoredError.
    """
    return ceilings_of(study.choices, people_of(study))


def _known(choices: Choices) -> Ceiling | None:
    """The ceiling if it needs no estimate: the given one, or ClickMe's own."""
    if choices.ceiling:
        return Ceiling(choices.ceiling, GIVEN)
    if choices.profile.published_ceiling and not choices.images:
        return Ceiling(HUMAN_CEILING, PUBLISHED, most=SPEARMAN_BROWN)
    return None


def people_of(study: Study) -> pd.DataFrame:
    """Return `score_observers` for a study's images and backbones, cached part by part. The table
    is empty if the ceiling is known without it."""
    if _known(study.choices) is not None:
        return pd.DataFrame(columns=COLUMNS)
    found = [table for _, table in tables(PeopleWork(study))]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=COLUMNS)


class PeopleWork(Work):
    """How well people agree, part by part."""

    folder, bar, columns = "people", ("observers", "part"), COLUMNS

    def pieces(self) -> Iterator[tuple[str, str, ClickMe, int]]:
        for some in self.study.clickme().per_part():
            yield f"people-{some.part.name}", "", some, 1

    @property
    def _geometries(self) -> list[Preprocessing]:
        return [backbone.preprocessing for backbone in self.study.choices.backbones]

    def facts(self, of: ClickMe) -> dict:
        return {
            "observers": of.part.observers_digest(),
            "readings": sorted(_readings(of.protocols, self._geometries)),
            "scored": {p.key: of.scored(p.key) for p in of.protocols},
            "code": code_of(*DETERMINING_CODE, "scores.observers"),
            **facts_of_images(of),
        }

    def compute(self, of: ClickMe) -> pd.DataFrame:
        return score_observers(of, self._geometries)


def ceilings_of(choices: Choices, people: pd.DataFrame) -> Ceilings:
    """The ceilings that a study's choices state, or else estimates.

    people : the table of `score_observers`
    """
    if (known := _known(choices)) is not None:
        return Ceilings(known)
    groups = people.groupby(["protocol", "reading"], sort=False)
    found = {key: estimated_ceiling(rows) for key, rows in groups}
    # Models of a protocol are compared with one another, so all have a ceiling or none has.
    without = {protocol for (protocol, _), ceiling in found.items() if not ceiling.is_known}
    return Ceilings(
        by={key: withheld(c) if key[0] in without else c
            for key, c in found.items()}
    )  # fmt: skip


def _readings(
    protocols: Iterable[Protocol], geometries: Sequence[Preprocessing]
) -> dict[tuple[str, str], tuple[Protocol, Preprocessing]]:
    return {(p.key, p.reading_name(g)): (p, g) for p in protocols for g in geometries}


def score_observers(clickme: ClickMe, geometries: Sequence[Preprocessing]) -> pd.DataFrame:
    """Return how well each image's observers agree, per protocol and reading: `COLUMNS`.

    observers, half : number of observers, and number in a half (one is dropped from an odd number)
    split_half : mean Spearman's rho between the maps of two disjoint halves, over `SPLITS` random
                 splits
    one_against_rest : mean rho between one observer's map and the map of all others, over observers

    Maps are compared like heatmaps, but only on every second pixel of every second row. They are
    smooth, so this changes the mean by 0.0001 and takes a fraction of the time. A value is NaN if
    every comparison has a constant map. Images with one observer are skipped. Raises StoredError.
    """
    readings = _readings(clickme.protocols, geometries)
    rows = []
    with progress_bar(total=len(clickme), desc="observers", unit="image", leave=False) as bar:
        for block in _blocks(clickme.observed()):
            together = torch.cat([maps for _, _, maps in block])
            counts = [len(maps) for _, _, maps in block]
            for (key, reading), whole in human_maps_by(together, readings):
                # Reading a map is linear except for rounding, so maps of halves are sums.
                read = whole.numpy()[:, _COMPARED][..., _COMPARED]
                of_each = np.split(read, np.cumsum(counts)[:-1])
                for (image_id, place, _), maps in zip(block, of_each, strict=True):
                    if clickme.is_scored(key, np.array([place]))[0]:
                        found = _agreements(maps, place, PROTOCOLS[key].settles)
                        rows.append((key, reading, image_id, *found))
            bar.update(len(block))
    return pd.DataFrame(rows, columns=COLUMNS)


def _blocks(observed: Iterable[tuple[str, int, Tensor]]) -> Iterator[list[tuple]]:
    """Groups of images with about eighty maps together, which are read at once."""
    block: list[tuple] = []
    for image in observed:
        block.append(image)
        if sum(len(maps) for _, _, maps in block) >= _MAPS:
            yield block
            block = []
    if block:
        yield block


def _agreements(maps: np.ndarray, place: int, settle: bool) -> tuple[int, int, float, float]:
    """Number of an image's observers, number in a half, and the two mean correlations.

    maps : one map per observer
    """
    count = len(maps)
    half = count // 2
    rng = np.random.default_rng([SEED, place])
    # The observers on each side of a comparison. All sides are one matrix product, because many
    # small sums in torch would cost far more than the ranks.
    first, second = np.zeros((2, SPLITS + count, count), np.float32)
    for split in range(SPLITS):
        order = rng.permutation(count)
        first[split, order[:half]] = second[split, order[half : 2 * half]] = 1
    first[SPLITS:] = np.eye(count)
    second[SPLITS:] = 1 - np.eye(count)
    sides = np.concatenate([first, second]) @ maps.reshape(count, -1)
    centred, norms = (part.numpy() for part in ranks_of_rows(sides, settle))
    centred, norms = np.split(centred, 2), np.split(norms, 2)
    scale = norms[0] * norms[1]  # 0 for a constant map
    product = np.einsum("cp,cp->c", *centred, dtype=np.float64)
    rho = product / np.where(scale > 0, scale, np.nan)
    return count, half, _mean(rho[:SPLITS]), _mean(rho[SPLITS:])


def _mean(rho: np.ndarray) -> float:
    known = rho[~np.isnan(rho)]
    return float(known.mean()) if len(known) else np.nan
