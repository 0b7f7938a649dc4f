"""Is a map faithful to its network? What hiding, showing and removing its pixels does.

Every measure asks for the class that the network itself predicts. `picture` is always the
resized and cropped one in 0-1, before it is normalised.

Source: Chattopadhyay et al., WACV 2018 (average drop, increase in confidence), on the shares
of pixels of Gkartzonika et al., "Learning visual explanations for DCNN-based image classifiers
using an attention mechanism", ECCV workshops 2022; Petsiuk et al., "RISE", BMVC 2018
(deletion and insertion); Rong et al., "A consistent and efficient evaluation strategy for
attribution methods", ICML 2022 (ROAD).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from lib.base.threads import each
from lib.maps.forward import HeadPass, enlarge, head_pass, is_constant
from lib.maps.methods import CamMethod, min_max
from lib.networks.backbones import Backbone
from lib.networks.models import StudyModel
from lib.networks.preprocessing import resize_pictures
from lib.people.picture_folders import FolderPictures
from lib.study.networks import Networks
from lib.study.study import Study

SHARES = (1.0, 0.5, 0.15)
# Mean of the map, per cent: no merit, but who hides less of a picture drops less.
LET_THROUGH = "let_through"
STEPS = 8  # of the deletion and insertion curves
ROAD_SHARES = (0.2, 0.5, 0.8)
SEED = 20240803
_ROAD_NOISE = 0.01
_MOST_STEPS = 2000  # of conjugate gradients; some hundred are enough
_FORWARD = 16  # pictures at a time
COLUMNS = ["backbone", "dcls", "method", "image_id", "measure", "value"]


def ends_of(measure: str) -> tuple[float, float]:
    """The least and the largest value that a measure can have."""
    per_cent = measure.startswith(("average_drop", "increase", LET_THROUGH))
    return (0, 100) if per_cent else (0, 1)


# --- average drop, increase in confidence ------------------------------------------------------


def in_order(masks: Tensor, lots: Tensor) -> Tensor:
    """(image, pixel) the pixels of (image, side, side) masks, the most relevant first.

    lots : (image, pixel) a permutation each, by which tied pixels are ordered: a map's
           plateaus would else be taken from the top of the picture down
    """
    drawn = masks.flatten(1).gather(1, lots)
    return lots.gather(1, drawn.argsort(dim=1, descending=True, stable=True))


def kept_share(masks: Tensor, order: Tensor, share: float) -> Tensor:
    """Masks with the first share of pixels, in `order`, as they are; the rest 0."""
    flat = masks.flatten(1)
    places = order[:, : max(1, round(share * flat.shape[1]))]
    return torch.zeros_like(flat).scatter_(1, places, flat.gather(1, places)).view_as(masks)


def average_drop(whole: Tensor, masked: Tensor) -> Tensor:
    """(image,) per cent of the probability that is lost by masking; lower is more faithful."""
    return 100 * (whole - masked).clamp(min=0) / whole


def increase_in_confidence(whole: Tensor, masked: Tensor) -> Tensor:
    """(image,) 100 where masking makes the network surer, else 0; higher is more faithful."""
    return 100.0 * (masked > whole)


# --- deletion and insertion --------------------------------------------------------------------


def _blurred(pictures: Tensor) -> Tensor:
    """What insertion begins with: an 11 x 11 Gaussian, sigma 5, as published."""
    at = torch.arange(-5, 6, dtype=torch.float32, device=pictures.device)
    line = torch.exp(-(at**2) / 50)
    kernel = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 11, 11)
    return F.conv2d(F.pad(pictures, (5, 5, 5, 5), mode="reflect"), kernel, groups=3)


def _replaced(base: Tensor, by: Tensor, order: Tensor, share: float) -> Tensor:
    """`base` with the first share of pixels, in each image's order, taken from `by`."""
    count = round(share * order.shape[1])
    chosen = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :count], True)
    return torch.where(chosen.view(len(base), 1, *base.shape[2:]), by, base)


def curves(
    probability: Callable[[Tensor], Tensor], pictures: Tensor, order: Tensor, mean: Tensor
) -> dict[str, Tensor]:
    """Areas under the deletion and the insertion curve, (image,) each, 0-1.

    probability : pictures -> (image,) of the class that is asked for
    order       : (image, pixel) as `in_order` tells it
    mean        : (3, 1, 1), what deleted pixels become
    Deletion is lower, insertion higher, where the map is more faithful.
    """
    ends = {
        "deletion": (pictures, mean.expand_as(pictures)),
        "insertion": (_blurred(pictures), pictures),
    }
    areas = {}
    for name, (base, by) in ends.items():
        points = [
            probability(_replaced(base, by, order, step / STEPS)) for step in range(STEPS + 1)
        ]
        areas[name] = torch.trapezoid(torch.stack(points), dx=1 / STEPS, dim=0)
    return areas


