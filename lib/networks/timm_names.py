"""timm's names: architectures, published weights, their files, and how images are prepared for
them."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase
from functools import cache

import timm
from timm.data import resolve_data_config
from timm.models import (
    get_pretrained_cfg,
    is_model,
    list_models,
    list_pretrained,
    model_entrypoint,
)

from ..base.geometry import Preprocessing
from ..base.tables import unknown_name
from .checkpoints import OF_TIMM
from .sources import Source, timm_source

_FILE = "model.safetensors"  # of timm's own repositories
# The lengths of the features that CLIP's networks return instead of classes.
_WIDTHS = (512, 640, 768, 1024, 1152, 1280)
WILD = "*?["  # a name with any of these is a pattern


@cache
def _tags() -> dict[str, list[str]]:
    """Return {architecture: tags of its published weights}."""
    found: dict[str, list[str]] = {}
    for name in list_pretrained():
        architecture, _, tag = name.partition(".")
        found.setdefault(architecture, []).append(tag)
    return found


def check_architecture(name: str) -> None:
    """Raise UnknownName, with the nearest ones, unless timm has this architecture."""
    if not is_model(name):
        near = difflib.get_close_matches(name, list_models(), n=8, cutoff=0.3)
        raise unknown_name("timm model", name, near or list_models()[:5])


def architectures(pattern: str) -> list[str]:
    """Return timm's architectures of this name or pattern, without tag. Raises UnknownName."""
    if not any(sign in pattern for sign in WILD):
        name = pattern.partition(".")[0]
        check_architecture(name)
        return [name]
    if found := [name for name in list_models() if fnmatchcase(name, pattern)]:
        return found
    near = list_models(f"{pattern[:3]}*")[:8] or ["resnet*", "vit_*", "convnext*"]
    raise unknown_name("timm model", pattern, near)


def with_tag(name: str) -> str:
    """Return an architecture with the tag of its weights, timm's default if none is given.

    Raises UnknownName for another name, ValueError if no weights are published.
    """
    architecture, dot, tag = name.partition(".")
    check_architecture(architecture)
    if not dot:
        tag = get_pretrained_cfg(architecture).tag or ""
    known = _tags().get(architecture, [])
    if not known:
        raise ValueError(
            f"timm publishes no weights of {architecture}: use untrained:{architecture} for random "
            f"weights, or timm:{architecture}@FILE for your own"
        )
    if tag not in known and dot:
        raise unknown_name(f"tag of timm's {architecture}", tag, known)
    return f"{architecture}.{tag if tag in known else known[0]}"


def published(pattern: str) -> list[str]:
    """Return tagged names that match: all tags if the pattern has a dot, else the default ones."""
    if not any(sign in pattern for sign in WILD):
        return [with_tag(pattern)]
    if "." in pattern:
        found = [name for name in list_pretrained() if fnmatchcase(name, pattern)]
    else:
        found = [with_tag(n) for n in list_models() if n in _tags() and fnmatchcase(n, pattern)]
    if not found:
        near = list_pretrained(f"{pattern[:3]}*")[:8]
        raise unknown_name("pretrained timm model", pattern, near)
    return found


def class_count(name: str) -> int:
    """Return published weights' number of classes; 0 for features without a classifier."""
    return get_pretrained_cfg(name).num_classes


def why_not(name: str, classes: int | None) -> str:
    """Return why published weights cannot be used, in one sentence; "" if they can.

    classes : the required number of classes, None for any
    """
    about, given = get_pretrained_cfg(name), class_count(name)
    own = f"timm:{name.partition('.')[0]}@FILE"
    if not given or given in _WIDTHS:
        return (
            f"{name} has features for texts or for fine-tuning, and no classifier whose evidence "
            f"a heatmap could show: {own} loads a fine-tuned one"
        )
    if classes is not None and given != classes:
        return (
            f"{name} has {given} classes, but the profile {classes}: "
            "--target predicted explains what each model predicts, whatever its classes"
        )
    if not about.hf_hub_id:
        return f"{name} is not on timm's hub: fetch {about.url} yourself and name the file by {own}"
    if about.custom_load == "hf":
        return f"{name} has a form that only timm's own loader reads: {own} loads another file"
    return ""


def source_of(variant: str, name: str, millions: float = 0) -> Source:
    """Return the source of published weights; millions : learnable parameters, if known."""
    about = get_pretrained_cfg(name)
    repository = about.hf_hub_id if about is not None else None
    file = (about.hf_hub_filename if about is not None else None) or _FILE
    return timm_source(variant, name, millions, repository or f"timm/{name}", file)


def family_of(name: str) -> str:
    """Return the family of an architecture, by timm's module: "timm.swin_transformer"."""
    return OF_TIMM + model_entrypoint(name).__module__.rpartition(".")[2]


def preprocessing_of(name: str) -> Preprocessing:
    """Return how timm prepares images for these weights, or for an architecture."""
    found = resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    crop = found["input_size"][-1]
    return Preprocessing(
        round(crop / found["crop_pct"]), crop, tuple(found["mean"]), tuple(found["std"])
    )
