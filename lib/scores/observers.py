"""How well an image's observers agree: split halves, and each against the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..base.fingerprint import code_of, fingerprint
from ..base.geometry import Preprocessing
from ..base.progress_bar import progress_bar
from ..people.clickme import ClickMe
from ..people.human_maps import blurred_maps, part_seen
from ..people.protocols import PROTOCOLS, Protocol
from ..study.choices import Choices
from ..study.study import Study
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
from .kept import DETERMINING_CODE, read_kept, write_kept
from .spearman import ranks_of_rows

SPLITS = 4  # of an image's observers into halves, drawn by a fixed seed
SEED = 20240803
_MAPS = 80
# Rows, and columns, that are compared: as many on either side of the centre, to 112 of 224.
_COMPARED = np.r_[0:111:2, 113:224:2]
COLUMNS = [
    "protocol", "reading", "image_id", "observers", "half", "split_half", "one_against_rest",
]  # fmt: skip


def study_ceilings(study: Study) -> Ceilings:
    """The ceilings of a study's human maps: given, published, or estimated from its observers.

    What is estimated is kept, and made once. Raises StoredError.
    """
    return ceilings_of(study.choices, people_of(study))


def _known(choices: Choices) -> Ceiling | None:
    """The ceiling where it needs no estimate: given, or ClickMe's own."""
    if choices.ceiling:
        return Ceiling(choices.ceiling, GIVEN)
    if choices.profile.published_ceiling and not choices.images:
        return Ceiling(HUMAN_CEILING, PUBLISHED, most=SPEARMAN_BROWN)
    return None


def people_of(study: Study) -> pd.DataFrame:
    """`score_observers` for a study's images and backbones, kept part by part; empty where the
    ceiling is known without."""
    if _known(study.choices) is not None:
        return pd.DataFrame(columns=COLUMNS)
    clickme = study.clickme()
    geometries = [b.preprocessing for b in study.choices.backbones]
    frames = []
    for some in clickme.per_part():
        facts = {
            "observers": some.part.observers_digest(),
            "part": some.part.digest(),
            "images": [chosen.index for chosen in some.chosen],
            "readings": sorted(_readings(some.protocols, geometries)),
            "scored": {p.key: some.scored(p.key) for p in some.protocols},
            "code": code_of(*DETERMINING_CODE, "scores.observers"),
        }
        path = study.places.scores / f"people-{some.part.name}-{fingerprint(facts)}.parquet"
        found = read_kept(path, columns=COLUMNS)
        if found is None:
            found = score_observers(some, geometries)
            write_kept(path, found, {})
        frames.append(found)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def ceilings_of(choices: Choices, people: pd.DataFrame) -> Ceilings:
    """As a study's choices say, or else estimated. people : `score_observers`' table"""
    if (known := _known(choices)) is not None:
        return Ceilings(known)
    groups = people.groupby(["protocol", "reading"], sort=False)
    found = {key: estimated_ceiling(rows) for key, rows in groups}
    # Models of a protocol are compared with one another: all are divided, or none is.
    without = {protocol for (protocol, _), ceiling in found.items() if not ceiling.is_known}
    return Ceilings(
        by={key: withheld(c) if key[0] in without else c
            for key, c in found.items()}
    )  # fmt: skip


def _readings(
    protocols: Iterable[Protocol], geometries: Sequence[Preprocessing]
) -> dict[tuple[str, str], Preprocessing]:
    return {(p.key, p.reading_name(g)): g for p in protocols for g in geometries}


def score_observers(clickme: ClickMe, geometries: Sequence[Preprocessing]) -> pd.DataFrame:
    """How well each image's observers agree, under every protocol and reading: `COLUMNS`.

    observers, half : how many there are, and how many a half has, of an odd number one less
    split_half : mean Spearman's rho of the maps of two halves that share nobody, over `SPLITS`
                 draws
    one_against_rest : mean over observers of the rho of one's map with that of all others

    Maps are compared as a network's are, but on every second pixel of every second row: they are
    smooth, so that it changes the mean by 0.0001 and takes a small part of the time. Missing where
    every comparison has a constant map; images with one observer are left out. Raises
    StoredError.
    """
    readings = _readings(clickme.protocols, geometries)
    rows = []
    with progress_bar(total=len(clickme), desc="observers", unit="image", leave=False) as bar:
        for block in _blocks(clickme.observed()):
            together = torch.cat([maps for _, _, maps in block])
            counts = [len(maps) for _, _, maps in block]
            whole = {p.key: blurred_maps(together, p) for p in clickme.protocols}
            for (key, reading), geometry in readings.items():
                protocol = PROTOCOLS[key]
                # Reading a map is linear but for rounding: a half's is the sum of its observers'.
                read = part_seen(whole[key], protocol, geometry).numpy()
                read = read[:, _COMPARED][..., _COMPARED]
                of_each = np.split(read, np.cumsum(counts)[:-1])
                for (image_id, place, _), maps in zip(block, of_each, strict=True):
                    if clickme.is_scored(key, np.array([place]))[0]:
                        found = _agreements(maps, place, protocol.settles)
                        rows.append((key, reading, image_id, *found))
            bar.update(len(block))
    return pd.DataFrame(rows, columns=COLUMNS)


def _blocks(observed: Iterable[tuple[str, int, Tensor]]) -> Iterator[list[tuple]]:
    """Images of some eighty maps together, which are read in one go."""
    block: list[tuple] = []
    for image in observed:
        block.append(image)
        if sum(len(maps) for _, _, maps in block) >= _MAPS:
            yield block
            block = []
    if block:
        yield block


def _agreements(maps: np.ndarray, place: int, settle: bool) -> tuple[int, int, float, float]:
    """An image's observers, a half of them, and the two means. maps : one of each observer"""
    count = len(maps)
    half = count // 2
    rng = np.random.default_rng([SEED, place])
    # Which observers each side of a comparison has: all sides are one product, as torch's many
    # small sums would cost far more than the ranks.
    first, second = np.zeros((2, SPLITS + count, count), np.float32)
    for split in range(SPLITS):
        order = rng.permutation(count)
        first[split, order[:half]] = second[split, order[half : 2 * half]] = 1
    first[SPLITS:] = np.eye(count)
    second[SPLITS:] = 1 - np.eye(count)
    sides = np.concatenate([first, second]) @ maps.reshape(count, -1)
    centred, norms = (part.numpy() for part in ranks_of_rows(sides, settle))
    centred, norms = np.split(centred, 2), np.split(norms, 2)
    scale = norms[0] * norms[1]  # 0 of a constant map
    product = np.einsum("cp,cp->c", *centred, dtype=np.float64)
    rho = product / np.where(scale > 0, scale, np.nan)
    return count, half, _mean(rho[:SPLITS]), _mean(rho[SPLITS:])


def _mean(rho: np.ndarray) -> float:
    known = rho[~np.isnan(rho)]
    return float(known.mean()) if len(known) else np.nan
