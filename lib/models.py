"""The sixteen variants as networks split where the study takes its maps.

timm's `forward_features` and `forward_head` meet at exactly the study's layer in
all four families: ConvNeXt's and MetaFormer's last stage before the final norm,
ResNet's layer4, FastViT's final expansion convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models import metaformer
from torch import Tensor, nn

from lib.backbones import BACKBONES, Backbone, Preprocessing, variant_name
from lib.checkpoints import MissingWeights, load_weights
from lib.compiled import CompiledForward
from lib.dcls import convert_to_dcls, fold_dcls
from lib.files import write_atomically
from lib.fingerprint import sha256_of
from lib.paths import DEMO
from lib.precision import PRECISIONS
from lib.rewrites import (
    LAYOUTS,
    MINI_FORM,
    PLAIN,
    Form,
    form_to_compile,
    remembered_form,
    written,
)
from lib.sources import WEIGHTS_SUFFIXES
from lib.split import split_at
from lib.tables import unknown_name
from lib.threads import each


@dataclass(frozen=True)
class Provenance:
    """Where a model's weights come from.

    source       : "random", "file", or timm's tag
    path, sha256 : of the weights file, None where there is none
    architecture : "full" or "mini"
    note         : what a reader must know, e.g. that the weights are random
    """

    variant: str
    source: str
    architecture: str
    path: str | None = None
    sha256: str | None = None
    note: str = ""


def resize_pictures(pictures: np.ndarray, geometry: Preprocessing) -> np.ndarray:
    """Bicubic resize and centre crop: (image, 224, 224, 3) uint8 to the crop's side.

    Resizing is PIL's on uint8, as in the study; a tensor resize differs from it
    by up to 0.05 normalised units. Raises ValueError naming a wrong shape or type.
    """
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
        raise ValueError(
            "pictures must be (image, height, width, 3) uint8, "
            f"got {pictures.shape} {pictures.dtype}"
        )
    side = geometry.resize
    if len(pictures) and pictures.shape[1:3] != (side, side):
        bicubic = Image.Resampling.BICUBIC
        pictures = np.stack(
            each(lambda p: np.asarray(Image.fromarray(p).resize((side, side), bicubic)), pictures)
        )
    window = geometry.window(side)
    return np.ascontiguousarray(pictures[:, window, window])


def prepare_pixels(
    pixels: Tensor,
    geometry: Preprocessing,
    layout: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """(image, side, side, 3) uint8 -> (image, 3, side, side) float32, normalised."""
    return normalised(pixels.to(torch.float32).div_(255).permute(0, 3, 1, 2), geometry, layout)


def normalised(pictures: Tensor, geometry: Preprocessing, layout: torch.memory_format) -> Tensor:
    """(image, 3, side, side) in 0-1 -> as networks take it."""
    mean, std = (
        torch.tensor(values, device=pictures.device)[:, None, None]
        for values in (geometry.mean, geometry.std)
    )
    # Channels-last in memory as it may be; FastViT's training crashes on that.
    return (pictures - mean).div_(std).contiguous(memory_format=layout)


def _channels_second(features: Callable, head: Callable) -> tuple[Callable, Callable]:
    """Both halves of a network whose features are (image, h, w, channel)."""
    return (
        lambda x: features(x).permute(0, 3, 1, 2),
        lambda found: head(found.permute(0, 2, 3, 1)),
    )


class StudyModel(nn.Module):
    """A network split at the study's layer.

    features(x)     : (image, 3, side, side) -> (image, channel, h, w)
    head(features)  : -> (image, class) logits; head(features(x)) is the network
    prepare(pictures) : uint8 pictures -> x
    layers(x)       : features of three layers, the study's last
    attentions      : {method: module} of learned attention maps, see `lib.attention`
    """

    form = PLAIN
    precision = "float32"
    attentions: Mapping[str, nn.Module] = {}

    def __init__(self, network: nn.Module, backbone: Backbone, provenance: Provenance):
        super().__init__()
        self.network = network
        features, head = (
            split_at(network, backbone.layer)
            if backbone.layer
            else (network.forward_features, network.forward_head)
        )
        if backbone.channels_last:
            features, head = _channels_second(features, head)
        self._whole_features, self._head = features, head
        self._forward_features = self._whole_features
        self.backbone = backbone
        self.provenance = provenance

    @property
    def variant(self) -> str:
        return self.provenance.variant

    def features(self, x: Tensor) -> Tensor:
        return self._features_by(self._forward_features, x)

    def _features_by(self, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """In the chosen precision."""
        if self.precision == "float32":
            return forward(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return forward(x).float()

    def head(self, features: Tensor) -> Tensor:
        return self._head(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def prepare(self, pictures: np.ndarray) -> Tensor:
        """Pictures as the network wants them, on its device and in its layout."""
        resized = resize_pictures(pictures, self.backbone.preprocessing)
        return self.prepare_pixels(torch.from_numpy(resized))

    def prepare_pixels(self, pixels: Tensor) -> Tensor:
        """The same for (image, side, side, 3) uint8 that are resized and cropped already."""
        here = pixels.to(next(self.parameters()).device, non_blocking=True)
        return prepare_pixels(here, self.backbone.preprocessing, self.form.layout)

    def normalised(self, pictures: Tensor) -> Tensor:
        """The same for (image, 3, side, side) in 0-1, on the network's device."""
        return normalised(pictures, self.backbone.preprocessing, self.form.layout)

    def layers(self, x: Tensor) -> list[Tensor]:
        """Features of the three last stages, (image, channel, h, w) each, the study's layer
        the last of them."""
        stages = self._stages()[-3:-1]
        seen: list[Tensor] = []
        last = self.backbone.channels_last

        def note(_stage: nn.Module, _given: object, made: Tensor) -> None:
            seen.append(made.permute(0, 3, 1, 2) if last else made)

        hooks = [stage.register_forward_hook(note) for stage in stages]
        try:
            # Not the compiled forward: hooks would be compiled in, or left out.
            features = self._features_by(self._whole_features, x)
        finally:
            for hook in hooks:
                hook.remove()
        return [*(layer.to(features.dtype) for layer in seen), features]

    def for_backward(self, precision: str = "float32") -> StudyModel:
        """The same function, ready for gradients of the input through the whole network."""
        own = bool(self.backbone.origin)  # it may hold what FastViT does
        if self.backbone.family != "fastvit" and not own:
            return self.for_inference(precision)
        form = Form(channels_last=False, fused=not own, wide_channels_last=True)
        return self.for_inference(precision, form=form)

    def _stages(self) -> list[nn.Module]:
        """In the order of the forward, the study's layer's the last. Raises ValueError where
        neither the network nor timm names stages."""
        if hasattr(self.network, "stages") and not self.backbone.layer:
            return list(self.network.stages)
        if not hasattr(self.network, "feature_info"):
            raise ValueError(
                f"{self.variant} names no stages, of which TAME reads three: give the network "
                "`stages`, or leave TAME out"
            )
        # Where timm's own description of the network says that a size of the maps ends.
        names = [info["module"] for info in self.network.feature_info]
        if self.backbone.layer in names:
            names = names[: names.index(self.backbone.layer) + 1]
        return [self.network.get_submodule(name) for name in names]

    def folded(self) -> StudyModel:
        """The same function with every DCLS kernel folded into a plain convolution."""
        return self.with_network(fold_dcls(self.network))

    def with_network(self, network: nn.Module) -> StudyModel:
        """Another network in this one's place, in eval mode, as it is written (`PLAIN`)."""
        model = StudyModel(network, self.backbone, self.provenance).eval()
        model.attentions, model.precision = self.attentions, self.precision
        return model

    def for_inference(
        self,
        precision: str = "float32",
        compiled: bool = False,
        form: Form | None = None,
        keep_plain: bool = False,
    ) -> StudyModel:
        """Folded and rewritten for fast forwards: what scores and maps are made with.

        precision : of the features, a key of `PRECISIONS`
        compiled  : by torch.compile, at the first forwards
        form      : how the network is written; None takes what was measured to be the
                    fastest here (`lib.rewrites`), and measures it the first time; of a
                    network that is compiled, what compiles best
        keep_plain : also as `plain`, only folded, for methods that ask for it

        Not for a backward through the network: on a CPU FastViT's crashes channels-last, see
        `for_backward`. `lib.cam` differentiates the head only, and is safe.
        """
        folded = self.folded()
        origin = self.backbone.origin
        if form is None and self.provenance.architecture == "mini":
            form = MINI_FORM
        elif form is None and origin:
            side, name = self.backbone.preprocessing.crop, f"{self.variant} {origin[:12]}"
            form = remembered_form(folded.network, name, side, forms=LAYOUTS)
        elif form is None and compiled:
            form = form_to_compile(folded.network)
        elif form is None:
            side = self.backbone.preprocessing.crop
            form = remembered_form(folded.network, self.variant, side)
        model = self.with_network(written(folded.network, form))
        model.form, model.precision = form, PRECISIONS[precision].key
        if keep_plain:
            object.__setattr__(model, "plain", folded)  # no part of it, whose parameters count
        if compiled:
            device = next(model.parameters()).device
            model._forward_features = CompiledForward(model._whole_features, device, form.layout)
        return model