# --- ROAD ---------------------------------------------------------------------------------------

_NEIGHBOURS = torch.tensor([[1, 2, 1], [2, 0, 2], [1, 2, 1]], dtype=torch.float32) / 12


def imputed(pictures: Tensor, removed: Tensor, noise: Tensor, tolerance: float = 1e-4) -> Tensor:
    """Pictures whose removed pixels are weighted means of their eight neighbours, plus noise.

    pictures : (image, 3, side, side); removed : (image, side, side) bool
    noise    : as pictures, added to removed pixels
    The system of the published imputer, solved for all pictures at once by conjugate
    gradients until no equation is off by more than `tolerance`.
    """
    kernel = _NEIGHBOURS.to(pictures.device).expand(3, 1, 3, 3)

    def around(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel, padding=1, groups=3)

    gone = removed[:, None].to(pictures.dtype)
    there = around(torch.ones_like(pictures))  # less than 1 at the border

    def system(x: Tensor) -> Tensor:
        return (there * x - around(x)) * gone

    known = pictures * (1 - gone)
    x = _guess(pictures, 1 - gone) * gone
    residual = around(known) * gone - system(x)
    step = residual.clone()
    square = _dot(residual, residual)
    for _ in range(_MOST_STEPS):
        if residual.abs().amax() <= tolerance:
            break
        image = system(step)
        size = _quotient(square, _dot(step, image))
        x, residual = x + size * step, residual - size * image
        new = _dot(residual, residual)
        step = residual + _quotient(new, square) * step
        square = new
    return known + gone * (x + noise)


def _guess(pictures: Tensor, there: Tensor) -> Tensor:
    """Each pixel's mean over what is there in the smallest block around it that holds any."""
    filled = torch.zeros_like(pictures)
    missing = torch.ones_like(there)
    side = 2
    while side <= min(pictures.shape[2:]):
        weight = F.avg_pool2d(there, side, ceil_mode=True, count_include_pad=False)
        mean = F.avg_pool2d(pictures * there, side, ceil_mode=True, count_include_pad=False)
        mean = mean / weight.clamp(min=1e-6)
        large, has = (F.interpolate(v, scale_factor=side)[..., : pictures.shape[2],
                                    : pictures.shape[3]] for v in (mean, weight))  # fmt: skip
        take = missing * (has > 0)
        filled, missing = filled + take * large, missing * (1 - take)
        side *= 2
    return filled


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    """a / b; 0 where there is nothing left to divide by, for a channel that is solved already."""
    enough = b > 1e-20
    return torch.where(enough, a / torch.where(enough, b, 1.0), 0.0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(2, 3), keepdim=True)


def road(
    probability: Callable[[Tensor], Tensor], pictures: Tensor, order: Tensor, noise: Tensor
) -> dict[str, Tensor]:
    """Probability left once pixels are removed and imputed, the mean over shares, (image,).

    The most relevant first (lower is more faithful), the least relevant first (higher).
    """
    found = {}
    for name, sequence in (("road_morf", order), ("road_lerf", order.flip(1))):
        left = []
        for share in ROAD_SHARES:
            count = round(share * order.shape[1])
            removed = torch.zeros_like(order, dtype=torch.bool)
            removed = removed.scatter_(1, sequence[:, :count], True)
            removed = removed.view(len(pictures), *pictures.shape[2:])
            left.append(probability(imputed(pictures, removed, noise)))
        found[name] = torch.stack(left).mean(dim=0)
    return found


# --- a study -------------------------------------------------------------------------------------


