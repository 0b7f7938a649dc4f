"""Agreement of a model's heatmaps with human maps, image by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..base.progress_bar import progress_bar
from ..maps.forward import enlarge, head_pass
from ..maps.methods import CamMethod
from ..networks.batch_size import BatchSize
from ..networks.models import StudyModel
from ..people.stored.part import NO_LABEL
from .agreements import MEASURED, Agreement, agreements_of
from .prepared import Block, PreparedPart

COLUMNS = ["protocol", "method", "image_id", "label", *MEASURED, "validity", "top1", "top5"]


@dataclass
class Scores:
    """Collects the results of forward passes, batch by batch, and makes a table of them.

    predicted : whether maps explain the predicted class
    """

    methods: Sequence[CamMethod]
    predicted: bool = False
    _blocks: list[tuple[Block, Tensor, Agreement]] = field(default_factory=list)

    def add(self, model: StudyModel, block: Block) -> None:
        """Score a block: one forward pass, one gradient of the head, all methods and protocols.

        The target is the image's label, as published, or the predicted class.
        """
        target = None if self.predicted else block.labels
        x = model.prepare_pixels(block.pixels)
        passed = head_pass(model, x, target)
        best = passed.logits.topk(min(5, passed.logits.shape[1]), dim=1).indices
        hits = best == block.labels.to(best.device, non_blocking=True)[:, None]
        maps = torch.stack([enlarge(m.maps(model, x, passed)) for m in self.methods])
        self._blocks.append((block, hits, agreements_of(maps, block.human)))

    def table(self, is_scored: Callable[[str, np.ndarray], np.ndarray]) -> pd.DataFrame:
        """Return one row per method, protocol and image, independent of the batches.

        is_scored : (protocol, places) -> which of the images at these places it scores

        `rho` is Spearman's correlation over all pixels, NaN for the reason in `validity`.
        `partial` is `rho` with the distance from the centre held constant, `tied` the share of
        the map's pixels that equal another one, and `attainable` the largest rho that these ties
        allow. `top1` and `top5` are missing for an image without a class.
        """
        if not self._blocks:
            return pd.DataFrame()
        blocks, hits, found = zip(*self._blocks, strict=True)
        together = _joined(found)
        places = np.concatenate([block.places for block in blocks])
        top = torch.cat(hits).cpu().numpy()
        labels = torch.cat([block.labels for block in blocks]).numpy()
        known = labels != NO_LABEL
        top1, top5 = top[:, 0], top.any(axis=1)
        if not known.all():  # an image without a class cannot be classified correctly or wrongly
            top1, top5 = (np.where(known, right, np.nan) for right in (top1, top5))
        images = {
            "image_id": [name for block in blocks for name in block.image_ids],
            "label": labels,
            "top1": top1,
            "top5": top5,
        }
        frames = []
        for number, method in enumerate(self.methods):
            for key, measured in together.measured.items():
                frame = pd.DataFrame(
                    {"protocol": key, "method": method.key}
                    | images
                    | dict(zip(MEASURED, measured[:, number].cpu().numpy(), strict=True))
                    | {"validity": together.validity(number, key)}
                )
                frames.append(frame[is_scored(key, places)])
        return pd.concat(frames, ignore_index=True)[COLUMNS]


def _joined(found: Sequence[Agreement]) -> Agreement:
    """The agreement of all images."""
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
    """Return the scores of one variant on a part's images, as in `Scores.table`.

    predicted : whether maps show the evidence for the predicted class, not for the image's label
    """
    scores = Scores(methods, predicted)
    slow = any(method.forwards for method in methods)
    with progress_bar(
        total=len(part.some), desc=model.variant, leave=False, disable=not slow
    ) as bar:

        def work(piece: Block) -> None:
            scores.add(model, piece)
            bar.update(len(piece))

        for block in part.blocks(model.backbone.preprocessing):
            batch.work_through(block, work)
    return scores.table(part.some.is_scored)