def count_parameters(model: nn.Module) -> int:
    """Learnable parameters, each shared tensor counted once."""
    return sum(p.numel() for p in model.parameters())


def _metaformer_mini(mini: Mapping[str, Any], num_classes: int) -> nn.Module:
    # timm's entry points fix depth and width of MetaFormers: only the class takes them.
    layers = {k: [getattr(metaformer, n) for n in mini[k]] for k in ("token_mixers", "norm_layers")}
    return metaformer.MetaFormer(**{**mini, **layers}, num_classes=num_classes)


def build_network(
    backbone: Backbone, dcls: bool, *, mini: bool = False, num_classes: int = 1000, **options
) -> nn.Module:
    """A variant's network with fresh random weights, from torch's global generator.

    options : passed on to timm's model
    """
    if backbone.build is not None:
        network = backbone.build(num_classes)
    elif not mini or backbone.origin:
        network = timm.create_model(backbone.timm_name, num_classes=num_classes, **options)
    elif backbone.family == "metaformer":
        network = _metaformer_mini(backbone.mini, num_classes)
    else:
        network = timm.create_model(
            backbone.timm_name, pretrained=False, num_classes=num_classes, **backbone.mini
        )
    return _finished(network, backbone, dcls)


def _finished(network: nn.Module, backbone: Backbone, dcls: bool) -> nn.Module:
    """Set what timm's architecture does otherwise than the original's; convert."""
    if dcls and backbone.dcls is None:
        raise ValueError(f"{backbone.label} has no DCLS form")
    if backbone.head_norm_eps is not None:
        network.head.fc.norm.eps = backbone.head_norm_eps
    return convert_to_dcls(network, backbone.dcls) if dcls else network


