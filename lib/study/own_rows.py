"""`add_model`, `add_method` and `add_comparison` for files of own rows; each checks its input."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..base.geometry import Preprocessing
from ..base.shortage import is_out_of_memory
from ..maps.forward import HeadPass
from ..maps.methods import METHODS, CamMethod, later
from ..maps.targets import Asked
from ..networks.backbones import BACKBONES, Backbone, DclsRecipe
from ..networks.checked import checked
from ..networks.sources import WEIGHTS
from ..networks.timm_names import check_architecture, family_of, preprocessing_of, source_of
from .comparisons import COMPARISONS, Comparison, named_groups
from .extension import being_read

# Colours that colour-blind readers can distinguish from the study's own; they are then repeated.
_COLOURS = ("#332288", "#AA4499", "#117733", "#882255", "#44AA99", "#999933")


def _place(file: str | Path) -> str:
    """Return a path of a file of own rows as absolute: it starts at that file's folder."""
    if not str(file):
        return ""
    return str((being_read()[0].parent / Path(file).expanduser()).resolve())


def add_model(
    key: str,
    *,
    weights: str | Path = "",
    weights_dcls: str | Path = "",
    timm: str = "",
    build: Callable[[int], nn.Module] | None = None,
    layer: str = "",
    reshape: Callable[[Tensor], Tensor] | None = None,
    dcls: DclsRecipe | None = None,
    label: str = "",
    preprocessing: Preprocessing | None = None,
    colour: str = "",
) -> Backbone:
    """Add a model to the table.

    key          : its name in options
    timm         : a name of timm's registry, with the tag of its weights if --download is to
                   fetch them
    build        : instead of timm: a function that builds the network for a number of classes; the
                   network takes normalised (image, 3, side, side) and returns (image, class) logits
    weights      : the weights file, relative to this file's folder: safetensors, or a checkpoint
                   that torch.load reads with weights_only; unnecessary with a tag of timm
    weights_dcls : the weights file of the network converted by `dcls`; both or neither
    layer        : the layer whose output makes the heatmaps, a name of `named_modules()`; "" to
                   find it: the end of timm's forward_features, otherwise the last suitable layer
    preprocessing : how images become inputs; by default what timm says for the tag, otherwise a
                   resize to 256, a crop of 224, and ImageNet's mean and standard deviation

    Returns the row. Raises ValueError, which names what does not fit.
    """
    _, digest = being_read()
    _check_key(key)
    if bool(timm) == (build is not None):
        raise ValueError(f"{key}: give either timm's name or a function that builds the network")
    if (dcls is None) != (not weights_dcls):
        raise ValueError(f"{key}: dcls, the recipe, and weights_dcls, the file, belong together")
    if timm:
        check_architecture(timm)
    if not weights and (build is not None or "." not in timm):
        raise ValueError(f"{key}: without a tag of timm, weights must name a file")
    own = [b for b in BACKBONES.values() if b.origin]
    row = Backbone(
        key, label or key, family_of(timm) if timm else "own", timm, dcls,
        preprocessing or (preprocessing_of(timm) if timm else Preprocessing(256, 224)),
        colour or _COLOURS[len(own) % len(_COLOURS)],
        layer=layer, reshape=reshape, build=build, weights=_place(weights),
        weights_dcls=_place(weights_dcls), origin=digest,
    )  # fmt: skip
    _refuse_twin(BACKBONES, "model", row.label)
    BACKBONES.add(checked(row))
    if not weights:
        WEIGHTS.add(source_of(key, timm))
    return BACKBONES[key]


def _check_key(key: str) -> None:
    if not isinstance(key, str) or not re.fullmatch(r"\w+", key) or key.endswith("_dcls"):
        raise ValueError(
            f"the key {key!r} must be a text of letters, digits and _, and must not end in _dcls"
        )


def _refuse_twin(table: Mapping[str, Backbone | CamMethod], kind: str, label: str) -> None:
    """Raise ValueError for a label that another row has: figures and tables use labels."""
    for row in table.values():
        if row.label == label:
            raise ValueError(
                f"the label {label} belongs to {row.key} in the {kind} table: choose another"
            )


