"""Networks tapped at the layer where a study makes its heatmaps.

For the study's sixteen variants, timm's `forward_features` and `forward_head` meet at exactly
that layer in all four families: ConvNeXt's and MetaFormer's last stage before the final norm,
ResNet's layer4, FastViT's final expansion convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .backbones import Backbone
from .compiled import CompiledForward
from .dcls import fold_dcls
from .precision import PRECISIONS
from .preprocessing import normalised, prepare_pixels, resize_images
from .rewrites import (
    LAYOUTS,
    MINI_FORM,
    PLAIN,
    Form,
    form_to_compile,
    remembered_form,
    written,
)
from .split import split_at
from .taps import Around, Halves, Opened, Tap, answer_of


@dataclass(frozen=True)
class Provenance:
    """Where a model's weights come from.

    source       : "random", "file", or timm's tag
    path, sha256 : the weights file's, None if there is none
    architecture : "full" or "mini"
    note         : what readers must know, for example that the weights are random
    remarks      : deviations of the file that were accepted
    """

    variant: str
    source: str
    architecture: str
    path: str | None = None
    sha256: str | None = None
    note: str = ""
    remarks: tuple[str, ...] = ()


def _channels_second(features: Callable, head: Callable) -> tuple[Callable, Callable]:
    """Return both halves of a network whose features are (image, h, w, channel)."""
    return (
        lambda x: features(x).permute(0, 3, 1, 2),
        lambda found: head(found.permute(0, 2, 3, 1)),
    )


def _halves(network: nn.Module, backbone: Backbone) -> tuple[Callable, Callable]:
    """Return the parts of a network before and after a row's layer."""
    halves = (
        split_at(network, backbone.layer)
        if backbone.layer
        else (network.forward_features, network.forward_head)
    )
    return _channels_second(*halves) if backbone.channels_last else halves


def _watched(network: nn.Module, backbone: Backbone) -> Around:
    """Return a tap at a row's layer in a network that cannot be cut there."""
    prefix = getattr(network, "num_prefix_tokens", None)
    layer = network.get_submodule(backbone.layer)
    return Around(network, layer, prefix, backbone.reshape, f"the layer {backbone.layer!r}")


