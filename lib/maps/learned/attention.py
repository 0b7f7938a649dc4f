"""Learned attention maps: L-CAM and TAME, small modules trained beside a frozen network.

A module turns the frozen network's last features into one map per class. It is trained so that the
network keeps its answer when it sees only what the map of its predicted class lets through, and so
that the map is small and smooth. The training is in `lib.maps.learned.training`.

Source: Gkartzonika et al., "Learning visual explanations for DCNN-based image classifiers using
an attention mechanism", ECCV workshops 2022 (L-CAM); Ntrougkas et al., "TAME: attention
mechanism based feature fusion for generating explanation maps of convolutional neural
networks", ISM 2022.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ...base.files import write_atomically
from ...base.paths import DEMO, shown
from ...base.tables import Table, unknown_name
from ...networks.backbones import BACKBONES
from ...networks.checkpoints import WeightsError
from ..forward import HeadPass
from ..methods import METHODS, min_max, training_command

_BIT = 0.0005  # keeps the slope of the area term finite at 0
_AREA_POWER = 0.3
_BORDER = 0.3
MASKINGS = ("diagonal", "random")


class AttentionError(WeightsError):
    """Attention weights or a checkpoint are missing, damaged, in the way or made for another
    network; or a training cannot continue. The message says which."""


# --- modules --------------------------------------------------------------------------------


class LCam(nn.Module):
    """L-CAM's module: one 1x1 convolution from the last features to one map per class.

    channels : number of channels of the features, a sequence with one number
    forward  : [(image, channel, h, w)] -> (image, class, h, w), before the sigmoid
    """

    def __init__(self, channels: Sequence[int], classes: int):
        super().__init__()
        self.maps = nn.Conv2d(channels[-1], classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.maps(features[-1])


class _Branch(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.norm(self.conv(x))).relu()


class Tame(nn.Module):
    """TAME's module, which combines the features of three layers.

    Each layer has its own 1x1 convolution with a skip connection. The results are enlarged to the
    size of the first layer and joined by another convolution.

    channels, forward : as for `LCam`, for three layers, the earliest first
    """

    def __init__(self, channels: Sequence[int], classes: int):
        super().__init__()
        self.branches = nn.ModuleList(_Branch(count) for count in channels)
        self.maps = nn.Conv2d(sum(channels), classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        parts = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        larger = [
            x if x.shape[-2:] == size
            else F.interpolate(x, size, mode="bilinear", align_corners=False)
            for x in parts
        ]  # fmt: skip
        return self.maps(torch.cat(larger, dim=1))


@dataclass(frozen=True)
class Attention:
    """A row: a module, what its maps hide during training, and its loss. `METHODS` has the label
    of each key.

    module   : (channels of each layer, classes) -> the module
    layers   : how many layers of the network it reads; the last is the study's layer
    hides    : "features" if maps hide parts of the last features, "image" for parts of the image
    weights  : weights of cross-entropy, area and variation in the loss
    raw      : whether it reads the features of images in 0-1 that are not normalised, as the
               published code of L-CAM-ImgA for ResNet-50 does
    """

    key: str
    module: Callable[[Sequence[int], int], nn.Module]
    hides: str
    layers: int = 1
    weights: tuple[float, float, float] = (1.5, 2.0, 0.01)
    raw: bool = False


_ALONE = (1.0, 0.0, 0.0)

ATTENTIONS: Table[Attention] = Table(
    "attention",
    [
        Attention("lcam_fm", LCam, "features"),
        Attention("lcam_img", LCam, "image"),
        Attention("lcam_fm_a", LCam, "features", weights=_ALONE),
        Attention("lcam_img_a", LCam, "image", weights=_ALONE),
        Attention("lcam_img_a_published", LCam, "image", weights=_ALONE, raw=True),
        Attention("tame", Tame, "image", layers=3),
    ],
)


# --- the loss -------------------------------------------------------------------------------


def area(masks: Tensor) -> Tensor:
    """How much masks let through: the mean of (a + 0.0005) ** 0.3."""
    return (masks + _BIT).pow(_AREA_POWER).mean()


def variation(masks: Tensor) -> Tensor:
    """How rough masks are, and how much they let through at the border.

    masks : (image, mask, h, w) in 0-1
    Returns the sum of the squared differences of neighbours and of 0.3 of the squares on the four
    border lines, divided by twice the number of images.
    """
    rough = (masks[..., 1:] - masks[..., :-1]).square().sum()
    rough = rough + (masks[..., 1:, :] - masks[..., :-1, :]).square().sum()
    lines = masks[..., 0, :], masks[..., -1, :], masks[..., :, 0], masks[..., :, -1]
    border = sum(line.square().sum() for line in lines)
    return (rough + _BORDER * border) / (2 * len(masks))


def layers_of(row: Attention, model: nn.Module, x: Tensor) -> list[Tensor]:
    """The features that a row's module reads."""
    return model.layers(x) if row.layers > 1 else [model.features(x)]


