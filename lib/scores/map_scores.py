"""Agreement of heatmaps made elsewhere with human maps: per image, in the mean, in pairs.

Human maps are read, ranked and compared as for a network's maps. The command is
`lib.commands.score_maps`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch

from ..base.geometry import WHOLE, Preprocessing
from ..base.progress_bar import progress_bar
from ..maps.elsewhere import Maps, MapsError, Match, as_scored, not_finite
from ..people.clickme import ClickMe
from ..people.human_maps import human_maps
from ..people.protocols import PROTOCOLS, Protocol
from .agreements import (
    CONSTANT_HUMAN_MAP,
    CONSTANT_MODEL_MAP,
    NON_FINITE,
    VALID,
    agreements_of,
)
from .ceiling import Ceilings
from .map_blocks import MapBlock, map_blocks
from .results import (
    beside,
    controls_by_reading,
    judged,
    left_out_of,
    mean_score,
    paired_comparison,
)
from .spearman import rank_maps

NO_MAP = "no map"
UNREADABLE = "unreadable map"
COLUMNS = ["maps", "image_id", "protocol", "rho", "validity"]


@dataclass(frozen=True)
class Collection:
    """Maps of one model. match : which of them is of which image"""

    name: str
    maps: Maps
    match: Match


def validate(collection: Collection, image_ids: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Read the maps of these images.

    Returns {image: why its map cannot be read}, and the maps with values that are not finite.
    """
    unreadable: dict[str, str] = {}
    unordered: list[str] = []
    of = collection.match.of
    wanted = [image_id for image_id in image_ids if image_id in of]
    for image_id in progress_bar(
        wanted, desc=f"checking {collection.name}", unit="map", leave=False
    ):
        try:
            bad = not_finite(collection.maps.read(of[image_id]))
        except MapsError as error:
            unreadable[image_id] = str(error)
        else:
            if bad:
                unordered.append(f"{collection.maps.where(of[image_id])}: {bad}")
    return unreadable, unordered


