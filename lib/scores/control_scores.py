"""Scores of the controls: maps that no model made, scored exactly like heatmaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..base.fingerprint import code_of
from ..base.geometry import DELIVERED_SIZE, Preprocessing
from ..base.progress_bar import progress_bar
from ..maps.forward import enlarge
from ..maps.methods import min_max
from ..people.clickme import ClickMe
from ..people.human_maps import human_maps_by
from ..people.protocols import Protocol
from ..people.stored import StoredError
from ..study.study import Study
from ..work.doing import tables
from ..work.units import Work
from .agreements import agreements_of
from .controls import CONTROLS, Shown
from .kept import DETERMINING_CODE, facts_of_images
from .map_blocks import MapBlock, map_blocks
from .spearman import rank_maps

COLUMNS = ["protocol", "reading", "control", "image_id", "rho", "partial", "validity"]
_CODE = ("scores.control_scores", "scores.controls", "scores.map_blocks")


Readings = Mapping[tuple[str, str], tuple[Protocol, Preprocessing]]


def score_controls(study: Study) -> pd.DataFrame:
    """Return the scores of the controls, one row per protocol, reading, control and image.

    The columns are `protocol, reading, control, image_id, rho, partial, validity`. Backbones whose
    preprocessing crops alike share a reading of the human maps (`Protocol.reading_name`). The
    human maps are read twice: each image's own map is subtracted from the mean human map. Parts
    are scored one by one, and cached. Raises StoredError, MissingInputs.
    """
    study.inputs.require()
    work = ControlWork(study)
    for _ in tables(work.means):  # by all processes, before each part's controls need them
        pass
    return _together(table for _, table in tables(work))


def controls_of(clickme: ClickMe, geometries: Sequence[Preprocessing]) -> pd.DataFrame:
    """Return the table of `score_controls` for any images, read by these preprocessings."""
    readings = _readings(clickme, geometries)
    means = mean_maps(clickme, readings)
    return _together([_scored(clickme, readings, means)])


def _readings(clickme: ClickMe, geometries: Sequence[Preprocessing]) -> Readings:
    """{(protocol, reading): how human maps are read}"""
    return {
        (p.key, p.reading_name(geometry)): (p, geometry)
        for p in clickme.protocols
        for geometry in geometries
    }


def _together(found: Iterable[pd.DataFrame]) -> pd.DataFrame:
    frames = [frame for frame in found if len(frame)]
    if not frames:
        raise StoredError("no image of the study can be read: check its images and human maps")
    return pd.concat(frames, ignore_index=True)


class _OfParts(Work):
    """What is computed of the human maps of one part."""

    def __init__(self, study: Study):
        super().__init__(study)
        self._clickme = study.clickme()
        geometries = [backbone.preprocessing for backbone in study.choices.backbones]
        self._read = _readings(self._clickme, geometries)

    def pieces(self) -> Iterator[tuple[str, str, tuple[int, ClickMe], int]]:
        for number, some in enumerate(self._clickme.per_part()):
            yield f"{self.folder}-{some.part.name}", "", (number, some), 1

    def facts(self, of: tuple[int, ClickMe]) -> dict:
        number, some = of
        return {
            "number": number,
            "readings": sorted(self._read),
            "scored": {p.key: some.scored(p.key) for p in some.protocols},
            "code": code_of(*DETERMINING_CODE, *_CODE),
            **facts_of_images(some),
        }

    def skipped(self, of: tuple[int, ClickMe]) -> dict[str, str]:
        return of[1].left_out


class MeanWork(_OfParts):
    """The sum of a part's human maps, per protocol and reading."""

    folder, bar = "means", ("mean human maps", "part")
    columns = ("protocol", "reading", "count", "sum")

    def compute(self, of: tuple[int, ClickMe]) -> pd.DataFrame:
        means = mean_maps(of[1], self._read)
        rows = [
            (*reading, mean.count, mean.sum.flatten().numpy()) for reading, mean in means.items()
        ]
        return pd.DataFrame(rows, columns=self.columns)

    def together(self) -> dict[tuple[str, str], MeanMap]:
        """Return the mean human map of all parts, per protocol and reading."""
        means = {reading: MeanMap() for reading in self._read}
        for _, table in tables(self):
            for row in table.itertuples():
                means[row.protocol, row.reading].add_sum(torch.tensor(row.sum), row.count)
        return means


