"""Threshold-Grad-CAM as a class for users of pytorch-grad-cam."""

from __future__ import annotations

import numpy as np
import torch
from pytorch_grad_cam.base_cam import BaseCAM

from .methods import PUBLISHED_FLOOR, grad_cam_family


class ThresholdGradCAM(BaseCAM):
    """Threshold-Grad-CAM as a method of pytorch-grad-cam, used like its other methods.

    `ThresholdGradCAM(model, [layer])(x, targets)` returns (image, H, W) float32. As with every
    method of that package, each image's map is scaled to 0-1, so the floor itself becomes 0. Ranks,
    and therefore scores, are those of `cam_maps`.
    """

    def __init__(self, model, target_layers, reshape_transform=None, floor=PUBLISHED_FLOOR):
        super().__init__(model, target_layers, reshape_transform)
        self.floor = floor

    def get_cam_image(
        self, input_tensor, target_layer, targets, activations, grads, eigen_smooth=False
    ) -> np.ndarray:
        if eigen_smooth:
            raise ValueError("eigen_smooth does not apply to Threshold-Grad-CAM: call without it")
        maps = grad_cam_family(
            torch.as_tensor(activations),
            torch.as_tensor(grads),
            relu_before_mean=True,
            floor=self.floor,
        )
        return maps.numpy()
