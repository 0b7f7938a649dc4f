"""How the conversion to DCLS changed the networks: parameters, kernels, receptive fields.

Source: Luo et al., "Understanding the effective receptive field in deep convolutional neural
networks", NeurIPS 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..networks.backbones import Backbone
from ..networks.building import build_network, parameter_counts, weightless
from ..networks.dcls import dcls_layers, dense_kernel
from ..networks.models import StudyModel
from ..networks.split import evaluating
from ..study.choices import Choices
from ..study.exhibits import held_out
from ..study.study import Study

FULL_SIZE_CLASSES = 1000


def parameter_table(choices: Choices) -> pd.DataFrame:
    """Return the learnable parameters and replaced layers of the chosen backbones, a row each.

    The numbers are those of full-size networks. If the profile uses miniatures, the `here` columns
    have their numbers.
    """
    rows = []
    for backbone in choices.backbones:
        # A user's own network may allow only one number of classes, the profile's.
        classes = choices.profile.classes if backbone.build else FULL_SIZE_CLASSES
        full = parameter_counts(backbone, mini=False, classes=classes)
        with weightless(backbone):
            network = build_network(backbone, backbone.dcls is not None, num_classes=classes)
            replaced = len(dcls_layers(network))
        row = {
            "backbone": backbone.label,
            "replaced layers": replaced,
            "full size": full[False],
            "full size, DCLS": full.get(True),
            "change (%)": round(100 * (full[True] / full[False] - 1), 2) if True in full else None,
        }
        if choices.profile.mini:
            here = parameter_counts(backbone, mini=True, classes=choices.profile.classes)
            row |= {"here": here[False], "here, DCLS": here.get(True)}
        rows.append(row)
    table = pd.DataFrame(rows)
    counts = [name for name in table if name.startswith(("full size", "here"))]
    return table.astype(dict.fromkeys(counts, "Int64"))


def learned_kernels(model: StudyModel, count: int) -> dict[str, np.ndarray]:
    """Return dense kernels of each stage's first DCLS layer: {label: (kernel, size, size)}.

    A stage begins where the positions change. The kernels are those of the first `count` output
    channels and the first input channel.
    """
    seen: set[int] = set()
    kernels = {}
    for name, layer in dcls_layers(model.network).items():
        if id(layer.P) not in seen:
            seen.add(id(layer.P))
            label = f"{name}\n{layer.in_channels} channels"
            kernels[label] = dense_kernel(layer)[:count, 0].cpu().numpy()
    return kernels


def kernel_layers(network: nn.Module) -> list[str]:
    """Return the names of the DCLS layers, or of convolutions wider than a pixel if there are
    none."""
    return list(dcls_layers(network)) or [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1
    ]


def kernels_of(folded: nn.Module, layers: Sequence[str], count: int) -> dict[str, np.ndarray]:
    """Return the kernels of these layers: {layer: (kernel, size, size)}.

    They are those of the first `count` output channels and the first input channel.

    folded : a network without DCLS layers, or with folded ones
    """
    weights = {name: folded.get_submodule(name).weight.detach() for name in layers}
    return {name: weight[:count, 0].cpu().numpy().copy() for name, weight in weights.items()}


def effective_receptive_field(model: StudyModel, x: Tensor, batch_size: int = 8) -> Tensor:
    """Return the mean absolute gradient of the central feature with respect to the input.

    The central cell of the study's layer, summed over channels, is differentiated for every
    image. Absolute gradients are averaged over images and colours.

    x          : (image, 3, side, side), normalised
    batch_size : images differentiated at a time; their activations are in memory meanwhile
    Returns (side, side) with largest value 1. Leaves no gradient on the parameters.
    """
    total = torch.zeros(x.shape[-2:], device=x.device)
    with evaluating(model), torch.enable_grad():
        for part in x.detach().split(batch_size):
            leaf = part.clone().requires_grad_()
            features = model.features(leaf)
            h, w = features.shape[-2:]
            (gradient,) = torch.autograd.grad(features[:, :, h // 2, w // 2].sum(), leaf)
            total += gradient.abs().sum(dim=(0, 1))
    return total / total.max()


def receptive_fields(study: Study, count: int) -> tuple[dict[Backbone, dict[str, np.ndarray]], int]:
    """Return the effective receptive fields of the chosen variants, from some images.

    count : number of images
    Returns ({backbone: {"without DCLS": (side, side), "with DCLS": …}}, number of images used).
    """
    images = held_out(study, count).images
    fields: dict[Backbone, dict[str, np.ndarray]] = {}
    for backbone, dcls in study.networks.there():
        model = study.networks.load_model(backbone.key, dcls).folded()
        field = effective_receptive_field(
            model, model.prepare(images), min(study.choices.batch_size or 8, 8)
        )
        name = "with DCLS" if dcls else "without DCLS"
        fields.setdefault(backbone, {})[name] = field.cpu().numpy()
    return fields, len(images)


@torch.no_grad()
def fold_difference(study: Study, backbone: Backbone) -> float:
    """Return the largest change of a logit by folding, as a share of the largest logit."""
    model = study.networks.load_model(backbone.key, backbone.dcls is not None)
    x = model.prepare(held_out(study, 4).images)
    logits = model(x)
    return float((logits - model.folded()(x)).abs().max() / logits.abs().max())