def read_by(row: Attention, model: nn.Module, images: Tensor) -> list[Tensor]:
    """Like `layers_of`, for (image, 3, side, side) images in 0-1; normalised unless `raw`."""
    return layers_of(row, model, images if row.raw else model.normalised(images))


def in_0_1(model: nn.Module, x: Tensor) -> Tensor:
    """Undo `model.normalised`, which scales each colour differently."""
    ends = torch.tensor([0.0, 1.0], device=x.device)[:, None, None, None].expand(2, 3, 1, 1)
    low, high = model.normalised(ends)
    return (x - low) / (high - low)


def of_classes(maps: Tensor, classes: Tensor) -> Tensor:
    """Select one class per image: (image, class, h, w) -> (image, h, w)."""
    return maps[torch.arange(len(maps), device=maps.device), classes]


def chosen_masks(maps: Tensor, labels: Tensor, masking: str = "diagonal") -> Tensor:
    """Select the masks that area and variation act on from (image, class, h, w).

    masking : "diagonal" selects each image's own label, (image, 1, h, w). "random" selects every
              label of the batch, (image, image, h, w), as in the published code, so that the
              variation grows with the batch
    """
    if masking == "diagonal":
        return of_classes(maps, labels)[:, None]
    if masking == "random":
        return maps[:, labels]
    raise unknown_name("masking", masking, MASKINGS)


@dataclass(frozen=True)
class Loss:
    """The loss of a batch: the weighted sum, and its terms."""

    total: Tensor
    cross_entropy: Tensor
    area: Tensor
    variation: Tensor
    same_class: Tensor  # share of the images that keep their class when masked


def attention_loss(
    row: Attention,
    model: nn.Module,
    attention: nn.Module,
    images: Tensor,
    masking: str,
    whole_batch: Callable[[Tensor], Tensor] = lambda labels: labels,
) -> Loss:
    """Compute the loss of a batch; gradients reach only the attention's parameters.

    model       : frozen, in eval mode, with `features`, `answered`, `normalised` and, if the row
                  reads several layers, `layers`
    images      : (image, 3, side, side) in 0-1
    whole_batch : returns every label of the batch if `images` are only a part of it
    The target is the class that the frozen network itself predicts.
    """
    x = model.normalised(images)
    with torch.no_grad():
        features = layers_of(row, model, x)
        labels = model.answered(x, features[-1]).argmax(dim=1)
        read = read_by(row, model, images) if row.raw else features
    maps = attention(read).sigmoid()
    own = chosen_masks(maps, labels)
    if row.hides == "features":
        logits = model.answered(x, _as_large(own, features[-1]) * features[-1])
    else:
        logits = model(model.normalised(_as_large(own, images) * images))
    cross_entropy = F.cross_entropy(logits, labels)
    masks = own if masking == MASKINGS[0] else chosen_masks(maps, whole_batch(labels), masking)
    terms = cross_entropy, area(masks), variation(masks)
    total = sum(weight * term for weight, term in zip(row.weights, terms, strict=True) if weight)
    return Loss(total, *terms, (logits.argmax(dim=1) == labels).float().mean())


def _as_large(masks: Tensor, other: Tensor) -> Tensor:
    if masks.shape[-2:] == other.shape[-2:]:
        return masks
    return F.interpolate(masks, other.shape[-2:], mode="bilinear", align_corners=False)


