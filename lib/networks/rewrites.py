"""Exact rewrites of a network for faster forward passes, and the choice of the fastest here.

Each computes the same function; only the order of float32 sums differs. Which is fastest
depends on processor and network, so a short measurement chooses the form of a full-size network.
The result is remembered.
"""

from __future__ import annotations

import contextlib
import copy
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from timm.models.fastvit import RepConditionalPosEnc
from timm.models.metaformer import SepConv, StarReLU
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..base.files import write_json
from ..base.paths import OUTPUT
from ..base.stored_json import DamagedJson, mapping, of_each, read_json

FORMS = OUTPUT / "forms.json"
PROBED_BATCH = 8
ROUNDS = 3
_SAME = 1e-4  # of the largest feature: the tolerance for reordered float32 sums


@dataclass(frozen=True)
class Form:
    """How a network is rewritten.

    channels_last  : whether its memory layout is channels-last
    linear_as_conv : whether linear layers over pixels become 1x1 convolutions
    wide_channels_last : whether depthwise convolutions of more than 7 x 7 work channels-last in a
                     network that otherwise does not
    fused          : whether batch norms are folded into convolutions, parallel branches into one,
                     MetaFormers' activations into the layers after them
    """

    channels_last: bool = True
    linear_as_conv: bool = False
    fused: bool = False
    wide_channels_last: bool = False

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


PLAIN = Form(channels_last=False)
# For a user's own networks: nothing is removed or merged, whatever the forward does.
LAYOUTS = (PLAIN, Form())
# For the embedded networks, whose forward passes are too short, or too few, to be measured.
MINI_FORM = Form(fused=True)


class LinearAsConv(nn.Module):
    """A linear layer over the last axis as a 1x1 convolution on the channels-last view."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight[:, :, None, None]
        self.weight = nn.Parameter(weight.detach(), requires_grad=linear.weight.requires_grad)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 3:
            return F.linear(x, self.weight.flatten(1), self.bias)
        pixels = x.reshape(x.shape[0], -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
        y = F.conv2d(pixels, self.weight, self.bias).permute(0, 2, 3, 1)
        return y.reshape(*x.shape[:-1], y.shape[-1])


def _inner_linears(network: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers before the head, by name."""
    ends = [getattr(network, name) for name in ("head", "fc") if hasattr(network, name)]
    head = {id(module) for end in ends for module in end.modules()}
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in head
    }


def _with_linear_as_conv(network: nn.Module) -> nn.Module:
    for name, linear in _inner_linears(network).items():
        network.set_submodule(name, LinearAsConv(linear))
    return network


def _fused(network: nn.Module) -> nn.Module:
    """Fold batch norms into the convolutions before them, and FastViT's branches into one."""
    for module in network.modules():
        if isinstance(module, RepConditionalPosEnc):  # timm assumes the plain network's 7x7
            module.spatial_shape = module.pos_enc.kernel_size
    network = _with_stars_taken_over(reparameterize_model(network, inplace=True))
    for parent in list(network.modules()):
        before: tuple[str, nn.Module] = ("", nn.Identity())
        for name, child in list(parent.named_children()):
            kind, conv = before
            if (
                isinstance(child, nn.BatchNorm2d)
                and isinstance(conv, nn.Conv2d)
                and conv.out_channels == child.num_features
            ):
                setattr(parent, kind, fuse_conv_bn_eval(conv, child))
                setattr(parent, name, getattr(child, "act", nn.Identity()))
            before = (name, child)
    return network


class SquaredReLU(nn.Module):
    """relu(x)² + bias: a MetaFormer's StarReLU whose scale the next layer has absorbed.

    If no gradient is recorded it works in place, because only the layer before it uses its input.
    Four passes over a network's largest tensors then become two or three.
    """

    def __init__(self, bias: Tensor | None):
        super().__init__()
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x, inplace=not torch.is_grad_enabled())
        x = x.square() if torch.is_grad_enabled() else x.square_()
        return x if self.bias is None else x.add_(self.bias)


def _with_stars_taken_over(network: nn.Module) -> nn.Module:
    """Absorb StarReLU, scale · relu(x)² + bias, into the next layer: its weights take the scale
    and, unless zero padding is between them, its bias takes the bias."""
    for module in network.modules():
        if (
            isinstance(module, Mlp)
            and _is_star(module.act)
            and isinstance(module.norm, nn.Identity)
        ):
            module.act = _taken_over(module.act, module.fc2, padded=False)
        elif isinstance(module, SepConv) and _is_star(module.act1):
            module.act1 = _taken_over(module.act1, module.dwconv, padded=True)
    return network