class StudyModel(nn.Module):
    """A network tapped at the study's layer.

    features(x)     : (image, 3, side, side) -> (image, channel, h, w)
    answered(x, features) : -> (image, class) logits, as if the layer had returned these features
    opened(x)       : a forward pass whose logits can be differentiated at the layer
    head(features)  : only if the network is cut in two: head(features(x)) is the network
    prepare(images) : uint8 images -> x
    layers(x)       : features of three layers, the study's last
    attentions      : {method: module} of learned attention maps, see `lib.maps.learned.attention`
    """

    form = PLAIN
    precision = "float32"
    attentions: Mapping[str, nn.Module] = {}

    def __init__(self, network: nn.Module, backbone: Backbone, provenance: Provenance):
        super().__init__()
        self.network = network
        self._around = _watched(network, backbone) if backbone.around else None
        self._head = None
        if self._around is not None:
            self._whole_features = self._around.features
        else:
            self._whole_features, self._head = _halves(network, backbone)
        self._forward_features = self._whole_features
        self.backbone = backbone
        self.provenance = provenance

    @property
    def variant(self) -> str:
        return self.provenance.variant

    def features(self, x: Tensor) -> Tensor:
        return self._features_by(self._forward_features, x)

    def _features_by(self, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Compute features with this forward, in the chosen precision."""
        if self.precision == "float32":
            return forward(x)
        with self._in_precision(x):
            return forward(x).float()

    def _in_precision(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision != "float32")

    def head(self, features: Tensor) -> Tensor:
        if self._head is None:
            raise ValueError(
                f"{self.variant} cannot be cut in two, as a connection bypasses its layer: use "
                "`answered`"
            )
        return self._head(features)

    def answered(self, x: Tensor, features: Tensor) -> Tensor:
        if self._around is None:
            return self.head(features.clone())  # a user's own network may change them in place
        with self._in_precision(x):
            return self._around.answered(x, features)

    def answering(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return, for one image, a function that answers to many versions of its features."""
        if self._around is None:
            return lambda features: self.answered(x, features)
        with self._in_precision(x):
            answer = self._around.answering(x)

        def answered(features: Tensor) -> Tensor:
            with self._in_precision(x):
                return answer(features)

        return answered

    def opened(self, x: Tensor, features: Tensor | None = None) -> Opened:
        if self._around is None:
            return Halves(self.features, self.head).opened(x, features)
        with self._in_precision(x):
            return self._around.opened(x)

    def forward(self, x: Tensor) -> Tensor:
        if self._around is None:
            return self.head(self.features(x))
        with self._in_precision(x):
            return answer_of(self.network(x))

    def prepare(self, images: np.ndarray) -> Tensor:
        """Return images as the network takes them, on its device and in its layout."""
        resized = resize_images(images, self.backbone.preprocessing)
        return self.prepare_pixels(torch.from_numpy(resized))

    def prepare_pixels(self, pixels: Tensor) -> Tensor:
        """Prepare (image, side, side, 3) uint8 that are already resized and cropped."""
        here = pixels.to(next(self.parameters()).device, non_blocking=True)
        return prepare_pixels(here, self.backbone.preprocessing, self.form.layout)

    def normalised(self, images: Tensor) -> Tensor:
        """Prepare (image, 3, side, side) in 0-1 on the network's device."""
        return normalised(images, self.backbone.preprocessing, self.form.layout)

    def layers(self, x: Tensor) -> list[Tensor]:
        """Return features of the last three stages, (image, channel, h, w) each; the study's layer
        is the last of them."""
        stages = self._stages()[-3:-1]
        seen: list[Tensor] = []
        last = self.backbone.channels_last

        def note(_stage: nn.Module, _given: object, made: Tensor) -> None:
            seen.append(made.permute(0, 3, 1, 2) if last else made)

        hooks = [stage.register_forward_hook(note) for stage in stages]
        try:
            # Not the compiled forward, which would compile hooks in, or drop them.
            features = self._features_by(self._whole_features, x)
        finally:
            for hook in hooks:
                hook.remove()
        return [*(layer.to(features.dtype) for layer in seen), features]

    def layer_taps(self) -> list[Tap]:
        """Return taps at two earlier stages, watched, and at the study's layer, as for `layers`.
        Raises ValueError if there are no stages."""
        prefix = getattr(self.network, "num_prefix_tokens", None)
        earlier = self._stages()[-3:-1]
        return [*(Around(self.network, stage, prefix, name="a stage") for stage in earlier), self]

    def for_backward(self, precision: str = "float32") -> StudyModel:
        """Return the same function, prepared for input gradients through the whole network."""
        own = bool(self.backbone.origin)  # it may contain the same layers as FastViT
        if self.backbone.family != "fastvit" and not own:
            return self.for_inference(precision)
        form = Form(channels_last=False, fused=not own, wide_channels_last=True)
        return self.for_inference(precision, form=form)

    def _stages(self) -> list[nn.Module]:
        """Return the stages in forward order, the study's layer's last. Raises ValueError if
        neither the network nor timm names stages."""
        if hasattr(self.network, "stages") and not self.backbone.layer:
            return list(self.network.stages)
        if not hasattr(self.network, "feature_info"):
            raise ValueError(
                f"{self.variant} names no stages, but TAME and RefineCAM read three: give the "
                "network `stages`, or omit these methods"
            )
        # The positions where timm's description of the network says that a map size ends.
        names = [info["module"] for info in self.network.feature_info]
        if self.backbone.layer in names:
            names = names[: names.index(self.backbone.layer) + 1]
        return [self.network.get_submodule(name) for name in names]

    def folded(self) -> StudyModel:
        """Return the same function with every DCLS kernel folded into a plain convolution."""
        return self.with_network(fold_dcls(self.network))

    def with_network(self, network: nn.Module) -> StudyModel:
        """Return this model with another network, in eval mode and without rewrites (`PLAIN`)."""
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
        """Return the model folded and rewritten for fast forward passes, as for scores.

        precision : of the features, a key of `PRECISIONS`
        compiled  : whether torch.compile compiles it, at the first forward passes
        form      : how the network is rewritten; None for the form that was measured as
                    fastest here (`lib.networks.rewrites`), and is measured the first time; for a
                    compiled network, the form that compiles best
        keep_plain : whether to keep it as `plain`, only folded, for methods that ask for it

        It is not suited to a backward pass through the network: on a CPU FastViT's crashes in
        channels-last layout, see `for_backward`. `lib.maps.forward` differentiates only the head,
        and is safe.
        """
        folded = self.folded()
        origin = self.backbone.origin
        if form is None and (self.provenance.architecture == "mini" or self.backbone.embedded):
            form = MINI_FORM
        elif form is None and origin:
            side, named = self.backbone.preprocessing.crop, self.backbone.named
            # Weights do not matter here: all stages of a training are rewritten alike.
            name = f"{self.backbone.timm_name if named else self.variant} {origin[:12]}"
            form = remembered_form(folded.network, name, side, forms=LAYOUTS)
        elif form is None and compiled:
            form = form_to_compile(folded.network)
        elif form is None:
            side = self.backbone.preprocessing.crop
            form = remembered_form(folded.network, self.variant, side)
        # `folded` is a copy already; only `plain` needs it as it is.
        model = self.with_network(written(folded.network, form, in_place=not keep_plain))
        model.form, model.precision = form, PRECISIONS[precision].key
        if keep_plain:
            object.__setattr__(model, "plain", folded)  # not a submodule: parameters would count
        if compiled and model._around is None:  # a watched layer's forward is not compiled
            device = next(model.parameters()).device
            model._forward_features = CompiledForward(model._whole_features, device, form.layout)
        return model
