"""The CAM methods: one table with a row per method, and the formulas behind them.

Most methods turn the features of the study's layer and the gradient of one logit with respect to
them into a small map. The formulas here use only operations of the given tensors, so this module
does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from ..base.tables import Table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .forward import HeadPass

# The published floor of Threshold-Grad-CAM, as a share of the map's range.
PUBLISHED_FLOOR = 0.3


def min_max(maps: Tensor) -> Tensor:
    """Return (image, h, w) maps, each scaled to 0-1; a constant map becomes 0 everywhere."""
    low = maps.amin(dim=(-2, -1), keepdim=True)
    span = maps.amax(dim=(-2, -1), keepdim=True) - low
    return (maps - low) / span.masked_fill(span == 0, 1)


def grad_cam_family(
    features: Tensor, gradient: Tensor, *, relu_before_mean: bool, floor: float
) -> Tensor:
    """Compute Grad-CAM with its two published changes, each of which can be used alone.

    features, gradient : (image, channel, h, w)
    relu_before_mean   : False keeps Grad-CAM's order, first the mean over channels and
                         then the ReLU; True applies the ReLU to every channel first
    floor              : 0 leaves the map unchanged; above 0 the map is scaled to 0-1 and
                         every value below the floor is raised to it
    Returns (image, h, w), >= 0. A map that is 0 everywhere stays constant and is never NaN; the
    caller counts it.

    Source: Selvaraju et al., ICCV 2017, eq. 1-2; Chamas et al., arXiv 2408.03164,
    whose Threshold-Grad-CAM is relu_before_mean=True, floor=0.3.
    """
    if not 0 <= floor < 1:
        raise ValueError(f"floor must lie in [0, 1), got {floor}")
    weighted = features * gradient.mean(dim=(-2, -1), keepdim=True)
    if relu_before_mean:
        maps = weighted.relu().mean(dim=1)
    else:
        maps = weighted.mean(dim=1).relu()
    return min_max(maps).clamp(min=floor) if floor > 0 else maps


@dataclass(frozen=True)
class CamMethod:
    """A row of the table of methods: how its maps are made.

    small_map : (features, gradient) -> (image, h, w), for methods that need only these
    whole_map : (model, x, `HeadPass`) -> (image, h, w), for other methods
    products  : (model, x, `HeadPass`) -> (image, channel, h, w), for methods that sum products over
                channels. Without the two functions above, the map is this sum with negative values
                set to 0. `lib.maps.combined.smoothed` uses the first component of the products
    forwards  : additional forward passes of the network per image; "channels" for one per channel
                of the layer
    plain     : whether it needs the network as published, not as rewritten for speed
    learned   : whether it needs attention weights trained for each network, see `lib.maps.learned`
    floor     : the value to which lower values of its maps are raised, as a share of their range
    origin    : SHA-256 of the user's file that added it, "" for the study's own methods
    note      : one sentence that readers of its maps must know, "" if there is none; it is shown
                wherever methods are listed
    """

    key: str
    label: str
    small_map: Callable[[Tensor, Tensor], Tensor] | None = None
    whole_map: Callable[[nn.Module, Tensor, HeadPass], Tensor] | None = None
    products: Callable[[nn.Module, Tensor, HeadPass], Tensor] | None = None
    forwards: int | str = 0
    plain: bool = False
    learned: bool = False
    floor: float = 0.0
    origin: str = ""
    note: str = ""

    def maps(self, model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
        """Return (image, h, w) maps, not yet enlarged. Raises what the method raises."""
        if self.small_map is not None:
            return self.small_map(passed.features, passed.gradient)
        if self.whole_map is not None:
            return self.whole_map(model, x, passed)
        return self.products(model, x, passed).sum(dim=1).relu()


def grad_cam_variant(
    key: str, label: str, *, relu_before_mean: bool = False, floor: float = 0.0, note: str = ""
) -> CamMethod:
    """Return a row for Grad-CAM with any order of ReLU and mean and any floor.

    relu_before_mean, floor : as for `grad_cam_family`
    """
    formula = partial(grad_cam_family, relu_before_mean=relu_before_mean, floor=floor)
    products = None
    if not floor and not relu_before_mean:  # the other changes act after the products
        products = partial(later, ".one_pass", "product", "grad_cam")
    return CamMethod(key, label, formula, products=products, floor=floor, note=note)


PUBLISHED_METHODS = ("grad_cam", "threshold_grad_cam")
RANDOM_CAM = "random_cam"  # a control among the methods: it explains nothing
FLOORS = tuple(step / 10 for step in range(10))


def family_key(relu_before_mean: bool, floor: float) -> str:
    """The key of the row with this order of ReLU and mean and one of `FLOORS`."""
    if relu_before_mean and floor == PUBLISHED_FLOOR:
        return "threshold_grad_cam"
    return ("relu_first" if relu_before_mean else "grad_cam") + f"_floor_{floor}" * bool(floor)


def _family() -> list[CamMethod]:
    """Threshold-Grad-CAM's two changes, each alone and at every floor."""
    rows = []
    for relu_before_mean, name in ((False, "Grad-CAM"), (True, "ReLU first")):
        for floor in FLOORS:
            key = family_key(relu_before_mean, floor)
            if key not in PUBLISHED_METHODS:
                label = f"{name}, floor {floor}" if floor else name
                rows.append(grad_cam_variant(key, label, relu_before_mean=relu_before_mean,
                                             floor=floor))  # fmt: skip
    return rows


