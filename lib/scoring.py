"""Agreement of a network's maps with human maps, picture by picture."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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
from lib.spearman import Ranks, correlate

VALID = "valid"
CONSTANT_MODEL_MAP = "constant model map"
CONSTANT_HUMAN_MAP = "constant human map"
NON_FINITE = "non-finite map"

COLUMNS = ["protocol", "method", "image_id", "label", "rho", "validity", "top1", "top5"]


@dataclass(frozen=True)
class Agreement:
    """Of methods' maps with human maps, on the device: nothing here waits for it.

    rho    : {protocol: (method, image) float64}
    usable : {protocol: (image,) bool, the human map orders something}
    finite, constant : (method, image) bool, of the network's maps
    """

    rho: dict[str, Tensor]
    usable: dict[str, Tensor]
    finite: Tensor
    constant: Tensor


def agreement(maps: Tensor, human: Mapping[str, Ranks]) -> Agreement:
    """Compare (method, image, height, width) maps with ranked human maps, {protocol: ranks}.

    Pixels are sorted once for all protocols.
    """
    found = correlate(maps, [(ranks, PROTOCOLS[key].settles) for key, ranks in human.items()])
    finite = found.finite
    for ranks in human.values():
        finite = finite & ranks.norm.isfinite()
    return Agreement(
        dict(zip(human, found.rho, strict=True)),
        {key: ranks.norm != 0 for key, ranks in human.items()},
        finite,
        found.constant,
    )


@dataclass
class Scores:
    """What forwards leave behind, batch by batch; a table in the end."""

    methods: Sequence[CamMethod]
    _blocks: list[tuple[Block, Tensor, Agreement]] = field(default_factory=list)

    def add(self, model: StudyModel, block: Block) -> None:
        """One forward, one gradient of the head, every method's maps, every protocol's score.

        The target is the picture's label, as published.
        """
        passed = cam.head_pass(model, model.prepare_pixels(block.pixels), block.labels)
        best = passed.logits.topk(min(5, passed.logits.shape[1]), dim=1).indices
        hits = best == passed.targets[:, None]
        small = torch.stack([m.small_map(passed.features, passed.gradient) for m in self.methods])
        maps = cam.enlarge(small.flatten(0, 1)).unflatten(0, small.shape[:2])
        self._blocks.append((block, hits, agreement(maps, block.human)))

    def table(self, is_scored: Callable[[str, np.ndarray], np.ndarray]) -> pd.DataFrame:
        """A row per method, protocol and image, whatever the batches were.

        is_scored : which of the pictures at some places a protocol scores
        `rho` is Spearman's correlation over all pixels; missing where `validity` says why.
        """
        if not self._blocks:
            return pd.DataFrame()
        blocks, hits, found = zip(*self._blocks, strict=True)
        places = np.concatenate([block.places for block in blocks])
        top = torch.cat(hits).cpu().numpy()
        images = {
            "image_id": [name for block in blocks for name in block.image_ids],
            "label": torch.cat([block.labels for block in blocks]).numpy(),
            "top1": top[:, 0],
            "top5": top.any(axis=1),
        }
        finite, constant = (
            torch.cat([getattr(a, name) for a in found], dim=1).cpu().numpy()
            for name in ("finite", "constant")
        )
        rho, usable = (
            {
                key: torch.cat([getattr(a, name)[key] for a in found], dim=-1).cpu().numpy()
                for key in found[0].rho
            }
            for name in ("rho", "usable")
        )
        frames = []
        for number, method in enumerate(self.methods):
            for key in rho:
                validity = np.select(
                    [~finite[number], ~usable[key], constant[number]],
                    [NON_FINITE, CONSTANT_HUMAN_MAP, CONSTANT_MODEL_MAP],
                    VALID,
                )
                names = {"protocol": key, "method": method.key}
                frame = pd.DataFrame(
                    names | images | {"rho": rho[key][number], "validity": validity}
                )
                frames.append(frame[is_scored(key, places)])
        return pd.concat(frames, ignore_index=True)[COLUMNS]


def score_part(
    model: StudyModel, methods: Sequence[CamMethod], part: PreparedPart, batch: BatchSize
) -> pd.DataFrame:
    """Scores of one variant over a part's pictures, as `Scores.table` tells."""
    scores = Scores(methods)
    for block in part.blocks(model.backbone.preprocessing):
        batch.work_through(block, lambda piece: scores.add(model, piece))
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


def is_out_of_memory(error: BaseException) -> bool:
    """The device, or the machine, had too little memory for what was asked."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