def _is_star(module: nn.Module) -> bool:
    return isinstance(module, StarReLU) and bool(module.scale != 0)


@torch.no_grad()
def _taken_over(star: StarReLU, layer: nn.Linear | nn.Conv2d, padded: bool) -> SquaredReLU:
    if padded:
        bias = (star.bias / star.scale).detach().clone()
    else:
        bias, added = None, star.bias * layer.weight.flatten(1).sum(dim=1)
        layer.bias = nn.Parameter(added if layer.bias is None else layer.bias + added)
    layer.weight.mul_(star.scale)
    return SquaredReLU(bias)


def written(network: nn.Module, form: Form, in_place: bool = False) -> nn.Module:
    """Return a folded network in eval mode, in that form: a copy, unless `in_place`."""
    network = (network if in_place else copy.deepcopy(network)).eval()
    if form.fused:
        network = _fused(network)
    if form.linear_as_conv:
        network = _with_linear_as_conv(network)
    if form.wide_channels_last:
        _set_wide_channels_last(network)
    return network.to(memory_format=form.layout)


class ChannelsLast(nn.Module):
    """A single layer that works channels-last."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.contiguous(memory_format=torch.channels_last)).contiguous()


def _set_wide_channels_last(network: nn.Module) -> None:
    wide = [
        name for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.stride == (1, 1)
        and layer.groups == layer.in_channels == layer.out_channels and layer.kernel_size[0] > 7
    ]  # fmt: skip
    for name in wide:
        network.set_submodule(name, ChannelsLast(network.get_submodule(name)))


# --- which form wins ----------------------------------------------------------------------


def candidates(network: nn.Module) -> list[Form]:
    """Return the forms that are worth measuring for this network."""
    norms = any(isinstance(module, nn.BatchNorm2d | StarReLU) for module in network.modules())
    choices = (True, False), (True, False), (True, False)
    return [
        Form(*form)
        for form in product(*choices)
        if (not form[1] or _inner_linears(network)) and (not form[2] or norms)
    ]


def form_to_compile(network: nn.Module) -> Form:
    """Return the form that was fastest, or equally fast, when the sixteen variants were compiled:
    every rewrite, channels-last (17 x 17 depthwise convolutions require it)."""
    return max(candidates(network), key=lambda f: (f.channels_last, f.fused, f.linear_as_conv))


@torch.inference_mode()
def seconds_of(network: nn.Module, x: Tensor) -> tuple[float, Tensor]:
    started = time.perf_counter()
    features = getattr(network, "forward_features", network)(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - started, features


def fastest_form(network: nn.Module, side: int, forms: Sequence[Form] = ()) -> Form:
    """Return the form with the shortest forward pass here, without forms that fail or that
    compute something else.

    network : folded, in eval mode, on its device
    side    : the side of its input images in pixels
    forms   : to choose from; empty for all `candidates`
    """
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(PROBED_BATCH, 3, side, side, generator=generator).to(device)
    _, expected = seconds_of(network, x)
    tried = {form: written(network, form) for form in forms or candidates(network)}
    inputs = {form: x.contiguous(memory_format=form.layout) for form in tried}
    for form in list(tried):  # also warms up
        try:
            _, features = seconds_of(tried[form], inputs[form])
            same = (features - expected).abs().max() <= _SAME * expected.abs().max()
        except RuntimeError:  # for example a view that this layout does not allow
            same = False
        if not same:
            del tried[form]
    best = dict.fromkeys(tried, float("inf"))
    for _ in range(ROUNDS):
        for form in tried:
            seconds, _ = seconds_of(tried[form], inputs[form])
            best[form] = min(best[form], seconds)
    return min(best, key=best.__getitem__) if best else PLAIN


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{processor()}, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}"


def processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    return platform.processor() or platform.machine()


def remembered_form(
    network: nn.Module,
    name: str,
    side: int,
    remembered: Path = FORMS,
    forms: Sequence[Form] = (),
) -> Form:
    """Return `fastest_form`, measured once per machine and variant.

    `data/output/forms.json` may be deleted at any time.
    """
    key = f"{name}, {side} px, {_machine(next(network.parameters()).device)}"
    known = _read(remembered)
    if key in known:
        return Form(**known[key])
    form = fastest_form(network, side, forms)
    with contextlib.suppress(OSError):
        write_json(remembered, _read(remembered) | {key: asdict(form)})
    return form


def _read(remembered: Path) -> dict[str, dict]:
    choices = {name: {"type": "boolean"} for name in asdict(PLAIN)}
    try:
        return read_json(remembered, of_each(mapping(choices) | {"additionalProperties": False}))
    except (OSError, DamagedJson):
        return {}  # missing or damaged: forms are measured again
