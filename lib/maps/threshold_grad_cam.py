"""Threshold-Grad-CAM for those who work with pytorch-grad-cam."""

from __future__ import annotations

import numpy as np
import torch
from pytorch_grad_cam.base_cam import BaseCAM

from .methods import PUBLISHED_FLOOR, grad_cam_family


class ThresholdGradCAM(BaseCAM):
    """Threshold-Grad-CAM as a method of pytorch-grad-cam, used like its others.

    `ThresholdGradCAM(model, [layer])(x, targets)` gives (image, H, W) float32. As
    with every method of that package the result is scaled to 0-1 per image, so the
    floor itself comes out as 0; ranks, and scores, are those of `cam_maps`.
    """

    def __init__(self, model, target_layers, reshape_transform=None, floor=PUBLISHED_FLOOR):
        super().__init__(model, target_layers, reshape_transform)
        self.floor = floor

    def get_cam_image(
        self, input_tensor, target_layer, targets, activations, grads, eigen_smooth=False
    ) -> np.ndarray:
        if eigen_smooth:
            raise ValueError("eigen_smooth has no meaning for Threshold-Grad-CAM")
        maps = grad_cam_family(
            torch.as_tensor(activations),
            torch.as_tensor(grads),
            relu_before_mean=True,
            floor=self.floor,
        )
        return maps.numpy()