def _summed(key: str, label: str, note: str = "") -> CamMethod:
    """One of `lib.maps.one_pass.PRODUCTS`."""
    return CamMethod(
        key, label, partial(later, ".one_pass", "product_map", key),
        products=partial(later, ".one_pass", "product", key), note=note,
    )  # fmt: skip


def _component(key: str, label: str, note: str) -> CamMethod:
    """A method of `lib.maps.one_pass` that takes a first component."""
    return CamMethod(key, label, partial(later, ".one_pass", key), note=note)


def _again(key: str, label: str, note: str, forwards: int | str = 0) -> CamMethod:
    """A function of `lib.maps.head_again`."""
    call = partial(later, ".head_again", key)
    return CamMethod(key, label, products=call, forwards=forwards, note=note)


def _combined(key: str, label: str, forwards: int, note: str, plain: bool = False) -> CamMethod:
    """A function of `lib.maps.combined`."""
    call = partial(later, ".combined", key)
    return CamMethod(key, label, whole_map=call, forwards=forwards, plain=plain, note=note)


def _package(
    key: str, label: str, function: str, *first: str, note: str, forwards: int = 0,
    plain: bool = False,
) -> CamMethod:  # fmt: skip
    """A function of `lib.maps.package_cams`, bound to its first arguments."""
    call = partial(later, ".package_cams", function, *first)
    return CamMethod(key, label, whole_map=call, forwards=forwards, plain=plain, note=note)


def later(module: str, function: str, *arguments, **options) -> Tensor:
    """Call a function by the name of its module, relative to this room, and its own name.

    It is looked up when it is called, so the table of methods imports neither torch nor packages
    that make maps."""
    return getattr(import_module(module, __package__), function)(*arguments, **options)


def training_command(model: str, method: str, demo: bool = False) -> str:
    """Return the command that trains a learned method's module for a model.

    demo : whether it is for the embedded example, which needs no folder of images
    """
    if demo:
        return f"python -m lib.demo.attention --models {model} --methods {method}"
    return f"dcls-lcam --models {model} --methods {method} --images FOLDER"


def _learned(key: str, label: str, what: str, forwards: int = 0) -> CamMethod:
    """A row of `lib.maps.learned.attention.ATTENTIONS`."""
    call = partial(later, ".learned.attention", "learned_map", key)
    note = f"{what}; must first be trained beside each network: `{training_command('KEY', key)}`."
    return CamMethod(key, label, whole_map=call, forwards=forwards, learned=True, note=note)


_GRADIENTS, _RECTIFIED, _HIDDEN = (
    ".pixel.gradients", ".pixel.rectified", ".pixel.hidden"
)  # fmt: skip


def _pixel(
    key: str, label: str, module: str, forwards: int, note: str, plain: bool = True
) -> CamMethod:
    """A function of `lib.maps.pixel`; a gradient of the whole network counts as three forwards."""
    call = partial(later, module, key)
    return CamMethod(key, label, whole_map=call, forwards=forwards, plain=plain, note=note)


# The sign of a component is arbitrary.
_SIGN = "the component's sign is chosen so that its largest absolute value is positive"

