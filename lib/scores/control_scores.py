"""Scores of the controls: maps that no model made, scored exactly like heatmaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..base.geometry import DELIVERED_SIZE, Preprocessing
from ..base.progress_bar import progress_bar
from ..maps.forward import enlarge
from ..maps.methods import min_max
from ..people.clickme import ClickMe
from ..people.human_maps import human_maps_by
from ..people.protocols import Protocol
from ..people.stored import StoredError
from ..study.study import Study
from .agreements import agreements_of
from .controls import CONTROLS, Shown
from .map_blocks import MapBlock, map_blocks
from .spearman import rank_maps


def score_controls(study: Study) -> pd.DataFrame:
    """Return `controls_of` for a study's images and backbones.

    Raises StoredError, MissingInputs."""
    study.inputs.require()
    return controls_of(study.clickme(), [b.preprocessing for b in study.choices.backbones])


def controls_of(clickme: ClickMe, geometries: Sequence[Preprocessing]) -> pd.DataFrame:
    """Return the scores of the controls, one row per protocol, reading, control and image.

    The columns are `protocol, reading, control, image_id, rho, partial, validity`. Backbones whose
    preprocessing crops alike share a reading of the human maps (`Protocol.reading_name`). The
    human maps are read twice: each image's own map is subtracted from the mean human map. Raises
    StoredError.
    """
    readings = {
        (p.key, p.reading_name(geometry)): (p, geometry)
        for p in clickme.protocols
        for geometry in geometries
    }
    frames = []
    for block, reading, human, maps in control_maps(clickme, readings):
        protocol, _ = readings[reading]
        frame = _compared(maps, human, protocol, block.image_ids)
        frame = frame[np.tile(clickme.is_scored(protocol.key, block.places), len(maps))]
        frames.append(frame.assign(protocol=reading[0], reading=reading[1]))
    if not frames:
        raise StoredError("no image of the study can be read: check its images and human maps")
    table = pd.concat(frames, ignore_index=True)
    names = ["protocol", "reading", "control", "image_id"]
    return table[[*names, *table.columns.difference(names, sort=False)]]


def control_maps(
    clickme: ClickMe, readings: Mapping[tuple[str, str], tuple[Protocol, Preprocessing]]
) -> Iterator[tuple[MapBlock, tuple[str, str], Tensor, dict[str, Tensor]]]:
    """Yield the human maps and {control: its maps} for each block of images and each reading.

    readings : {(protocol, reading): how human maps are read}
    """
    means = {reading: _Mean() for reading in readings}
    with progress_bar(total=2 * len(clickme), desc="controls", unit="image") as bar:
        for block in map_blocks(clickme):
            for reading, human in human_maps_by(block.stored_maps, readings):
                protocol, _ = readings[reading]
                means[reading].add(human[clickme.is_scored(protocol.key, block.places)])
            bar.update(len(block.image_ids))
        for block in map_blocks(clickme):
            own = human_maps_by(block.stored_maps, readings)
            others = human_maps_by(block.other_maps, readings)
            for (reading, human), (_, other) in zip(own, others, strict=True):
                shown = Shown(human, other, means[reading].without(human), block.places)
                maps = {
                    control.key: _full_size(control.maps(shown)) for control in CONTROLS.values()
                }
                yield block, reading, human, maps
            bar.update(len(block.image_ids))


class _Mean:
    """The mean human map. Each map is scaled from 0 to 1 first, so that all images count alike."""

    def __init__(self) -> None:
        self._sum = torch.zeros(DELIVERED_SIZE, DELIVERED_SIZE, dtype=torch.float64)
        self._count = 0

    def add(self, maps: Tensor) -> None:
        self._sum += _scaled(maps).sum(dim=0, dtype=torch.float64)
        self._count += len(maps)

    def without(self, maps: Tensor) -> Tensor:
        """For each of these maps, the mean of all others; a constant map if there are no others."""
        others = self._sum - _scaled(maps).double()
        return others / (self._count - 1) if self._count > 1 else torch.zeros_like(others)


def _scaled(maps: Tensor) -> Tensor:
    return min_max(torch.nan_to_num(maps))  # constant maps become 0


def _full_size(maps: Tensor | np.ndarray) -> Tensor:
    maps = torch.as_tensor(maps)
    return maps if maps.shape[-1] == DELIVERED_SIZE else enlarge(maps)


def _compared(
    maps: dict[str, Tensor], human: Tensor, protocol: Protocol, image_ids: list[str]
) -> pd.DataFrame:
    ranks = {protocol.key: rank_maps(human, protocol.settles)}
    frames = []
    for control, of_control in maps.items():
        found = agreements_of(of_control[None], ranks)
        rho, partial, *_ = found.measured[protocol.key][:, 0]
        frames.append(
            pd.DataFrame({"control": control, "image_id": image_ids, "rho": rho.numpy(),
                          "partial": partial.numpy(),
                          "validity": found.validity(0, protocol.key)})
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)