# --- as a CAM method ------------------------------------------------------------------------


def learned_map(key: str, model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """Return (image, h, w) maps of each image's target class, before the sigmoid, scaled to 0-1.

    Raises AttentionError if the model has no trained module of this name.
    """
    attention = getattr(model, "attentions", {}).get(key)
    if attention is None:
        name = getattr(model, "variant", "this network")
        known = getattr(getattr(model, "backbone", None), "key", "KEY")
        mini = getattr(getattr(model, "provenance", None), "architecture", "") == "mini"
        raise AttentionError(
            f"{METHODS[key].label} needs attention weights trained for {name}: "
            f"`{training_command(known, key, mini)}`, see docs/lcam.md"
        )
    with torch.inference_mode():
        row = ATTENTIONS[key]
        if row.raw:
            features = read_by(row, model, in_0_1(model, x))
        else:
            features = layers_of(row, model, x) if row.layers > 1 else [passed.features]
        fits = attention.maps.weight.shape[1::-1]
        needed = sum(f.shape[1] for f in features), passed.logits.shape[1]
        if tuple(fits) != needed:
            raise AttentionError(
                f"the module of {METHODS[key].label} reads {fits[0]} channels and has {fits[1]} "
                f"classes, but the network has {needed[0]} and {needed[1]}: train it again"
            )
        return min_max(of_classes(attention(features), passed.targets))


# --- files ----------------------------------------------------------------------------------


def save_attention(
    path: Path, key: str, attention: nn.Module, facts: Mapping[str, str], half: bool = False
) -> None:
    """Write a trained module as safetensors.

    facts : its provenance, as strings. "variant" and "weights" (the SHA-256 of the network's
            weights) are required
    half  : whether to use float16, which keeps the file small
    """
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in attention.state_dict().items()
    }
    with write_atomically(path) as partial:
        # Written here, so that a full disk raises OSError, as for any other file.
        partial.write_bytes(save(tensors, {"attention": key, **facts}))


def load_attention(path: Path, key: str, variant: str, weights: str) -> nn.Module:
    """Load a trained module; it is frozen and in eval mode.

    variant, weights : the network that it must have been trained for, as in `save_attention`
    Raises AttentionError for a missing or damaged file, or a file for another network or method.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        model = variant.removesuffix("_dcls")
        if model in BACKBONES:
            model = shlex.quote(BACKBONES[model].named or model)
        command = training_command(model, key, path.is_relative_to(DEMO))
        raise AttentionError(
            f"no attention weights at {shown(path)}: `{command}`, see docs/lcam.md"
        ) from None
    except OSError as error:  # no permission, no file, …: the content is not at fault
        raise AttentionError(f"{shown(path)} cannot be read: {error}") from error
    except Exception as error:  # safetensors raises its own, undocumented exceptions
        raise AttentionError(f"{shown(path)} is damaged: {error}") from error
    wanted = {"attention": key, "variant": variant, "weights": weights}
    for name, value in wanted.items():
        if facts.get(name) != value:
            raise AttentionError(
                f"{shown(path)} was trained for {name} {facts.get(name)!r}, not {value!r}: "
                "train it again for this network"
            )
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise AttentionError(f"{shown(path)} holds numbers that are not finite: train it again")
    try:
        channels, classes = _shape_of(tensors)
        if len(channels) != ATTENTIONS[key].layers:
            raise ValueError(f"it reads {len(channels)} layers instead of {ATTENTIONS[key].layers}")
        attention = ATTENTIONS[key].module(channels, classes)
        attention.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor
                                   for name, tensor in tensors.items()})  # fmt: skip
    except (RuntimeError, ValueError, IndexError) as error:
        raise AttentionError(f"{shown(path)} does not fit {key}: {error}") from error
    return attention.eval().requires_grad_(False)


def _shape_of(tensors: Mapping[str, Tensor]) -> tuple[list[int], int]:
    """The number of channels of each layer, and the number of classes."""
    maps = tensors.get("maps.weight", torch.empty(0, 0))
    branches = [t.shape[0] for name, t in sorted(tensors.items()) if name.endswith("conv.weight")]
    return branches or [maps.shape[1]], maps.shape[0]
