"""Agreement of a network's maps with human maps, picture by picture."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from lib import cam
from lib.methods import CamMethod
from lib.models import StudyModel
from lib.prepared import Block, PreparedPart
from lib.protocols import PROTOCOLS
from lib.shortage import is_out_of_memory
from lib.spearman import Ranks, between_ranks, correlate, partial_correlation, rank_maps

VALID = "valid"
CONSTANT_MODEL_MAP = "constant model map"
CONSTANT_HUMAN_MAP = "constant human map"
NON_FINITE = "non-finite map"

_MEASURED = ["rho", "partial", "tied", "attainable"]
COLUMNS = ["protocol", "method", "image_id", "label", *_MEASURED, "validity", "top1", "top5"]


@dataclass(frozen=True)
class Agreement:
    """Of methods' maps with human maps, on the device: nothing here waits for it.

    measured : {protocol: (measure, method, image) float64, in the order of _MEASURED}
    usable   : {protocol: (image,) bool, the human map orders something}
    finite, constant : (method, image) bool, of the network's maps
    """

    measured: dict[str, Tensor]
    usable: dict[str, Tensor]
    finite: Tensor
    constant: Tensor

    def validity(self, method: int, protocol: str) -> np.ndarray:
        """VALID for each image, or why it has no score."""
        why = [~self.finite[method], ~self.usable[protocol], self.constant[method]]
        return np.select(
            [reason.cpu().numpy() for reason in why],
            [NON_FINITE, CONSTANT_HUMAN_MAP, CONSTANT_MODEL_MAP],
            VALID,
        )


def agreement(maps: Tensor, human: Mapping[str, Ranks]) -> Agreement:
    """Compare (method, image, height, width) maps with ranked human maps, {protocol: ranks}.

    Pixels are sorted once for all protocols, and for the centre, on which depends how much
    of the agreement is left once both maps' preference for it is taken away.
    """
    centre = centre_ranks(next(iter(human.values())).shape[1:], maps.device)
    settles = [PROTOCOLS[key].settles for key in human]
    compared = [*zip(human.values(), settles, strict=True)]
    found = correlate(maps, compared + [(centre, settle) for settle in settles])
    finite = found.finite
    measured = {}
    for number, (key, ranks) in enumerate(human.items()):
        finite = finite & ranks.norm.isfinite()
        rho, to_centre = found.rho[number], found.rho[len(human) + number]
        partial = partial_correlation(rho, to_centre, between_ranks(ranks, centre))
        tied, attainable = found.tied[number], found.attainable[number]
        measured[key] = torch.stack([rho, partial, tied, attainable])
    return Agreement(
        measured,
        {key: ranks.norm != 0 for key, ranks in human.items()},
        finite,
        found.constant,
    )


def centre_map(height: int, width: int) -> Tensor:
    """(height, width) float64, higher the nearer to the centre: orders as any round Gaussian."""
    rows, columns = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (height, width))
    return -(rows[:, None].square() + columns.square())


@cache
def centre_ranks(sides: tuple[int, int], device: torch.device) -> Ranks:
    """Of the map that is highest in the centre: any round Gaussian's."""
    return rank_maps(centre_map(*sides).to(device)[None])


@dataclass
class Scores:
    """What forwards leave behind, batch by batch; a table in the end.

    predicted : the maps' target is the predicted class
    """

    methods: Sequence[CamMethod]
    predicted: bool = False
    _blocks: list[tuple[Block, Tensor, Agreement]] = field(default_factory=list)

    def add(self, model: StudyModel, block: Block) -> None:
        """One forward, one gradient of the head, every method's maps, every protocol's score.

        The target is the picture's label, as published, or the predicted class.
        """
        target = None if self.predicted else block.labels
        x = model.prepare_pixels(block.pixels)
        passed = cam.head_pass(model, x, target)
        best = passed.logits.topk(min(5, passed.logits.shape[1]), dim=1).indices
        hits = best == block.labels.to(best.device, non_blocking=True)[:, None]
        maps = torch.stack([cam.enlarge(m.maps(model, x, passed)) for m in self.methods])
        self._blocks.append((block, hits, agreement(maps, block.human)))

    def table(self, is_scored: Callable[[str, np.ndarray], np.ndarray]) -> pd.DataFrame:
        """A row per method, protocol and image, whatever the batches were.

        is_scored : which of the pictures at some places a protocol scores
        `rho` is Spearman's correlation over all pixels; missing where `validity` says why.
        `partial` is the same with the distance from the centre held constant, `tied` the
        share of the map's pixels that are equal to another, `attainable` the largest rho
        that these ties allow.
        """
        if not self._blocks:
            return pd.DataFrame()
        blocks, hits, found = zip(*self._blocks, strict=True)
        together = _joined(found)
        places = np.concatenate([block.places for block in blocks])
        top = torch.cat(hits).cpu().numpy()
        images = {
            "image_id": [name for block in blocks for name in block.image_ids],
            "label": torch.cat([block.labels for block in blocks]).numpy(),
            "top1": top[:, 0],
            "top5": top.any(axis=1),
        }
        frames = []
        for number, method in enumerate(self.methods):
            for key, measured in together.measured.items():
                frame = pd.DataFrame(
                    {"protocol": key, "method": method.key}
                    | images
                    | dict(zip(_MEASURED, measured[:, number].cpu().numpy(), strict=True))
                    | {"validity": together.validity(number, key)}
                )
                frames.append(frame[is_scored(key, places)])
        return pd.concat(frames, ignore_index=True)[COLUMNS]


def _joined(found: Sequence[Agreement]) -> Agreement:
    """Of all images."""
    keys = found[0].usable
    return Agreement(
        {key: torch.cat([a.measured[key] for a in found], dim=2) for key in keys},
        {key: torch.cat([a.usable[key] for a in found]) for key in keys},
        torch.cat([a.finite for a in found], dim=1),
        torch.cat([a.constant for a in found], dim=1),
    )


def score_part(
    model: StudyModel,
    methods: Sequence[CamMethod],
    part: PreparedPart,
    batch: BatchSize,
    predicted: bool = False,
) -> pd.DataFrame:
    """Scores of one variant over a part's pictures, as `Scores.table` tells.

    predicted : maps show the evidence for the predicted class, not for the picture's label
    """
    scores = Scores(methods, predicted)
    slow = any(method.forwards for method in methods)
    with tqdm(total=len(part.some), desc=model.variant, leave=False, disable=not slow) as bar:

        def work(piece: Block) -> None:
            scores.add(model, piece)
            bar.update(len(piece))

        for block in part.blocks(model.backbone.preprocessing):
            batch.work_through(block, work)
    return scores.table(part.some.is_scored)


class BatchSize:
    """Pictures per forward: halved, for all that follows, where the memory does not suffice."""

    def __init__(self, now: int):
        self.now = now

    def work_through(self, block: Block, work: Callable[[Block], None]) -> None:
        """Do the work on pieces of the block; what did not fit is done again in smaller ones."""
        start = 0
        while start < len(block):
            piece = block[start : start + self.now]
            try:
                work(piece)
            except (RuntimeError, MemoryError) as error:
                if len(piece) == 1 or not is_out_of_memory(error):
                    raise
            else:
                start += len(piece)
                continue
            # Outside of `except`: the error holds the tensors that did not fit.
            self.now = len(piece) // 2
            tqdm.write(
                f"out of memory with {len(piece)} pictures a forward: going on with {self.now}"
            )
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
