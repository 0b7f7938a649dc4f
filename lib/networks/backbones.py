"""The study's backbones: one table, with one row per backbone.

Everything that differs between backbones is in its row: where the weights come
from, which convolutions DCLS replaces, how an image is prepared, how the
backbone is drawn. Loading, conversion, scoring, figures and tests iterate over
the table, so adding a backbone means adding a row.

This module does not import torch, so that drawing and checking parameters stay
fast; `load_model` imports it when called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..base.geometry import Preprocessing
from ..base.tables import Table


@dataclass(frozen=True)
class DclsRecipe:
    """How DCLS replaces a backbone's convolutions.

    kernel_count : learnable points per kernel
    size         : side of the square that the points may occupy, in cells of the feature map
    version      : "v0" or "v1", the interpolation of the DCLS package
    replaces     : which convolutions are replaced, a predicate on a Conv2d
    """

    kernel_count: int
    size: int
    version: str
    replaces: Callable[[Any], bool]


@dataclass(frozen=True, eq=False)  # one row is one backbone: compared by identity
class Backbone:
    """One row of the table.

    key         : the name used everywhere: options, file names, data frames
    label       : the name drawn in figures and tables
    family      : backbones of one family share an architecture class
    timm_tag    : the baseline's pretrained weights, named explicitly because
                  timm's defaults may differ
    dcls        : the conversion recipe; None for a backbone without a DCLS form
    preprocessing : input geometry
    colour      : its colour in every figure (Okabe and Ito's, safe for colour-blind readers, and
                  grey)
    mini        : architecture arguments of the embedded example's miniature; empty if there is none
    head_norm_eps : value for the classifier head's norm if the original differs from timm;
                  None if it does not
    pair_of     : "" for the study's eight; otherwise the one of them with whose DCLS weights
                  this row's baseline, trained by their recipe, makes a fairer pair
    top1        : published ImageNet top-1 in % of its weights without and with DCLS; None if
                  nothing is published
    layer       : the name of the module whose output makes the heatmaps; "" for the end of timm's
                  `forward_features`
    channels_last : whether its features are (image, h, w, channel)
    around      : whether the layer is watched rather than cut at (`lib.networks.taps`), because a
                  connection bypasses it or its forward cannot be followed
    reshape     : arranges its layer's output as (image, channel, h, w); None to use its shape
    embedded    : whether its weights come with the project, for the profile that names it
    arguments   : arguments of timm's function that makes the network, besides its own
    build       : makes the network for a number of classes; None for timm's tag
    weights, weights_dcls : weights files, if they are not the study's own
    origin      : SHA-256 of the user's file that added it, or of what its name stands for; ""
                  for the study's own
    compared    : whether a full run includes it; the others serve only L-CAM's published settings
    named       : the text by which options name it, which makes the same row in another process:
                  "timm:resnet18.a1_in1k", "untrained:resnet18", "resnet50@/runs/a/epoch_3.pth#3";
                  "" for a row of the table
    series      : the training to which its weights belong: its folder's name, "" for none
    stage       : the stage of that training, the number in the file's name; None for none
    untrained   : whether it has random weights from a fixed seed, without a file: a control, not
                  a result
    """

    key: str
    label: str
    family: str
    timm_tag: str
    dcls: DclsRecipe | None
    preprocessing: Preprocessing
    colour: str
    mini: Mapping[str, Any] = field(repr=False, default_factory=dict)
    head_norm_eps: float | None = None
    pair_of: str = ""
    top1: tuple[float | None, float | None] = (None, None)
    layer: str = ""
    channels_last: bool = False
    around: bool = False
    reshape: Callable[[Any], Any] | None = field(repr=False, default=None)
    compared: bool = True
    embedded: bool = False
    arguments: Mapping[str, Any] = field(repr=False, default_factory=dict)
    build: Callable[[int], Any] | None = field(repr=False, default=None)
    weights: str = ""
    weights_dcls: str = ""
    origin: str = ""
    named: str = ""
    series: str = ""
    stage: int | None = None
    untrained: bool = False

    @property
    def forms(self) -> tuple[bool, ...]:
        """Its variants: plain, and DCLS if there is a recipe."""
        return (False, True) if self.dcls else (False,)

    def titled(self, dcls: bool) -> str:
        """Return the label of one of its variants."""
        return self.label + " + DCLS" * dcls

    def form_name(self, dcls: bool) -> str:
        """Return which variant it is, in words; the label for a model with one variant."""
        if not self.dcls:
            return self.label
        return "with DCLS" if dcls else "without DCLS"

    @property
    def timm_name(self) -> str:
        """The architecture's name in timm's registry, without the weights' tag."""
        return self.timm_tag.split(".")[0]


def _is_dense_3x3(conv) -> bool:
    return conv.kernel_size == (3, 3) and conv.groups == 1


def _is_depthwise(conv) -> bool:
    return conv.groups == conv.in_channels == conv.out_channels


def _is_depthwise_7x7(conv) -> bool:
    return _is_depthwise(conv) and conv.kernel_size == (7, 7)


_CONVNEXT_INPUT = Preprocessing(resize=256, crop=224)
_METAFORMER_INPUT = Preprocessing(resize=224, crop=224)
_RESNET_INPUT = Preprocessing(resize=235, crop=224)
_FASTVIT_INPUT = Preprocessing(resize=256, crop=256)

