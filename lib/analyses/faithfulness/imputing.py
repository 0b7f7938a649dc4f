"""ROAD's imputer: removed pixels become weighted means of their neighbours.

The published imputer solves one sparse system per image on the CPU. Here all images are solved at
once on their device, by conjugate gradients in float64 with a multigrid cycle in float32 as the
preconditioner. This takes about fifteen steps, however large the hole.

Source: Rong et al., "A consistent and efficient evaluation strategy for attribution methods",
ICML 2022; Briggs, Henson and McCormick, "A multigrid tutorial", SIAM 2000
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_RESIDUAL = 1e-9  # of the largest value; values are then exact to about 1e-7 of it
_MOST_STEPS = 500
_DAMPING = 0.8  # of Jacobi's sweeps
_SMALL = 1e-300


@torch.no_grad()
def imputed(images: Tensor, removed: Tensor, noise: Tensor) -> Tensor:
    """Replace removed pixels by weighted means of their eight neighbours, plus noise.

    images  : (image, channel, h, w), finite, in any unit
    removed : (image, h, w) bool
    noise   : shape and unit of `images`, added to removed pixels
    Returns images. An image without any remaining pixel becomes 0 everywhere, plus noise, as in
    the published imputer. Raises ValueError for values that are not finite.
    """
    # Apple's GPUs have no float64.
    device = torch.device("cpu") if images.device.type == "mps" else images.device
    exact, gone = images.to(device).double(), removed.to(device)[:, None].double()
    if not exact.isfinite().all():
        raise ValueError("images hold values that are not finite: they cannot be imputed")
    known = exact * (1 - gone)
    filled = known + _solved(_around(known) * gone, gone, _RESIDUAL * known.abs().max())
    return (filled + gone * noise.to(device)).to(images.dtype).to(images.device)


# Sums are computed in place, because on a CPU new memory costs more than the sums.


def _around(x: Tensor) -> Tensor:
    """The weighted sum of the eight neighbours: 1/6 at sides, 1/12 at corners, 0 outside."""
    padded = F.pad(x, (1, 1, 1, 1))
    rows = (padded[..., :-2, :] + padded[..., 2:, :]).add_(padded[..., 1:-1, :], alpha=2)
    return (rows[..., :-2] + rows[..., 2:]).add_(rows[..., 1:-1], alpha=2).sub_(x, alpha=4).div_(12)


def _left(right: Tensor, x: Tensor, there: Tensor) -> Tensor:
    """The residual: the right-hand side minus the operator applied to `x`."""
    return _around(x).addcmul_(there, x, value=-1).add_(right)


def _solved(right: Tensor, gone: Tensor, most: Tensor) -> Tensor:
    """The values of removed pixels, 0 elsewhere, with a residual of at most `most` in every
    equation."""
    there = _around(torch.ones_like(gone))  # less than 1 at the border
    levels = _levels(gone)
    x, residual = torch.zeros_like(right), right
    step = _cycle(residual, levels)
    square = _dot(residual, step)
    for _ in range(_MOST_STEPS):
        if residual.abs().max() <= most:
            return x
        image = _around(step).addcmul_(there, step, value=-1).mul_(-gone)
        size = _dot(residual, step) / _dot(step, image).clamp(min=_SMALL)
        x.addcmul_(size, step)
        image.mul_(size)
        residual = residual - image
        made = _cycle(residual, levels)
        # Uses the change of the residual, -image, because the cycle is not a symmetric operator.
        turn = -_dot(image, made) / square.clamp(min=_SMALL)
        square = _dot(residual, made)
        step.mul_(turn).add_(made)
    raise RuntimeError(f"imputing did not converge in {_MOST_STEPS} steps")


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(2, 3), keepdim=True)


def _levels(gone: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(gone, neighbours' weight, Jacobi's factor) for the grid and for coarser grids, in which a
    cell is gone if all four of its cells are."""
    levels, gone = [], gone.float()
    while True:
        there = _around(torch.ones_like(gone))
        levels.append((gone, there, _DAMPING * gone / there.clamp(min=1e-6)))
        if min(gone.shape[2:]) <= 2 or not gone.any():
            return levels
        gone = 1 - F.max_pool2d(1 - gone, 2, ceil_mode=True)


def _cycle(residual: Tensor, levels: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """An approximate solution: two sweeps, the correction of the coarser grid, two sweeps."""
    return _descended(residual.float(), levels).to(residual)


def _descended(right: Tensor, levels: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    (gone, there, factor), *coarser = levels

    def swept(x: Tensor) -> Tensor:
        return _left(right, x, there).mul_(factor).add_(x)

    x = swept(factor * right)
    if coarser:
        left = _left(right, x, there).mul_(gone)
        # A cell is twice as wide, so the same equation has four times the weight.
        small = _descended(F.avg_pool2d(left, 2, ceil_mode=True).mul_(4), coarser)
        large = F.interpolate(small, scale_factor=2, mode="bilinear")
        x.addcmul_(large[..., : x.shape[2], : x.shape[3]], gone)
        x = swept(swept(x))
    return x
