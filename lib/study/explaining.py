"""Heatmaps of any model for any images, in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import resolve_data_config
from torch import Tensor, nn

from ..base.geometry import Preprocessing
from ..base.paths import shown
from ..maps.live import LiveModel, live_maps
from ..maps.methods import METHODS, CamMethod, min_max
from ..maps.placed import heatmaps
from ..networks.checkpoints import MissingWeights
from ..networks.models import StudyModel
from ..networks.preprocessing import prepare_pixels, resize_images
from ..people.images import read_image
from .profiles import PROFILES
from .study import Study

_BATCH = 16
_BY_DEFAULT = Preprocessing(resize=256, crop=224)

Seen = np.ndarray | Image.Image | str | Path
# Squares (image, side, side, 3) and their targets -> (image, size, size) of the visible part.
Explained = Callable[[np.ndarray, Any, int], np.ndarray]


@torch.inference_mode(False)  # gradients are needed, whatever mode the caller is in
def explain(
    model: nn.Module | str,
    images: Seen | Sequence[Seen],
    method: str | CamMethod = "grad_cam",
    target: Any = None,
    *,
    layer: str | nn.Module | Sequence[str | nn.Module] = "",
    preprocessing: Preprocessing | None = None,
) -> np.ndarray | list[np.ndarray]:
    """Return heatmaps of a model for images, each of its image's own size.

    model  : a name as in `Study.from_profile` ("resnet50", "resnet50_dcls", "timm:NAME"), with
             its published weights, which `dcls-fetch NAME` fetches; the result of `load_model`;
             or any network in memory
    images : (image, h, w, 3) uint8, or one or several of: (h, w, 3) uint8, PIL images, files
    method : a key of METHODS, or a row of your own
    target : the class to explain, one for all or one per image; None for the predicted class. For
             a network in memory it may also be a function of its answer (`lib.maps.targets`)
    layer  : of a network in memory: the layer whose output makes the heatmaps; "" to find it
    preprocessing : of a network in memory: how images become inputs. By default it is what timm's
             `pretrained_cfg` of the network says, otherwise 256 pixels with a crop of 224 and
             ImageNet's mean and standard deviation

    Returns (image, h, w) float32 with each heatmap in 0-1; (h, w) for one image; a list for
    images of several sizes. The model sees the centred square of an image, minus what its crop
    cuts off; outside that area a heatmap is 0. A heatmap without any evidence is 0 everywhere.

    Raises ValueError for input that does not fit and for a heatmap that is not finite, UnknownName
    for an unknown name, and MissingWeights for weights that do not exist.
    """
    row = METHODS[method] if isinstance(method, str) else method
    given, names, alone = _read(images)
    targets = _targets(target, len(given))
    if isinstance(model, str):
        model = _named(model, row)
    _refuse_inferring(model)
    if isinstance(model, StudyModel):
        if layer != "" or preprocessing is not None:
            raise ValueError(f"{model.variant} has its own layer and preprocessing: omit these")
        geometry, explained = model.backbone.preprocessing, _of_study(model, row)
    elif isinstance(model, nn.Module):
        network = model.network if isinstance(model, LiveModel) else model
        geometry = preprocessing or _of_timm(network)
        explained = _in_memory(model, row, layer, geometry)
    else:
        raise ValueError(f"model must be a name or a network, not {type(model).__name__}")
    maps: list[np.ndarray] = []
    for some, asked in _batches(given, targets):
        maps += _placed(some, asked, geometry, explained, names[len(maps) :])
    if alone:
        return maps[0]
    return np.stack(maps) if len({one.shape for one in maps}) == 1 else maps


# --- input ------------------------------------------------------------------------------------


def _read(images: Seen | Sequence[Seen]) -> tuple[list[np.ndarray], list[str], bool]:
    """Return each image as (h, w, 3) uint8, its name, and whether a single image was given."""
    alone = isinstance(images, str | Path | Image.Image) or getattr(images, "ndim", 0) == 3
    given = [images] if alone else list(images)
    if not given:
        raise ValueError("images is empty: give one or more")
    names = [f"image {number}" + f" ({one})" * isinstance(one, str | Path)
             for number, one in enumerate(given)]  # fmt: skip
    return [_pixels(one, number) for number, one in enumerate(given)], names, alone


def _pixels(image: Seen, number: int) -> np.ndarray:
    if isinstance(image, str | Path):
        if not Path(image).is_file():
            raise ValueError(f"{image} does not exist")
        image = read_image(Path(image))
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(
            f"image {number} must be (h, w, 3) uint8, a PIL image, or a file, but it is "
            f"{pixels.dtype} {pixels.shape}"
        )
    return pixels


def _targets(target: Any, images: int) -> Any:
    if target is None or (callable(target) and not isinstance(target, Tensor)):
        return target
    if getattr(target, "ndim", None) == 0:  # a scalar of torch or NumPy
        target = target.item()
    if isinstance(target, Integral):
        return [int(target)] * images
    if isinstance(target, str):
        raise ValueError(
            f"target {target!r} is a text: give the class as a number, one for all or one per "
            "image, or None for the predicted class (`dcls-cam --target` takes names)"
        )
    if not hasattr(target, "__len__"):
        raise ValueError(_no_target(target))
    if len(target) != images:
        raise ValueError(f"need one target per image: {images} images, {len(target)} targets")
    return [_target(one) for one in target]


def _target(one: Any) -> Any:
    if callable(one) and not isinstance(one, Tensor):
        return one
    found = one.item() if getattr(one, "ndim", None) == 0 else one
    if not isinstance(found, Integral):
        raise ValueError(_no_target(found))
    return int(found)


def _no_target(given: Any) -> str:
    return (
        f"target {given!r} is not a class: give a whole number, one for all or one per image, "
        "or None for the predicted class"
    )


def _refuse_inferring(model: Any) -> None:
    """Raise ValueError for a network that cannot provide gradients."""
    if isinstance(model, nn.Module) and any(
        one.is_inference() for one in (*model.parameters(), *model.buffers())
    ):
        raise ValueError(
            "the network's weights were created under torch.inference_mode, so they have no "
            "gradients: create or load the network outside it"
        )


def _batches(given: list[np.ndarray], targets: Any) -> Iterator[tuple[list[np.ndarray], Any]]:
    """Yield neighbouring images of the same size together."""
    for _, group in groupby(range(len(given)), key=lambda number: given[number].shape):
        numbers = list(group)
        for start in range(0, len(numbers), _BATCH):
            some = slice(numbers[start], numbers[start : start + _BATCH][-1] + 1)
            yield given[some], targets[some] if isinstance(targets, list) else targets


# --- heatmaps ---------------------------------------------------------------------------------


def _placed(
    images: list[np.ndarray], targets: Any, geometry: Preprocessing, explained: Explained,
    names: Sequence[str],
) -> list[np.ndarray]:  # fmt: skip
    """Return heatmaps of images of one size, placed where the model looked.

    Raises ValueError, which names the image, for a heatmap that is not finite.
    """
    height, width = images[0].shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    squares = np.stack([one[top : top + side, left : left + side] for one in images])
    window = geometry.window(side)
    canvas = np.zeros((len(images), height, width), np.float32)
    seen = canvas[:, top : top + side, left : left + side][:, window, window]
    seen[:] = explained(squares, targets, seen.shape[-1])
    for one, name in zip(seen, names, strict=False):
        if not np.isfinite(one).all():
            raise ValueError(
                f"{name} has no heatmap: the model's answer to it, or its gradient, is not "
                "finite (NaN or infinite)"
            )
    return list(canvas)


def _of_study(model: StudyModel, row: CamMethod) -> Explained:
    def explained(squares: np.ndarray, targets: Any, size: int) -> np.ndarray:
        asked = torch.tensor(targets) if isinstance(targets, list) else targets
        found = torch.from_numpy(heatmaps(model, squares, asked, (row,))[row.label])
        window = model.backbone.preprocessing.window(squares.shape[1])
        return min_max(found[:, window, window]).numpy()

    return explained


def _in_memory(model: nn.Module, row: CamMethod, layer: Any, geometry: Preprocessing) -> Explained:
    def explained(squares: np.ndarray, targets: Any, size: int) -> np.ndarray:
        x = prepare_pixels(torch.from_numpy(resize_images(squares, geometry)), geometry)
        return live_maps(model, x, row, targets=targets, layer=layer, size=size).cpu().numpy()

    return explained


def _of_timm(network: nn.Module) -> Preprocessing:
    """Return timm's preprocessing for one of its networks, otherwise ImageNet's usual one."""
    if not (told := getattr(network, "pretrained_cfg", None)):
        return _BY_DEFAULT
    found = resolve_data_config({}, pretrained_cfg=told)
    crop = found["input_size"][-1]
    return Preprocessing(
        round(crop / found["crop_pct"]), crop, tuple(found["mean"]), tuple(found["std"])
    )


def _named(name: str, row: CamMethod) -> StudyModel:
    """Return a model by its name, with its weights. Raises UnknownName, MissingWeights."""
    key = name.removesuffix("_dcls")
    profile = "gaze" if key in PROFILES["gaze"].models else "paper"
    study = Study.from_profile(profile, [key], target="predicted")
    if len(study.choices.backbones) != 1:
        raise ValueError(f"{name!r} names {len(study.choices.backbones)} models: name one")
    backbone = study.choices.backbones[0]
    if key != name and backbone.dcls is None:
        raise ValueError(f"{key} has no DCLS form: omit _dcls")
    path = study.inputs.weights_path(backbone.key, key != name)
    if not (backbone.untrained or path.is_file()):
        raise MissingWeights(f"{shown(path)} does not exist: fetch it with `dcls-fetch {key}`")
    return study.networks.inference_model(backbone.key, key != name, (row,))
