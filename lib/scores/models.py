"""A study's models for one process's work: on the device, and in memory while there is room."""

from __future__ import annotations

from functools import cached_property

import psutil
import torch

from ..base.threads import reuse_memory
from ..networks.backbones import Backbone
from ..networks.batch_size import BatchSize
from ..networks.models import StudyModel
from ..study.study import Study

_MODELS_IN_MEMORY = 1.5e9  # bytes; on a GPU a third of its memory


class Models:
    """Models that are loaded when they are asked for, and kept as long as there is room.

    most : how many are kept, 0 for no limit
    """

    def __init__(self, study: Study, most: int = 0):
        self._study, self._most = study, most
        self._there: dict[str, StudyModel] = {}

    @cached_property
    def device(self) -> torch.device:
        reuse_memory()
        return self._study.networks.device()

    @cached_property
    def batch(self) -> BatchSize:
        """The number of images per forward pass."""
        choices = self._study.choices
        return BatchSize.chosen(choices.batch_size, self.device, choices.profile.mini)

    @cached_property
    def _room(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.get_device_properties(self.device).total_memory / 3
        return _MODELS_IN_MEMORY

    def of(self, backbone: Backbone, dcls: bool) -> StudyModel:
        """Return a variant's model. Raises MissingWeights, WeightsError."""
        name = self._study.inputs.weights_name(backbone.key, dcls)
        if name in self._there:
            return self._there[name]
        if len(self._there) == self._most > 0:
            self._there.clear()  # before the next one is loaded
        model = self._study.networks.inference_model(backbone.key, dcls)
        taken = sum(p.numel() * p.element_size() for p in model.parameters())
        if taken <= min(self._room, psutil.virtual_memory().available / 4):
            self._room -= taken
            self._there[name] = model
        return model
