"""Faithfulness of a study's heatmaps, or of heatmaps of the images in a folder.

Every measure uses the class that the network itself predicts. `images` are always resized and
cropped, in 0-1, before they are normalised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...base.progress_bar import progress_bar
from ...base.threads import each
from ...maps.forward import HeadPass, enlarge, head_pass, is_constant
from ...maps.methods import CamMethod, min_max
from ...networks.backbones import Backbone
from ...networks.models import StudyModel
from ...networks.preprocessing import resize_images
from ...people.clickme import ClickMe
from ...people.image_folders import FolderImages
from ...scores.units import VariantOnPart, VariantWork, joined
from ...study.networks import Networks
from ...study.study import Study
from .areas import curves
from .definitions import LET_THROUGH, SHARES
from .drop import (
    average_drop,
    in_order,
    increase_in_confidence,
    kept_share,
)
from .removal import NOISE_UNITS, road, road_noise

SEED = 20240803
_FORWARD = 16  # images at a time
_COLUMNS = ["method", "image_id", "measure", "value"]
COLUMNS = ["backbone", "dcls", *_COLUMNS]


def score_faithfulness(
    study: Study,
    backbones: Sequence[Backbone],
    methods: Sequence[CamMethod],
    count: int,
    with_curves: bool,
    noise_unit: str = NOISE_UNITS[0],
) -> pd.DataFrame:
    """Return every faithfulness measure for some models and methods on `count` images.

    noise_unit : unit of ROAD's noise, see `road_noise`
    The columns are `backbone, dcls, method, image_id, measure, value`, one row per image and
    measure; `FAITHFULNESS` explains the measures. Maps and probabilities belong to the predicted
    class. The value is NaN for a constant map. With curves there are also deletion, insertion and
    ROAD, which take about forty more forward passes per image and method.
    """
    chosen = study.changed(backbones=tuple(backbones), methods=tuple(methods))
    work = FaithfulnessWork(chosen, count=count, with_curves=with_curves, noise_unit=noise_unit)
    return joined(work)


class FaithfulnessWork(VariantWork):
    """Every measure of a study's models and methods, on some images of one part."""

    folder, bar, columns = "faithfulness", ("faithfulness", "image"), _COLUMNS
    code = tuple(
        f"analyses.faithfulness.{name}"
        for name in ("areas", "definitions", "drop", "imputing", "removal", "study")
    )

    def images(self) -> Iterator[ClickMe]:
        yield from self.study.clickme(limit=self.arguments["count"]).blocks(_FORWARD)

    def compute(self, of: VariantOnPart) -> pd.DataFrame:
        model, geometry = self._models.of(of.backbone, of.dcls), of.backbone.preprocessing
        found = [pd.DataFrame(columns=_COLUMNS)]
        for batch in of.some.batches(_FORWARD):
            resized = resize_images(batch.images, geometry)
            images = torch.from_numpy(resized).permute(0, 3, 1, 2).float() / 255
            found += measured(
                model, self.study.choices.methods, images, batch.places, batch.image_ids,
                self.arguments["with_curves"], self.arguments["noise_unit"],
            )  # fmt: skip
        return pd.concat(found[1:] or found, ignore_index=True)


def measured(
    model: StudyModel,
    methods: Sequence[CamMethod],
    images: Tensor,
    places: Sequence[int],
    image_ids: Sequence[str],
    with_curves: bool = False,
    noise_unit: str = NOISE_UNITS[0],
) -> Iterator[pd.DataFrame]:
    """Return `method, image_id, measure, value` for each method; maps explain the predicted class.

    images : (image, 3, side, side) in 0-1, with the side that the network takes
    places : numbers of the images, which are seeds of their random order of ties and noise
    noise_unit : unit of ROAD's noise, see `road_noise`
    The value is NaN for a constant map.
    """
    images = images.to(next(model.parameters()).device)
    x = model.normalised(images)
    passed = head_pass(model, x)
    lots, draws = _drawn(places, images)
    drawn = lots, road_noise(draws, model.backbone.preprocessing.std, noise_unit)
    for method in methods:
        found = _measured(model, method.maps(model, x, passed), images, passed, drawn, with_curves)
        yield pd.concat(
            [pd.DataFrame({"method": method.key, "image_id": image_ids, "measure": name,
                           "value": values.tolist()})
             for name, values in found.items()],
            ignore_index=True,
        )  # fmt: skip


def _measured(
    model: StudyModel,
    small: Tensor,
    images: Tensor,
    passed: HeadPass,
    drawn: tuple[Tensor, Tensor],
    with_curves: bool,
) -> dict[str, Tensor]:
    """{measure: (image,)} for maps; the other arguments are as in `measured`."""
    masks = enlarge(min_max(small), images.shape[-1])

    @torch.inference_mode()
    def probability(some: Tensor) -> Tensor:
        logits = torch.cat([model(model.normalised(part)) for part in some.split(_FORWARD)])
        return logits.float().softmax(dim=1).gather(1, passed.targets[:, None])[:, 0]

    lots, noise = drawn
    order = in_order(masks, lots)
    whole = passed.logits.float().softmax(dim=1).gather(1, passed.targets[:, None])[:, 0]
    found = {LET_THROUGH: 100 * masks.mean(dim=(1, 2))}
    for share in SHARES:
        masked = probability(images * kept_share(masks, order, share)[:, None])
        found[f"average_drop_{share:.0%}"] = average_drop(whole, masked)
        found[f"increase_{share:.0%}"] = increase_in_confidence(whole, masked)
    if with_curves:
        mean = torch.tensor(model.backbone.preprocessing.mean, device=images.device)[:, None, None]
        found |= curves(probability, images, order, mean)
        found |= road(probability, images, order, noise)
    # A map that is constant or not finite shows nothing; hiding the whole image would make it count
    # as unfaithful.
    nothing = is_constant(masks) | ~masks.isfinite().all(dim=(1, 2))
    return {name: values.masked_fill(nothing, torch.nan) for name, values in found.items()}


def _drawn(places: Sequence[int], images: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's random order of ties and random noise, the same for all methods and for all
    models of one size."""
    shape = images.shape[1:]
    lots, draws = [], []
    for place in places:
        rng = np.random.default_rng([SEED, place])
        lots.append(rng.permutation(shape[1] * shape[2]))
        draws.append(rng.standard_normal(shape))
    return torch.from_numpy(np.stack(lots)).to(images.device), torch.from_numpy(np.stack(draws)).to(
        images
    )


def score_folder(
    networks: Networks,
    backbone: Backbone,
    dcls: bool,
    methods: Sequence[CamMethod],
    paths: Sequence[Path],
    folder: Path,
    with_curves: bool = False,
    noise_unit: str = NOISE_UNITS[0],
) -> pd.DataFrame:
    """Return the table of `score_faithfulness` for one variant on image files.

    image_id : the image's path below `folder`
    Raises ImageFolderError for an image that cannot be read, WeightsError, MissingWeights.
    """
    model = networks.inference_model(backbone.key, dcls, methods)
    images = FolderImages(paths, backbone.preprocessing.crop)
    tables: list[pd.DataFrame] = []
    parts = torch.arange(len(paths)).split(_FORWARD)
    for part in progress_bar(parts, desc=model.variant, unit="batch", leave=False):
        places = part.tolist()
        some = torch.stack(each(images.centre, places))
        names = [paths[place].relative_to(folder).as_posix() for place in places]
        tables += measured(model, methods, some, places, names, with_curves, noise_unit)
    table = pd.concat(tables, ignore_index=True)
    return table.assign(backbone=backbone.key, dcls=dcls)[COLUMNS]