class ControlWork(_OfParts):
    """The scores of the controls on a part's images."""

    folder, bar, columns = "controls", ("controls", "part"), COLUMNS

    def __init__(self, study: Study):
        super().__init__(study)
        self.means = MeanWork(study)
        self._names = [unit.path.name for unit in self.means.units()]

    def facts(self, of: tuple[int, ClickMe]) -> dict:
        controls = {control.key: control.maps for control in CONTROLS.values()}
        return super().facts(of) | {"means": self._names, "controls": controls}

    @cached_property
    def _means(self) -> dict[tuple[str, str], MeanMap]:
        return self.means.together()

    def compute(self, of: tuple[int, ClickMe]) -> pd.DataFrame:
        number, some = of
        return _scored(some, self._read, self._means, number)


def _scored(
    clickme: ClickMe, readings: Readings, means: dict[tuple[str, str], MeanMap], first: int = 0
) -> pd.DataFrame:
    frames = [pd.DataFrame(columns=COLUMNS)]
    for block, reading, human, maps in control_maps(clickme, readings, means, first):
        protocol, _ = readings[reading]
        frame = _compared(maps, human, protocol, block.image_ids)
        frame = frame[np.tile(clickme.is_scored(protocol.key, block.places), len(maps))]
        frames.append(frame.assign(protocol=reading[0], reading=reading[1])[COLUMNS])
    return pd.concat(frames[1:] or frames, ignore_index=True)


def control_maps(
    clickme: ClickMe,
    readings: Readings,
    means: dict[tuple[str, str], MeanMap],
    first: int = 0,
) -> Iterator[tuple[MapBlock, tuple[str, str], Tensor, dict[str, Tensor]]]:
    """Yield the human maps and {control: its maps} for each block of images and each reading.

    readings : {(protocol, reading): how human maps are read}
    means    : {(protocol, reading): the mean human map of all images}
    first    : the number of the first part among those of the study
    """
    with progress_bar(total=len(clickme), desc="controls", unit="image", leave=False) as bar:
        for block in map_blocks(clickme, first):
            own = human_maps_by(block.stored_maps, readings)
            others = human_maps_by(block.other_maps, readings)
            for (reading, human), (_, other) in zip(own, others, strict=True):
                shown = Shown(human, other, means[reading].without(human), block.places)
                maps = {
                    control.key: _full_size(control.maps(shown)) for control in CONTROLS.values()
                }
                yield block, reading, human, maps
            bar.update(len(block.image_ids))


def mean_maps(clickme: ClickMe, readings: Readings) -> dict[tuple[str, str], MeanMap]:
    """Return the mean human map of the scored images, per protocol and reading."""
    means = {reading: MeanMap() for reading in readings}
    with progress_bar(total=len(clickme), desc="mean maps", unit="image", leave=False) as bar:
        for block in map_blocks(clickme):
            for reading, human in human_maps_by(block.stored_maps, readings):
                protocol, _ = readings[reading]
                means[reading].add(human[clickme.is_scored(protocol.key, block.places)])
            bar.update(len(block.image_ids))
    return means


class MeanMap:
    """The mean human map. Each map is scaled from 0 to 1 first, so that all images count alike.

    sum   : (224, 224) float64, the sum of the scaled maps
    count : their number
    """

    def __init__(self) -> None:
        self.sum = torch.zeros(DELIVERED_SIZE, DELIVERED_SIZE, dtype=torch.float64)
        self.count = 0

    def add(self, maps: Tensor) -> None:
        """Add (image, 224, 224) human maps."""
        self.add_sum(_scaled(maps).sum(dim=0, dtype=torch.float64), len(maps))

    def add_sum(self, of_maps: Tensor, count: int) -> None:
        """Add the sum of so many scaled maps."""
        self.sum += of_maps.view_as(self.sum)
        self.count += count

    def without(self, maps: Tensor) -> Tensor:
        """For each of these maps, the mean of all others; a constant map if there are no others."""
        others = self.sum - _scaled(maps).double()
        return others / (self.count - 1) if self.count > 1 else torch.zeros_like(others)


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
