"""Heatmaps for display: chosen images, chosen variants, the study's methods."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..networks.models import StudyModel
from .cam import cam_maps
from .methods import CamMethod


@torch.no_grad()
def answers(model: StudyModel, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the class that a model predicts for each image, and its probability: (image,) each."""
    best = model(model.prepare(images)).softmax(dim=-1).max(dim=-1)
    return best.indices.cpu().numpy(), best.values.cpu().numpy()


@torch.no_grad()
def heatmaps(
    model: StudyModel,
    images: np.ndarray,
    targets: Tensor | None,
    methods: tuple[CamMethod, ...],
) -> dict[str, np.ndarray]:
    """Return heatmaps of some images, for drawing: {method label: (image, 224, 224)}.

    Each map covers the part of the image that the network's centre crop keeps, and is NaN outside.
    (Scores stretch maps over the whole image, as published.)
    """
    side = images.shape[1]
    window = model.backbone.preprocessing.window(side)
    size = window.stop - window.start
    maps = cam_maps(model, model.prepare(images), targets, methods, size)
    placed = {}
    for method in methods:
        canvas = np.full((len(images), side, side), np.nan)
        canvas[:, window, window] = maps[method.key].cpu().numpy()
        placed[method.label] = canvas
    return placed
