"""Agreement of heatmaps made elsewhere with human maps: per image, on average, and in pairs.

Human maps are read, ranked and compared as for a model's heatmaps. The command is
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
    """The heatmaps of one model. match : assigns the maps to images"""

    name: str
    maps: Maps
    match: Match


def validate(collection: Collection, image_ids: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Read the maps of these images and find those that cannot be used.

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
    """Return the agreement of heatmaps with human maps, per image, and the unreadable heatmaps.

    The table has one row per collection, protocol and image: `COLUMNS`.

    rho      : Spearman's, over all 224 x 224 pixels; NaN for the reason in `validity`
    validity : as for models' heatmaps, or NO_MAP, UNREADABLE
    geometry : the preprocessing whose crop of the human map the corrected protocol uses
    unreadable : {collection: {image: why}}, maps that need not be read again

    The second result is `unreadable` with the maps that could not be read now. Human maps are read
    and ranked once for all collections; `left_out` of `clickme` lists those that cannot be read.
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
    """(image, 224, 224), NaN for a missing map; and for each image "" or why it has no map."""
    found, absent = [], []
    for image_id in image_ids:
        name = collection.match.of.get(image_id)
        why = NO_MAP if name is None else UNREADABLE if image_id in unreadable else ""
        if not why:
            try:
                found.append(as_scored(collection.maps.read(name)))
            except MapsError as error:  # the file has changed since it was checked
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
    """Return the score of each collection under each protocol, one row each.

    controls : `lib.scores.control_scores.controls_of` for the same images and geometry

    score, low, high, raw, ceiling : as in `lib.scores.results.summarise`; control, over_control,
                above_control, … as in `beside_controls`
    n, n_constant_map, n_constant_human, n_non_finite, n_unreadable, n_no_map : number of images
                scored, and of images not scored for each reason
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
    """Return the difference between each two collections, later minus earlier, paired by image.

    Only images that are valid for both are compared.

    smallest : the smallest difference of scores that matters
    difference, low, high : mean in units of the score, with its 95 % interval
    n_paired  : number of images in the comparison
    p, p_holm : p value of no difference; Holm-corrected over the pairs of the same protocol
    effect    : Cohen's d
    decision  : see `lib.scores.decisions`
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