def add_method(
    key: str,
    maps: Callable[..., Tensor] | None = None,
    *,
    cam: Any = None,
    on_images: bool = False,
    label: str = "",
) -> CamMethod:
    """Add a CAM method to the table.

    maps : a function (features, gradient) -> (image, h, w). Both inputs are (image, channel, h, w):
           the study's layer, and the gradient of the target's logit. Or a function
           (model, x, passed), for methods that need more: `model.features`, `model.answered`, the
           prepared images, and a `HeadPass`
    cam  : instead of maps: a class like those of pytorch-grad-cam, created as cam(model, layers)
           and called with inputs and targets
    on_images : whether the class needs images, with a forward and backward pass through the whole
           network, rather than the features of the study's layer

    Returns the row. Raises ValueError for neither or both, or for a function with other parameters.
    """
    _, digest = being_read()
    _check_key(key)
    if (maps is None) == (cam is None):
        raise ValueError(f"{key}: give either a function that makes maps or a class (cam=)")
    label = label or key
    _refuse_twin(METHODS, "method", label)
    said = f"{label} ({key}), a method of --extend,"
    if cam is not None:
        whole = guarded(said, partial(later, ".package_cams", "of_class", cam, on_images))
        return METHODS.add(
            CamMethod(key, label, whole_map=whole, forwards=int(on_images), plain=on_images,
                      origin=digest)
        )  # fmt: skip
    asked = inspect.signature(maps).parameters.values()
    count = sum(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in asked)
    maps = guarded(said, maps)
    if count == 2:
        return METHODS.add(CamMethod(key, label, small_map=maps, origin=digest))
    if count == 3:
        return METHODS.add(CamMethod(key, label, whole_map=maps, forwards=1, origin=digest))
    raise ValueError(
        f"{key}: maps takes (features, gradient) or (model, x, passed), not {count} parameters "
        "without a default"
    )


def add_comparison(
    key: str,
    groups: Mapping[str, Sequence[str]],
    *,
    label: str = "",
    question: str = "",
    forms: Sequence[str] = (),
    change: str = "",
    rows: str = "model",
    axis: str = "",
    at: Mapping[str, float] | None = None,
) -> Comparison:
    """Add a comparison to the table; --compare KEY selects it.

    groups : {label: names of the models that belong together}; in each group the later models are
             compared with the first. Names are those of --compare: "mynet", "resnet50_dcls",
             "resnet50:grad_cam"; models that a study does not have are skipped
    forms  : what the models of every group are called by position, ("before", "after"); groups
             are then drawn side by side
    label, question, change, rows : words for tables, figures and the report: what is compared, the
             report's heading, what a difference is ("after minus before"), what a group is called
    axis, at : what the order means, with its unit, and {name: position on it}

    Returns the row. Raises ValueError for input that does not fit.
    """
    being_read()
    _check_key(key)
    if not groups or not all(len(names) > 1 for names in groups.values()):
        raise ValueError(f"{key}: a comparison needs groups of two or more models")
    if forms and {len(names) for names in groups.values()} != {len(forms)}:
        raise ValueError(f"{key}: forms must name every place of every group: {', '.join(forms)}")
    if len(set(forms)) < len(forms):
        raise ValueError(f"{key}: forms must differ: {', '.join(forms)}")
    if bool(axis) != bool(at):
        raise ValueError(f"{key}: axis, its name, and at, the places on it, belong together")
    for name in (name for names in groups.values() for name in names) if at else ():
        place = at.get(name)
        plain = isinstance(place, int | float) and not isinstance(place, bool)
        if not plain or not math.isfinite(place):
            raise ValueError(f"{key}: at must have a number for {name}, got {place!r}")
    for each in groups.values():
        if len(set(each)) < len(each):
            raise ValueError(f"{key}: a group names one model twice: {', '.join(each)}")
    return COMPARISONS.add(
        Comparison(
            key, label or key, question or "Do vision models look where people look?",
            partial(named_groups, dict(groups), tuple(forms), dict(at or {})), rows,
            change or "later minus first", axis, shared=bool(forms),
        )
    )  # fmt: skip


def guarded(said: str, maps: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a user's function with checks.

    It receives copies, because changes in place would alter the methods after it. Its result is
    checked; an exception becomes a ValueError.

    said : what messages call it
    """

    def guarded(*given: nn.Module | Tensor | HeadPass) -> Tensor:
        like = next(value for value in given if isinstance(value, Tensor))
        try:
            found = maps(*map(_copied, given))
        except Exception as error:
            if is_out_of_memory(error):  # a smaller batch may suffice
                raise
            raise ValueError(f"{said} fails: {type(error).__name__}: {error}") from error
        if not isinstance(found, Tensor) or found.is_complex():
            what = found.dtype if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"{said} must return a tensor of real numbers, not {what}")
        if found.ndim != 3 or len(found) != len(like):
            raise ValueError(
                f"{said} must make maps of shape (image, h, w), here {len(like)} of them, but made "
                f"{tuple(found.shape)}"
            )
        return found.detach().to(like.device).float()

    return guarded


def _copied(value: nn.Module | Tensor | HeadPass) -> nn.Module | Tensor | HeadPass:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, HeadPass):
        parts = {n: p.clone() for n, p in vars(value).items() if isinstance(p, Tensor)}
        classes = value.asked.classes
        if classes is not None:
            parts["asked"] = Asked(classes.clone())
        return replace(value, **parts)
    return value
