"""Deep feature factorisation: a layer's features as a few concepts, without a target.

Source: Collins, Achanta and Süsstrunk, "Deep feature factorization for concept discovery", ECCV
2018; the numbers are those of pytorch-grad-cam's `DeepFeatureFactorization`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from ..networks.split import evaluating
from .forward import enlarge
from .methods import min_max


@dataclass(frozen=True)
class Concepts:
    """The concepts that some images share.

    maps       : (image, concept, height, width), where each concept is; each map is from 0 to 1
    directions : (concept, channel), the features of each concept
    answers    : (concept, class), the network's logits if all places had these features
    """

    maps: Tensor
    directions: Tensor
    answers: Tensor


@torch.no_grad()
def factorised(
    model: nn.Module, x: Tensor, count: int = 5, size: int | tuple[int, int] | None = None
) -> Concepts:
    """Return concepts in a layer's features, found by a non-negative matrix factorisation.

    model : has `features` and `answered`: a study's model, or a `lib.maps.live.LiveModel`
    x     : (image, 3, height, width), normalised for the network; the images share the concepts
    count : number of concepts
    size  : size of the maps; the images' own size if it is not given
    Raises ValueError if the features are too few for so many concepts.
    """
    with evaluating(model):
        features = model.features(x).float()
        images, channels, height, width = features.shape
        most = min(channels, images * height * width)
        if not 1 <= count <= most:
            raise ValueError(
                f"{count} concepts cannot be found in {channels} channels of {images} images of "
                f"{height} x {width} cells: choose from 1 to {most}"
            )
        places = features.transpose(0, 1).flatten(1).nan_to_num().cpu().numpy()
        offset = places.min(axis=1)
        found = NMF(n_components=count, init="random", random_state=0)
        with warnings.catch_warnings():  # 200 steps as published; more hardly change the result
            warnings.simplefilter("ignore", ConvergenceWarning)
            directions = found.fit_transform(places - offset[:, None]) + offset[:, None]
        maps = found.components_.reshape(count, images, height, width).transpose(1, 0, 2, 3)
        directions = torch.from_numpy(np.ascontiguousarray(directions.T)).to(features)
        everywhere = directions[:, :, None, None].expand(-1, -1, height, width)
        answers = model.answered(x[:1].expand(count, *x.shape[1:]), everywhere)
    large = enlarge(
        min_max(torch.from_numpy(np.ascontiguousarray(maps)).to(features)).flatten(0, 1),
        size or tuple(x.shape[-2:]),
    )
    return Concepts(large.unflatten(0, (images, count)), directions, answers)