METHODS: Table[CamMethod] = Table(
    "method",
    [
        grad_cam_variant("grad_cam", "Grad-CAM"),
        grad_cam_variant(
            "threshold_grad_cam", "Threshold-Grad-CAM", relu_before_mean=True,
            floor=PUBLISHED_FLOOR,
            note="Values below 0.3 of a map's range are raised to 0.3, so that all places with "
            "little evidence are tied.",
        ),
        *_family(),
        _summed("hires_cam", "HiResCAM"),
        _summed("grad_cam_plus_plus", "Grad-CAM++"),
        _summed("x_grad_cam", "XGradCAM"),
        _summed("layer_cam", "LayerCAM"),
        _summed("element_wise", "Grad-CAM, element-wise"),
        _component("eigen_cam", "EigenCAM", f"Blind to the class; {_SIGN}."),
        _component("eigen_grad_cam", "EigenGradCAM",
                   f"The first component of HiResCAM's products; {_SIGN}."),
        _component("seg_eigen_cam", "SegEigenCAM",
                   "The first component of the features times the gradient's absolute value; "
                   f"{_SIGN}."),
        _again("shapley_cam", "ShapleyCAM",
               "Grad-CAM's weights minus half of a second-order term; equal to Grad-CAM if the "
               "layers after it are linear."),
        _again("finer_cam", "FinerCAM",
               "Shows what distinguishes the class from the three with the nearest logits, not "
               "what supports the class."),
        _package("fem", "FEM", "from_features", "FEM", note="Blind to the class."),
        _package("kpca_cam", "KPCA-CAM", "from_features", "KPCA_CAM",
                 note=f"Blind to the class; {_SIGN}."),
        _again("ablation_cam", "AblationCAM",
               "Channels are set to 0; pytorch-grad-cam sets channels with negative values to a "
               "far lower number."),
        _package("full_grad", "FullGrad", "full_grad", forwards=3, plain=True,
                 note="Made from the gradients at every bias of the published network, not at one "
                 "layer."),
        _again("score_cam", "ScoreCAM",
               "One forward pass per channel; a channel's weight is the softmax over all channels' "
               "logits, as in pytorch-grad-cam.", forwards="channels"),
        _combined("refine_cam", "RefineCAM", 9,
                  "The product of the Grad-CAM++ maps of two earlier stages and of the layer.",
                  plain=True),
        _combined("sess", "SESS", 122,
                  "Grad-CAM of 122 windows of the enlarged image, weighted by their scores."),
        _learned("lcam_fm", "L-CAM-Fm", "Learned by hiding parts of the features"),
        _learned("lcam_img", "L-CAM-Img", "Learned by hiding parts of the image"),
        _learned("lcam_fm_a", "L-CAM-Fm, cross-entropy alone",
                 "Learned by hiding parts of the features, without terms for a small and smooth "
                 "map"),
        _learned("lcam_img_a", "L-CAM-Img, cross-entropy alone",
                 "Learned by hiding parts of the image, without terms for a small and smooth "
                 "map"),
        _learned("lcam_img_a_published", "L-CAM-Img, cross-entropy alone, as coded",
                 "As lcam_img_a, but the module reads the features of images that are not "
                 "normalised, as in the published code for ResNet-50", forwards=1),
        _learned("tame", "TAME", "Learned from three layers by hiding parts of the image",
                 forwards=1),
        _pixel("integrated_gradients", "Integrated Gradients", _GRADIENTS, 3 * 25,
               "The mean gradient at 25 evenly spaced places, including both ends, as in the "
               "authors' package; another quadrature gives another map."),
        _pixel("integrated_gradients_legendre", "Integrated Gradients, Gauss–Legendre",
               _GRADIENTS, 3 * 25, "Gauss–Legendre quadrature, as in captum."),
        _pixel("smooth_grad", "SmoothGrad", _GRADIENTS, 3 * 50,
               "The noise is the same for every image and network."),
        _pixel("blur_ig", "BlurIG", _GRADIENTS, 3 * 100, ""),
        # A gradient in float64 takes about as long as three.
        _pixel("guided_ig", "GuidedIG", _GRADIENTS, 3 * 3 * 200,
               "In float64, if the device has it: in float32 a map depends on the images computed "
               "with it; in both, a change of the image by a millionth gives another map."),
        _pixel("guided_backprop", "guided backpropagation", _RECTIFIED, 3,
               "Explains the logit; only `nn.ReLU` is guided: a network without one, such as "
               "ConvNeXt, gives the plain gradient."),
        _pixel("lime", "LIME", _HIDDEN, 1000,
               "Shows whole superpixels: those with positive weights among the ten with the "
               "largest weights."),
        _pixel("rise", "RISE", _HIDDEN, 8000,
               "8,000 random masks of 7 x 7 cells (4,000 for VGG), the same for every image and "
               "network.", plain=False),
        _summed(RANDOM_CAM, "random channel weights (control)",
                "A control: it follows the features, with the same random weights for all "
                "images, and for all networks with as many channels."),
    ],
)  # fmt: skip

# These are not class activation maps, and have the image's resolution.
PIXEL_METHODS = (
    "integrated_gradients", "integrated_gradients_legendre", "smooth_grad", "blur_ig", "guided_ig",
    "guided_backprop", "lime", "rise",
)  # fmt: skip
LEARNED_METHODS = tuple(row.key for row in METHODS.values() if row.learned)

# Every CAM that needs only one forward pass and one gradient of the head.
ONE_PASS_METHODS = (
    *PUBLISHED_METHODS,
    *(
        row.key
        for row in METHODS.values()
        if not (row.forwards or row.learned)
        and "floor" not in row.key
        and row.key not in PUBLISHED_METHODS
    ),
)

# Every CAM once, without the intermediate steps of Grad-CAM's family and without methods that must
# be trained first.
ALL_METHODS = (
    *PUBLISHED_METHODS,
    *(
        key
        for key in METHODS
        if "floor" not in key and key not in (*PUBLISHED_METHODS, *PIXEL_METHODS, *LEARNED_METHODS)
    ),
)
