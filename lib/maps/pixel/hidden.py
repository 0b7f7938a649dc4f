"""LIME and RISE: heatmaps from the network's answers to partly hidden images."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import Lime
from captum.attr._core.lime import get_exp_kernel_similarity_function
from skimage.segmentation import quickshift
from torch import Tensor, nn

from ..forward import HeadPass, evaluating
from ..methods import min_max
from .published import CHUNK, SEED, Probability, published

# Number of RISE's masks for each family of networks, as published; the last is for all others.
_MASKS = {"vgg": 4000, "": 8000}
_MASKED = 50  # images per forward pass


def lime(
    model: nn.Module, x: Tensor, passed: HeadPass, samples: int = 1000, features: int = 10
) -> Tensor:
    """LIME: weights of a linear model that predicts the probability from the shown superpixels.

    Quickshift divides the image into superpixels; a hidden one has its mean colour. captum fits
    the model. The map shows the superpixels with positive weights among those with the largest
    weights.

    features : number of superpixels with the largest weights

    Source: Ribeiro et al., KDD 2016
    """
    likeness = get_exp_kernel_similarity_function("cosine", kernel_width=0.25)
    maps = []
    with published(model, x) as (network, images):
        explainer = Lime(Probability(network), SkLearnRidge(alpha=1.0), similarity_func=likeness)
        for image, target in zip(images, passed.targets, strict=True):
            colours = min_max(image).permute(1, 2, 0).cpu().double().numpy()
            parts = quickshift(colours, kernel_size=4, max_dist=200, ratio=0.2, rng=0)
            parts = torch.from_numpy(np.ascontiguousarray(parts)).to(image.device)
            count = int(parts.max()) + 1
            means = torch.zeros(3, count, device=image.device).index_add(
                1, parts.flatten(), image.flatten(1)
            ) / parts.flatten().bincount(minlength=count)
            with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
                torch.manual_seed(SEED)
                weights = explainer.attribute(
                    image[None], means[:, parts][None], int(target),
                    feature_mask=parts[None, None], n_samples=samples,
                    perturbations_per_eval=CHUNK, return_input_shape=False,
                ).flatten()  # fmt: skip
            weighty = torch.zeros_like(weights)
            largest = weights.abs().topk(min(features, count)).indices
            weighty[largest] = weights[largest].clamp(min=0)
            maps.append(weighty[parts])
    return torch.stack(maps).detach().float()


@torch.inference_mode()
def rise(
    model: nn.Module,
    x: Tensor,
    passed: HeadPass,
    masks: int = 0,
    cells: int = 7,
    open_share: float = 0.5,
) -> Tensor:
    """RISE: the mean of random masks, weighted by the class's probability under each mask.

    It shows where an image must be visible for the network to keep its answer.

    masks : number of masks; 0 means the published number for the network's family, 4000 for VGG,
            otherwise 8000
    cells, open_share : as for `rise_masks`
    Hidden places have the data's mean colour (0 after normalising). The sum is divided by the
    number of masks and by `open_share`, as in the authors' code.

    Source: Petsiuk et al., BMVC 2018; masks as in the comparisons of Gkartzonika et al., ECCV
    workshops 2022
    """
    family = getattr(getattr(model, "backbone", None), "family", "")
    count = masks or _MASKS.get(family, _MASKS[""])
    total = torch.zeros(len(x), *x.shape[-2:], device=x.device)
    with evaluating(model):
        for some in rise_masks(x.shape[-2:], count, cells, open_share, x.device):
            for place, (image, target) in enumerate(zip(x, passed.targets, strict=True)):
                logits = model(image * some[:, None]).float()
                total[place] += torch.tensordot(logits.softmax(dim=1)[:, target], some, dims=1)
    return total / count / open_share


def rise_masks(
    size: tuple[int, int], count: int, cells: int, open_share: float, device: torch.device
) -> Iterator[Tensor]:
    """Yield (mask, height, width) in 0-1, some at a time; the same masks for images of one size.

    cells      : cells per side of the random grids
    open_share : probability that a cell is open
    A grid is enlarged to one cell more than the image and cropped to it at a random place.
    """
    rng = np.random.default_rng(SEED)
    cell = [math.ceil(side / cells) for side in size]
    grids = torch.from_numpy(rng.random((count, cells, cells)) < open_share)
    shifts = torch.from_numpy(np.stack([rng.integers(0, side, count) for side in cell], axis=1))
    enlarging = [_enlarging(cells, (cells + 1) * side).to(device) for side in cell]
    for drawn, shift in zip(grids.split(_MASKED), shifts.split(_MASKED), strict=True):
        rows, columns = (
            weights[by[:, None].to(device) + torch.arange(side, device=device)]
            for weights, by, side in zip(enlarging, shift.T, size, strict=True)
        )
        yield rows @ drawn.to(device, torch.float32) @ columns.transpose(1, 2)


def _enlarging(cells: int, side: int) -> Tensor:
    """(side, cells) weights that enlarge a line linearly, as in scikit-image: beyond the middle of
    the outermost cell the line is mirrored."""
    at = ((torch.arange(side, dtype=torch.float64) + 0.5) * cells / side - 0.5).abs()
    at = torch.where(at > cells - 1, 2 * (cells - 1) - at, at)
    return (1 - (at[:, None] - torch.arange(cells)).abs()).clamp(min=0).float()