def score_maps(
    collections: Sequence[Collection],
    clickme: ClickMe,
    geometry: Preprocessing = WHOLE,
    unreadable: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[pd.DataFrame, dict[str, dict[str, str]]]:
    """A row per collection, protocol and image: `COLUMNS`.

    rho      : Spearman's, over all 224 x 224 pixels; missing where `validity` says why
    validity : as of networks' maps, or NO_MAP, UNREADABLE
    geometry : of whose crop the corrected protocol compares the maps with
    unreadable : {collection: {image: why}}, maps not to be read again

    Also returns `unreadable` with what could not be read now. Human maps are read and ranked once
    for all collections; what cannot be read of them is in the reader's `left_out`.
    """
    known = {c.name: dict((unreadable or {}).get(c.name, {})) for c in collections}
    frames = []
    with progress_bar(total=len(clickme), desc="scoring", unit="image", leave=False) as bar:
        for block in map_blocks(clickme):
            frames += _scored(block, clickme, collections, geometry, known)
            bar.update(len(block.image_ids))
    if not frames:
        return pd.DataFrame(columns=COLUMNS), known
    table = pd.concat(frames, ignore_index=True)
    order = [c.name for c in collections]
    keys = [p.key for p in clickme.protocols]
    table = table.sort_values(
        ["maps", "protocol"], kind="stable", key=lambda c: c.map([*order, *keys].index)
    )
    return table.reset_index(drop=True)[COLUMNS], known


def _scored(
    block: MapBlock,
    clickme: ClickMe,
    collections: Sequence[Collection],
    geometry: Preprocessing,
    unreadable: dict[str, dict[str, str]],
) -> list[pd.DataFrame]:
    ranks = {
        protocol.key: rank_maps(human_maps(block.stored_maps, protocol, geometry), protocol.settles)
        for protocol in clickme.protocols
    }
    maps, absent = zip(
        *(_read(c, block.image_ids, unreadable[c.name]) for c in collections), strict=True
    )
    kind = torch.float64 if any(m.dtype == torch.float64 for m in maps) else torch.float32
    found = agreements_of(torch.stack([m.to(kind) for m in maps]), ranks)
    frames = []
    for number, collection in enumerate(collections):
        for protocol in clickme.protocols:
            validity = found.validity(number, protocol.key)
            validity = np.where(absent[number] == "", validity, absent[number])
            frame = pd.DataFrame(
                {"maps": collection.name, "image_id": block.image_ids, "protocol": protocol.key,
                 "rho": _where_valid(found.measured, validity, protocol, number),
                 "validity": validity}
            )  # fmt: skip
            frames.append(frame[clickme.is_scored(protocol.key, block.places)])
    return frames


def _where_valid(
    measured: Mapping[str, torch.Tensor], validity: np.ndarray, protocol: Protocol, number: int
) -> np.ndarray:
    return np.where(validity == VALID, measured[protocol.key][0, number].numpy(), np.nan)


def _read(
    collection: Collection, image_ids: Sequence[str], unreadable: dict[str, str]
) -> tuple[torch.Tensor, np.ndarray]:
    """(image, 224, 224), NaN where there is no map, and "" or why there is none."""
    found, absent = [], []
    for image_id in image_ids:
        name = collection.match.of.get(image_id)
        why = NO_MAP if name is None else UNREADABLE if image_id in unreadable else ""
        if not why:
            try:
                found.append(as_scored(collection.maps.read(name)))
            except MapsError as error:  # it has changed since it was checked
                unreadable[image_id] = str(error)
                why = UNREADABLE
        if why:
            found.append(torch.full((WHOLE.crop, WHOLE.crop), torch.nan))
        absent.append(why)
    kind = torch.float64 if any(m.dtype == torch.float64 for m in found) else torch.float32
    return torch.stack([m.to(kind) for m in found]), np.array(absent)


def summarise_maps(
    scores: pd.DataFrame,
    controls: pd.DataFrame,
    ceilings: Ceilings,
    geometry: Preprocessing = WHOLE,
) -> pd.DataFrame:
    """Score of each collection under each protocol: one row each.

    controls : `lib.scores.control_scores.controls_of` of the same images and geometry

    score, low, high, raw, ceiling : as `lib.scores.results.summarise` tells, and control,
                over_control, above_control, … as `beside_controls` does
    n, n_constant_map, n_constant_human, n_non_finite, n_unreadable, n_no_map : images scored,
                and why others were not
    """
    rows = []
    of_control = controls_by_reading(controls)
    for (name, protocol), chosen in scores.groupby(["maps", "protocol"], sort=False):
        valid = chosen[chosen.validity == VALID]
        reading = PROTOCOLS[protocol].reading_name(geometry)
        ceiling = ceilings.read(protocol, reading)
        rho = valid.set_index("image_id").rho
        rows.append(
            {
                "maps": name,
                "protocol": protocol,
                **mean_score(valid, ceiling),
                **beside(rho, of_control.get((protocol, reading), {}), ceiling),
                "n": len(valid),
                **left_out_of(chosen, n_constant_map=CONSTANT_MODEL_MAP,
                              n_constant_human=CONSTANT_HUMAN_MAP, n_non_finite=NON_FINITE,
                              n_unreadable=UNREADABLE, n_no_map=NO_MAP),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def compare_maps(
    scores: pd.DataFrame,
    ceilings: Ceilings,
    smallest: float,
    geometry: Preprocessing = WHOLE,
) -> pd.DataFrame:
    """Each collection minus each one before it, paired by image on those valid for both.

    smallest : the smallest difference of scores that matters

    difference, low, high : mean in units of the score, 95 % interval
    n_paired  : images in the comparison
    p, p_holm : of no difference; corrected over the pairs of the same protocol
    effect    : Cohen's d
    decision  : as `lib.scores.decisions` makes it
    """
    columns = ["protocol", "maps", "minus", "difference", "low", "high", "n_paired", "p",
               "effect", "p_holm", "decision"]  # fmt: skip
    rows = []
    valid = scores[scores.validity == VALID]
    for protocol in scores.protocol.unique():
        ceiling = ceilings.of(protocol, geometry)
        wide = valid[valid.protocol == protocol].pivot(
            index="image_id", columns="maps", values="rho"
        )
        compared, samples = [], []
        for first, second in combinations(scores.maps.unique(), 2):
            pair = wide.reindex(columns=[first, second]).dropna()
            gain = pair[second] - pair[first]
            compared.append(
                {"protocol": protocol, "maps": second, "minus": first}
                | paired_comparison(gain, ceiling)
            )
            samples.append(gain / ceiling.divisor)
        rows += judged(compared, samples, smallest)
    return pd.DataFrame(rows, columns=columns)
