"""Formulas of the CAM methods that need only the layer's features and the gradient there.

They are pytorch-grad-cam's, except for the scaling that it adds. A product, (image, channel, h, w),
is what a method sums over channels. It is made from features and gradient of that shape. The map is
the sum, with negative values set to 0, as in that package.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from .forward import HeadPass

_SEED = 20240803


def grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Source: Selvaraju et al., ICCV 2017"""
    return features * gradient.mean(dim=(-2, -1), keepdim=True)


def hires_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Source: Draelos and Carin, arXiv 2011.08891"""
    return features * gradient


def element_wise(features: Tensor, gradient: Tensor) -> Tensor:
    """HiResCAM's product with negative elements set to 0 before the sum, not after it."""
    return (features * gradient).relu()


def grad_cam_plus_plus(features: Tensor, gradient: Tensor) -> Tensor:
    """Source: Chattopadhyay et al., WACV 2018, eq. 19, in its exponential form"""
    square, cube = gradient**2, gradient**3
    total = features.sum(dim=(-2, -1), keepdim=True)
    share = square / (2 * square + total * cube + 1e-6)
    return (gradient.relu() * share).sum(dim=(-2, -1), keepdim=True) * features


def x_grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Source: Fu et al., BMVC 2020"""
    total = features.sum(dim=(-2, -1), keepdim=True)
    return (gradient * features / (total + 1e-7)).sum(dim=(-2, -1), keepdim=True) * features


def layer_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Source: Jiang et al., IEEE TIP 2021"""
    return gradient.relu() * features


def random_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """A control: Grad-CAM with random weights of the channels, the same for every image."""
    return _random_weights(features.shape[1], features.device, features.dtype) * features


@cache
def _random_weights(channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Made once, because a copy of them to a GPU waits for all its work."""
    with torch.inference_mode(False):
        generator = torch.Generator().manual_seed(_SEED)
        weights = torch.rand(channels, generator=generator, dtype=torch.float64) * 2 - 1
        return weights.to(device, dtype)[:, None, None]


PRODUCTS = {
    function.__name__: function
    for function in (
        grad_cam, hires_cam, element_wise, grad_cam_plus_plus, x_grad_cam, layer_cam, random_cam,
    )
}  # fmt: skip


def product(name: str, model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """One of PRODUCTS for a pass."""
    return PRODUCTS[name](passed.features, passed.gradient)


def product_map(name: str, features: Tensor, gradient: Tensor) -> Tensor:
    """(image, h, w) map of one of PRODUCTS."""
    return PRODUCTS[name](features, gradient).sum(dim=1).relu()


def eigen_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Source: Muhammad and Yeasin, IJCNN 2020; blind to the class"""
    return first_component(features).relu()


def eigen_grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """EigenCAM of HiResCAM's products."""
    return first_component(features * gradient).relu()


def seg_eigen_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """EigenCAM of the features weighted by the size of the gradient, place by place.

    Source: Chung and Ying, "Seg-Eigen-CAM", Applied Sciences 15 (2025) 7562
    """
    return first_component(gradient.abs() * features).relu()


def first_component(features: Tensor) -> Tensor:
    """Places projected on the first principal component of their channels.

    The sign of a component is arbitrary; as in Seg-Eigen-CAM, the larger side is made positive.
    (pytorch-grad-cam's EigenCAM uses whichever sign its decomposition gives.)
    """
    places = torch.nan_to_num(features).flatten(2).transpose(1, 2)
    places = (places.cpu() if places.device.type == "mps" else places).double()
    places = places - places.mean(dim=1, keepdim=True)
    # From products of the few places instead of the many channels: the component is the same.
    values, vectors = torch.linalg.eigh(places @ places.transpose(1, 2))
    projected = vectors[..., -1] * values[:, -1:].clamp(min=0).sqrt()
    turned = projected.amin(dim=1).abs() > projected.amax(dim=1).abs()
    projected = torch.where(turned[:, None], -projected, projected)
    return projected.to(features).view(len(features), *features.shape[2:])