BACKBONES: Table[Backbone] = Table(
    "model",
    [
        Backbone(
            "resnet50", "ResNet-50", "resnet", "resnet50.a1_in1k",
            DclsRecipe(5, 7, "v0", _is_dense_3x3), _RESNET_INPUT, "#666666",
            mini=dict(layers=(1, 1, 2, 1), channels=(16, 32, 48, 64)), top1=(80.38, None),
        ),
        Backbone(
            "convnext_tiny", "ConvNeXt-T", "convnext", "convnext_tiny.fb_in1k",
            DclsRecipe(34, 17, "v0", _is_depthwise), _CONVNEXT_INPUT, "#56B4E9",
            mini=dict(depths=(1, 1, 2, 1), dims=(16, 32, 64, 96), ls_init_value=0.1),
            top1=(82.1, 82.5),
        ),
        Backbone(
            "convnext_small", "ConvNeXt-S", "convnext", "convnext_small.fb_in1k",
            DclsRecipe(40, 17, "v0", _is_depthwise), _CONVNEXT_INPUT, "#0072B2",
            mini=dict(depths=(1, 1, 3, 1), dims=(16, 32, 64, 112), ls_init_value=0.1),
            top1=(83.1, 83.7),
        ),
        Backbone(
            "convnext_base", "ConvNeXt-B", "convnext", "convnext_base.fb_in1k",
            DclsRecipe(40, 17, "v0", _is_depthwise), _CONVNEXT_INPUT, "#CC79A7",
            mini=dict(depths=(1, 1, 3, 1), dims=(24, 48, 80, 128), ls_init_value=0.1),
            top1=(83.8, 84.1),
        ),
        Backbone(
            "caformer_s18", "CAFormer-S18", "metaformer", "caformer_s18.sail_in1k",
            DclsRecipe(34, 17, "v1", _is_depthwise), _METAFORMER_INPUT, "#D55E00",
            mini=dict(depths=(1, 1, 2, 1), dims=(16, 32, 64, 96),
                      token_mixers=("SepConv", "SepConv", "Attention", "Attention"),
                      norm_layers=("LayerNorm2dNoBias",) * 2 + ("LayerNormNoBias",) * 2),
            top1=(83.6, None),
        ),
        Backbone(
            "convformer_s18", "ConvFormer-S18", "metaformer", "convformer_s18.sail_in1k",
            DclsRecipe(40, 17, "v1", _is_depthwise), _METAFORMER_INPUT, "#E69F00",
            mini=dict(depths=(1, 1, 2, 1), dims=(16, 32, 64, 96),
                      token_mixers=("SepConv",) * 4, norm_layers=("LayerNorm2dNoBias",) * 4),
            head_norm_eps=1e-5, top1=(83.0, None),
        ),
        Backbone(
            "fastvit_sa24", "FastViT-sa24", "fastvit", "fastvit_sa24.apple_in1k",
            DclsRecipe(34, 17, "v1", _is_depthwise_7x7), _FASTVIT_INPUT, "#009E73",
            mini=dict(layers=(1, 1, 2, 1), embed_dims=(16, 32, 64, 128),
                      mlp_ratios=(2, 2, 2, 2), layer_scale_init_value=0.1),
            top1=(82.7, None),
        ),
        Backbone(
            "fastvit_sa36", "FastViT-sa36", "fastvit", "fastvit_sa36.apple_in1k",
            DclsRecipe(34, 17, "v1", _is_depthwise_7x7), _FASTVIT_INPUT, "#F0E442",
            mini=dict(layers=(1, 1, 3, 1), embed_dims=(16, 32, 64, 128),
                      mlp_ratios=(2, 2, 2, 2), layer_scale_init_value=0.1),
            top1=(83.6, None),
        ),
    ],
)  # fmt: skip
THE_EIGHT = tuple(BACKBONES.values())
# DCLS-ResNet-50 was trained by the A3 recipe, but the study's baseline by the longer A1.
BACKBONES.add(
    replace(
        BACKBONES["resnet50"], key="resnet50_a3", label="ResNet-50 (A3)",
        timm_tag="resnet50.a3_in1k", colour="#000000", pair_of="resnet50", top1=(78.05, None),
    )
)  # fmt: skip
# The networks of L-CAM's own study. VGG-16's heatmaps use its last convolution (rectified), or the
# output of the last pooling.
BACKBONES.add(
    Backbone(
        "vgg16", "VGG-16", "vgg", "vgg16.tv_in1k", None, _CONVNEXT_INPUT, "#999999",
        layer="features.29", compared=False,
    )
)  # fmt: skip
BACKBONES.add(
    replace(BACKBONES["vgg16"], key="vgg16_pooled", label="VGG-16 (pooled)", layer="features.30")
)
# The network of the gaze profile; its weights come with the project. It pads like TensorFlow.
BACKBONES.add(
    Backbone(
        "mobilenetv2_100", "MobileNetV2", "mobilenetv2", "mobilenetv2_100", None,
        Preprocessing(resize=256, crop=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)), "#009E73",
        embedded=True, arguments=dict(pad_type="same"),
    )
)  # fmt: skip


def variant_name(key: str, dcls: bool) -> str:
    """Return the name of one of a backbone's two variants: "resnet50" or "resnet50_dcls"."""
    return f"{key}_dcls" if dcls else key