def weightless(backbone: Backbone) -> torch.device:
    """Where a network is built to be counted only. A reader's own function makes a real one:
    it may ask for a number."""
    return torch.device("cpu" if backbone.build else "meta")


@cache
def parameter_counts(backbone: Backbone, *, mini: bool, classes: int) -> dict[bool, int]:
    """{dcls: learnable parameters}, shared positions counted once; makes no weights."""
    with weightless(backbone):
        return {
            dcls: count_parameters(build_network(backbone, dcls, mini=mini, num_classes=classes))
            for dcls in backbone.forms
        }


def save_weights(network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a state dict as safetensors, in float16 to keep files small.

    Shared positions are written once per layer, as the published checkpoints do.
    """
    tensors = {}
    for name, tensor in network.state_dict().items():
        kind = torch.float16 if tensor.is_floating_point() else tensor.dtype
        tensors[name] = tensor.to(kind).clone(memory_format=torch.contiguous_format)
    with write_atomically(path) as partial:
        save_file(tensors, partial, metadata=dict(metadata))


def demo_weights_path(key: str, dcls: bool) -> Path:
    return DEMO / "checkpoints" / f"{variant_name(key, dcls)}.safetensors"


def _demo_network(backbone: Backbone, dcls: bool) -> tuple[nn.Module, Provenance]:
    path = demo_weights_path(backbone.key, dcls)
    if not path.is_file():
        raise MissingWeights(
            f"the embedded example's weights {path} are missing: "
            "restore them with `git checkout -- data/demo` or make them with `make demo-data`"
        )
    num_classes = len((DEMO / "classes.txt").read_text(encoding="utf-8").splitlines())
    network = build_network(backbone, dcls, mini=True, num_classes=num_classes)
    load_weights(network, path, backbone.family)
    provenance = Provenance(
        variant_name(backbone.key, dcls), "file", "mini", str(path), sha256_of(path),
        "miniature trained on the embedded example's procedural pictures",
    )  # fmt: skip
    return network, provenance


def _random_network(backbone: Backbone, dcls: bool) -> tuple[nn.Module, Provenance]:
    name = variant_name(backbone.key, dcls)
    note = "random weights: for checks of software, never for results"
    return build_network(backbone, dcls), Provenance(name, "random", "full", note=note)


def _timm_network(backbone: Backbone, dcls: bool) -> tuple[nn.Module, Provenance]:
    if dcls:
        raise ValueError(
            f"timm publishes no DCLS weights for {backbone.key!r}; weights='timm' is for baselines"
        )
    network = _finished(timm.create_model(backbone.timm_tag, pretrained=True), backbone, dcls)
    return network, Provenance(backbone.key, backbone.timm_tag, "full")


def load_model(
    key: str, dcls: bool = False, weights: str | Path = "random", container: str = ""
) -> StudyModel:
    """One of the sixteen variants, in eval mode.

    key     : a row of `BACKBONES`
    dcls    : with its convolutions replaced by learnable-spacing ones
    weights : "demo", the embedded example's trained miniature; "random", full
              size and untrained; "timm", the baseline's published weights through
              timm's hub; or a path to a file of the full-size variant: safetensors,
              or a published checkpoint in its original naming
    container : the entry of a checkpoint that holds the weights; "" looks for it
    Raises  : UnknownName for an unknown key or word, MissingWeights, ValueError
              for a file that does not fit
    """
    backbone = BACKBONES[key]
    loaders = {"demo": _demo_network, "random": _random_network, "timm": _timm_network}
    if isinstance(weights, Path) or str(weights).endswith(WEIGHTS_SUFFIXES):
        return load_weights_file(key, dcls, Path(weights), container)
    if weights not in loaders:
        raise unknown_name("weights", weights, loaders)
    network, provenance = loaders[weights](backbone, dcls)
    return StudyModel(network, backbone, provenance).eval()


def load_weights_file(
    key: str, dcls: bool, path: Path, container: str = "", mini: bool = False, classes: int = 1000
) -> StudyModel:
    """A variant with the weights of a file, as `load_model` reads it; of a miniature if asked."""
    backbone = BACKBONES[key]
    network = build_network(backbone, dcls, mini=mini, num_classes=classes)
    load_weights(network, path, backbone.family, container)
    size = "mini" if mini else "full"
    provenance = Provenance(variant_name(key, dcls), "file", size, str(path), sha256_of(path))
    return StudyModel(network, backbone, provenance).eval()