def score_faithfulness(
    study: Study,
    backbones: Sequence[Backbone],
    methods: Sequence[CamMethod],
    count: int,
    with_curves: bool,
) -> pd.DataFrame:
    """Every measure for some models and methods on `count` pictures.

    `backbone, dcls, method, image_id, measure, value`: a row per image and measure. Maps and
    probabilities are of the class that the network predicts; the value is missing for a map
    that is constant. With curves also deletion,
    insertion and ROAD, some forty forwards more a picture and method.
    """
    batches = list(study.clickme(limit=count).batches(_FORWARD))
    tables: list[pd.DataFrame] = []
    work = [(b, d) for b in backbones for d in b.forms]
    total = len(work) * len(methods) * len(batches)
    with tqdm(total=total, desc="faithfulness", unit="batch") as bar:
        for backbone, dcls in work:
            model = study.networks.inference_model(backbone.key, dcls, methods)
            for batch in batches:
                resized = resize_pictures(batch.pictures, backbone.preprocessing)
                pictures = torch.from_numpy(resized).permute(0, 3, 1, 2).float() / 255
                for found in measured(
                    model, methods, pictures, batch.places, batch.image_ids, with_curves
                ):
                    tables.append(found.assign(backbone=backbone.key, dcls=dcls))
                    bar.update()
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def measured(
    model: StudyModel,
    methods: Sequence[CamMethod],
    pictures: Tensor,
    places: Sequence[int],
    image_ids: Sequence[str],
    with_curves: bool = False,
) -> Iterator[pd.DataFrame]:
    """Of each method `method, image_id, measure, value`, for maps of the classes that the network
    predicts.

    pictures : (image, 3, side, side) in 0-1, of the side that the network takes
    places   : numbers of the pictures, which seed their lots and noise
    The value is NaN for a map that is constant.
    """
    pictures = pictures.to(next(model.parameters()).device)
    x = model.normalised(pictures)
    passed = head_pass(model, x)
    drawn = _drawn(places, pictures)
    for method in methods:
        found = _measured(
            model, method.maps(model, x, passed), pictures, passed, drawn, with_curves
        )
        yield pd.concat(
            [pd.DataFrame({"method": method.key, "image_id": image_ids, "measure": name,
                           "value": values.tolist()})
             for name, values in found.items()],
            ignore_index=True,
        )  # fmt: skip


def _measured(
    model: StudyModel,
    small: Tensor,
    pictures: Tensor,
    passed: HeadPass,
    drawn: tuple[Tensor, Tensor],
    with_curves: bool,
) -> dict[str, Tensor]:
    """{measure: (image,)} of maps; the other arguments are as in `measured`."""
    masks = enlarge(min_max(small), pictures.shape[-1])

    @torch.inference_mode()
    def probability(some: Tensor) -> Tensor:
        logits = torch.cat([model(model.normalised(part)) for part in some.split(_FORWARD)])
        return logits.float().softmax(dim=1).gather(1, passed.targets[:, None])[:, 0]

    lots, noise = drawn
    order = in_order(masks, lots)
    whole = passed.logits.float().softmax(dim=1).gather(1, passed.targets[:, None])[:, 0]
    found = {LET_THROUGH: 100 * masks.mean(dim=(1, 2))}
    for share in SHARES:
        masked = probability(pictures * kept_share(masks, order, share)[:, None])
        found[f"average_drop_{share:.0%}"] = average_drop(whole, masked)
        found[f"increase_{share:.0%}"] = increase_in_confidence(whole, masked)
    if with_curves:
        mean = torch.tensor(model.backbone.preprocessing.mean, device=pictures.device)[
            :, None, None
        ]
        found |= curves(probability, pictures, order, mean)
        found |= road(probability, pictures, order, noise)
    # A constant map shows nothing: to hide all would count as its being unfaithful. Nor does one
    # that is not finite.
    nothing = is_constant(masks) | ~masks.isfinite().all(dim=(1, 2))
    return {name: values.masked_fill(nothing, torch.nan) for name, values in found.items()}


def _drawn(places: Sequence[int], pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Each picture's own lots and noise, the same for every method and model of one size."""
    shape = pictures.shape[1:]
    lots, noise = [], []
    for place in places:
        rng = np.random.default_rng([SEED, place])
        lots.append(rng.permutation(shape[1] * shape[2]))
        noise.append(rng.normal(0, _ROAD_NOISE, shape))
    return torch.from_numpy(np.stack(lots)).to(pictures.device), torch.from_numpy(
        np.stack(noise)
    ).to(pictures)


def score_folder(
    networks: Networks,
    backbone: Backbone,
    dcls: bool,
    methods: Sequence[CamMethod],
    paths: Sequence[Path],
    folder: Path,
    with_curves: bool = False,
) -> pd.DataFrame:
    """As `lib.analyses.faithfulness.score_faithfulness`, of one variant on pictures of files.

    image_id : the picture's path below `folder`
    Raises PictureFolderError for a picture that cannot be read, WeightsError, MissingWeights.
    """
    model = networks.inference_model(backbone.key, dcls, methods)
    pictures = FolderPictures(paths, backbone.preprocessing.crop)
    tables: list[pd.DataFrame] = []
    parts = torch.arange(len(paths)).split(_FORWARD)
    for part in tqdm(parts, desc=model.variant, unit="batch", leave=False):
        places = part.tolist()
        some = torch.stack(each(pictures.centre, places))
        names = [paths[place].relative_to(folder).as_posix() for place in places]
        tables += measured(model, methods, some, places, names, with_curves)
    table = pd.concat(tables, ignore_index=True)
    return table.assign(backbone=backbone.key, dcls=dcls)[COLUMNS]
