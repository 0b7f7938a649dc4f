"""What a user chooses, checked: plain values and rows of tables, without files or torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, TypeVar

from ..base.tables import unknown_name
from ..maps.methods import METHODS, PUBLISHED_METHODS, CamMethod
from ..networks.backbones import BACKBONES, THE_EIGHT, Backbone, variant_name
from ..networks.precision import PRECISIONS
from ..people.protocols import DEFAULT_PROTOCOLS, PROTOCOLS
from ..people.stored import Read
from ..people.stored.fit import CROP
from ..people.stored.layouts import LAYOUTS, Layout
from .comparisons import COMPARISONS, Comparison, Member, check_compared, comparison_of
from .profiles import PROFILES, TARGETS, Brief, Profile
from .rules import RULES, Rules

if TYPE_CHECKING:
    import torch

# Notebooks of a single question: where people look, what DCLS replaces, how models differ.
_OF_GAZE, _OF_DCLS, _OF_COMPARISONS = "00", "02", ("05", "05b", "05c")
_OF_SEVERAL = "05c"  # a leaderboard needs more than one model
_FEW = 4  # models; notebook 00 shows maps of each, and evaluates each on every image
_COMPILERS = (os.environ.get("CXX") or "g++", "clang++", "c++", "cl")  # torch.compile's
_OF_THE_CLUSTER = ("workers", "scheduler")
T = TypeVar("T")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_names(chosen: Iterable[str], known: Iterable[str]) -> None:
    """Raise UnknownName, with the nearest known name, for a choice that does not exist."""
    known = list(known)
    for name in chosen:
        if name not in known:
            raise unknown_name("choice", name, known)


def _in_order(models: Sequence[str]) -> tuple[Backbone, ...]:
    """Return rows in the table's order, followed by those that a name created, as requested."""
    rows = BACKBONES.select(models)
    asked = dict.fromkeys(BACKBONES[key] for key in models)
    return (*(r for r in rows if not r.named), *(r for r in asked if r.named))


@dataclass(frozen=True)
class Choices:
    """Everything that can be chosen about a study; create one with `of`.

    limit      : number of images to use, 0 for all
    device     : "auto", "cpu", "cuda", "cuda:1" or "mps"
    batch_size : images per forward pass, 0 for a size that suits the device
    data_dir   : folder of downloaded files, "" for the project's `data/`
    protocols  : keys of PROTOCOLS
    images     : a folder of images and human maps instead of the profile's, "" for none
    keep_going : whether missing or unreadable files are skipped and named
    precision  : a key of PRECISIONS
    compile    : whether torch.compile compiles the models, which needs a C++ compiler
    workers    : how many processes score in parallel, 0 for only this one
    scheduler  : address of a Dask scheduler whose workers score, "" for none
    target     : one of TARGETS: the class whose evidence the heatmaps show
    layout     : how `images` is organised, a key of LAYOUTS or of PLAIN, "" to recognise it
    fit        : how images that are not square become square, one of FITS
    gaze       : "KEY=VALUE" texts: how gaze was recorded and becomes maps
    extend     : a file of own models and methods, see `lib.study.own_rows`, "" for none
    accept     : names or patterns of tensors that weights files may lack, or have beyond those
                 of their model
    ceiling    : the human ceiling in 0-1, if it is known for these human maps; 0 otherwise
    smallest_effect : a difference of scores below this does not matter
    name       : name of the folders of results, "" for one made from the choices
    compare    : a key of COMPARISONS; or models that are compared pairwise, see `compared`;
                 empty for the comparison that the models suggest
    whole      : whether long analyses take the profile's whole sample, not its `brief` one;
                 always False where the profile has one sample only
    """

    profile: Profile
    backbones: tuple[Backbone, ...]
    methods: tuple[CamMethod, ...]
    limit: int = 0
    device: str = "auto"
    batch_size: int = 0
    data_dir: str = ""
    protocols: tuple[str, ...] = DEFAULT_PROTOCOLS
    images: str = ""
    keep_going: bool = False
    precision: str = "float32"
    compile: bool = False
    workers: int = 0
    scheduler: str = ""
    target: str = TARGETS[0]
    layout: str = ""
    fit: str = CROP
    gaze: tuple[str, ...] = ()
    extend: str = ""
    accept: tuple[str, ...] = ()
    ceiling: float = 0.0
    smallest_effect: float = RULES.smallest_effect
    compare: tuple[str, ...] = ()
    name: str = ""
    whole: bool = False

    @classmethod
    def of(
        cls,
        profile: str = "demo",
        models: Sequence[str] = (),
        methods: Sequence[str] = (),
        own: Sequence[Backbone] = (),
        protocols: Sequence[str] = (),
        accept: Sequence[str] = (),
        compare: Sequence[str] = (),
        gaze: Sequence[str] = (),
        target: str = "",
        gazed: bool = False,
        **options,
    ) -> Choices:
        """Look up the names' rows and check every choice.

        models, methods, protocols, target : keys; empty takes the profile's: all models, and
                  usually the published methods (always, if models are named)
        own     : models that the file `extend` has added
        gazed   : whether the folder `images` contains gaze points
        options : the other fields by name

        Raises ValueError (UnknownName for a name), which says what is wrong, the nearest known
        name, and what is allowed.
        """
        if any(isinstance(names, str) for names in (models, methods, accept, compare, gaze)):
            raise ValueError(
                "models, methods, accept, compare and gaze must be lists of names, not one text"
            )
        row = replace(PROFILES[profile], own=tuple(own))
        chosen = _in_order(models) if models else row.backbones
        absent = [b.key for b in chosen if b not in row.known]
        if absent:
            raise ValueError(f"the {row.key} profile has no model {', '.join(absent)}")
        if images := options.get("images"):
            caveat = "" if row.images else row.caveat  # it concerns the embedded people
            layout = options.get("layout")
            label = LAYOUTS[layout].label if layout in LAYOUTS else Path(images).name[:40]
            row = replace(row, label=label, caveat=caveat)
            if gazed:  # gaze is already blurred once
                row = replace(row, protocols=("gaze",))
        made = cls(
            row,
            chosen,
            tuple(METHODS.select(methods or (PUBLISHED_METHODS if models else row.methods))),
            protocols=tuple(p.key for p in PROTOCOLS.select(protocols or row.protocols)),
            accept=tuple(accept),
            compare=tuple(compare),
            gaze=tuple(gaze),
            target=target or row.target,
            **options,
        )
        check_compared(made)
        models = [(m.backbone.key, m.dcls, m.method.key) for m in made.compared]  # or UnknownName
        if len(set(models)) < len(models):
            raise ValueError(f"compare names one model twice: {', '.join(compare)}")
        return made

    def changed(self, **changes) -> Choices:
        """Return the same choices with other values, named like the fields or the parameters of
        `from_profile`; rows or their keys. Raises as `of`."""
        if "models" in changes:
            changes["backbones"] = changes.pop("models")
        check_names(changes, (f.name for f in fields(self)))
        for name, table in (("backbones", BACKBONES), ("methods", METHODS)):
            if name in changes:
                changes[name] = tuple(table[r] if isinstance(r, str) else r for r in changes[name])
        if isinstance(changes.get("profile"), str):
            changes["profile"] = PROFILES[changes["profile"]]
        return replace(self, **changes)

    def __post_init__(self) -> None:
        for name in ("keep_going", "compile", "whole"):
            object.__setattr__(self, name, bool(getattr(self, name)))
        if not self.profile.brief:
            object.__setattr__(self, "whole", False)
        for name in ("limit", "batch_size", "workers"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{name} must be a whole number of 0 or more, got {value!r}")
        if self.workers and self.scheduler:
            raise ValueError("workers and scheduler exclude each other: workers starts its own")
        if self.compile and not any(map(which, _COMPILERS)):
            raise ValueError(
                f"compile needs a C++ compiler, and none of {', '.join(_COMPILERS)} was found: "
                "install one, or omit --compile"
            )
        if not _DEVICE.fullmatch(str(self.device)):
            raise ValueError(
                f"device {self.device!r} is not one of auto, cpu, cuda, cuda:<number>, mps"
            )
        if self.target not in TARGETS:
            raise unknown_name("target", self.target, TARGETS)
        read = self.read  # raises, with the nearest known name
        if not self.images and (self.layout or self.gaze or read.fit != CROP):
            raise ValueError(
                "layout, fit and gaze say how the folder of `images` is read: give the folder, too"
            )
        PRECISIONS[self.precision]  # raises, with the nearest known name
        for name in self.accept:
            if not isinstance(name, str) or len(re.sub(r"[*?.\[\]!]", "", name)) < 2:
                raise ValueError(
                    f"accept {name!r} names no tensor: give its name, or a pattern such as "
                    "'*.total_ops'; a pattern that matches everything is refused"
                )

        for name, low, high in (("ceiling", 0, 1), ("smallest_effect", 0, 2)):
            value = getattr(self, name)
            plain = isinstance(value, int | float) and not isinstance(value, bool)
            if not plain or not low <= value <= high:
                raise ValueError(f"{name} must be a number from {low} to {high}, got {value!r}")
            object.__setattr__(self, name, float(value))
        if 0 < self.ceiling < RULES.least_ceiling:
            raise ValueError(
                f"ceiling {self.ceiling:g} is below {RULES.least_ceiling:g}: people who agree so "
                "little are no yardstick; use 0 if you do not know the ceiling"
            )
        if self.name == "subset":
            raise ValueError("name 'subset' is taken by runs without a name: choose another")
        if not isinstance(self.name, str) or not re.fullmatch(
            r"([A-Za-z0-9][\w-]{0,59})?", self.name
        ):
            raise ValueError(
                f"name {self.name!r} cannot name a folder: use letters, digits, _ and -, at most 60"
            )
        one = len(self.compare) == 1 and self.compare[0] not in COMPARISONS
        if one or len(set(self.compare)) < len(self.compare):
            raise ValueError(
                f"compare needs one of {', '.join(COMPARISONS)}, or two or more different models; "
                f"got {', '.join(self.compare)}"
            )

    @property
    def rows(self) -> list[Backbone | CamMethod | Layout]:
        """The chosen models, methods and data set."""
        data_set = [LAYOUTS[self.layout]] if self.layout in LAYOUTS else []
        return [*self.backbones, *self.methods, *data_set]

    @property
    def read(self) -> Read:
        """How the folder of images is read."""
        return Read(self.layout, self.fit, self.gaze)

    @property
    def rules(self) -> Rules:
        """The rules by which results are judged."""
        return replace(RULES, smallest_effect=self.smallest_effect)

    @property
    def comparison(self) -> Comparison:
        """The row of COMPARISONS that `compare` names, or that these models suggest."""
        return comparison_of(self)

    @property
    def compared(self) -> list[Member]:
        """The models that are compared pairwise: those that `compare` names, or all variants.

        A name is a variant's, such as "resnet50_dcls", optionally followed by a colon and one of
        the study's methods; without it, the preferred method is meant. Raises UnknownName.
        """
        named = self.compare[1:] and self.compare
        return [*map(self.member, named or (variant_name(b.key, d) for b, d in self.variants))]

    def member(self, name: str) -> Member:
        """Return one of the study's models by its name. Raises UnknownName."""
        variants = {variant_name(b.key, dcls): (b, dcls) for b, dcls in self.variants}
        methods = {method.key: method for method in self.methods}
        named = {b.named: b.key for b in self.backbones if b.named}
        variant, colon, method = name.partition(":")
        for text, key in named.items():  # a name as given to --models may itself have colons
            if name == text or name.startswith(f"{text}:"):
                variant, colon, method = key, *name[len(text) :].partition(":")[1:]
        check_names([variant], variants)
        check_names([method] if colon else [], methods)
        backbone, dcls = variants[variant]
        return Member(backbone, dcls, methods.get(method, self.prefer_method()), name=name)

    def options(self) -> dict:
        """The options with which `Study.from_profile` makes the same choices in another process.

        Workers and scheduler are omitted, because those processes score by themselves.
        """
        return {
            "profile": self.profile.key,
            "models": [b.named or b.key for b in self.backbones],
            "methods": [m.key for m in self.methods],
            "protocols": list(self.protocols),
            "accept": list(self.accept),
            "compare": list(self.compare),
            "gaze": list(self.gaze),
            **{name: getattr(self, name) for name in OPTIONS if name not in _OF_THE_CLUSTER},
        }

    @property
    def variants(self) -> list[tuple[Backbone, bool]]:
        """The pairs (backbone, dcls), each backbone's baseline first."""
        return [(backbone, dcls) for backbone in self.backbones for dcls in backbone.forms]

    @property
    def paired(self) -> bool:
        """Whether some backbone has both variants, plain and DCLS."""
        return any(backbone.dcls for backbone in self.backbones)

    def takes(self, number: str) -> bool:
        """Return whether a full run includes the notebook of this number, such as "04b"."""
        if number in _OF_COMPARISONS and len(self.variants) > 1:
            return True
        if number == _OF_SEVERAL or (number == _OF_DCLS and not self.paired):
            return False
        if number == _OF_GAZE and len(self.variants) > _FEW:
            return False
        own = self.profile.notebooks
        return number in own if own else number != _OF_GAZE

    @property
    def of_paper(self) -> bool:
        """Whether it asks the paper's question of some of the paper's models, so that the paper's
        figures and claims apply."""
        return self.comparison.key == "dcls" and any(b in THE_EIGHT for b in self.backbones)

    @property
    def predicted(self) -> bool:
        """Whether heatmaps show the evidence for the class that a model predicts."""
        return self.target == "predicted"

    def asked(self, labels: torch.Tensor) -> torch.Tensor | None:
        """Return the classes whose evidence heatmaps show: the labels, or None for predicted."""
        return None if self.predicted else labels

    @property
    def sample(self) -> int:
        """The number of images for analyses that score many methods or models."""
        return self.brief.images if self.brief else self.profile.sample

    @property
    def brief(self) -> Brief | None:
        """The smaller sample of the long analyses, where they take it."""
        return None if self.whole else self.profile.brief

    @property
    def sampled(self) -> dict:
        """The choices in which the long analyses differ, by the names of the fields."""
        limit = min(self.limit or self.sample, self.sample)
        if self.brief and self.backbones == self.profile.backbones:
            return {"limit": limit, "backbones": tuple(BACKBONES.select(self.brief.models))}
        return {"limit": limit}

    @property
    def of_sample(self) -> dict[str, str]:
        """How the sample of the long analyses is smaller than a whole run's, as
        {"sample": a sentence}; {} where it is not."""
        if not self.brief:
            return {}
        taken = self.sampled
        of = f"{len(taken.get('backbones', self.backbones))} of {len(self.backbones)} backbones"
        return {"sample": f"Short run: {taken['limit']} images at most, {of}. --whole takes all."}

    @property
    def of_brief(self) -> dict[str, str]:
        """That an analysis takes fewer images in a short run, as {"sample": a sentence}; {} in any
        other run."""
        if not self.brief:
            return {}
        return {"sample": "Short run: fewer images. --whole takes all."}

    def briefly(self, name: str, whole: T) -> T:
        """Return what a short run's `Brief` says under this name; `whole` in any other run."""
        return getattr(self.brief, name) if self.brief else whole

    def few(self, part: int, least: int = 2) -> int:
        """Return a fraction of the sample's number of images, for analyses that cost even more;
        at most `limit`.

        least : the fewest, as far as `limit` allows; one image alone has no interval
        """
        return min(self.limit or self.sample, max(least, self.sample // part))

    def prefer_method(self, key: str = "threshold_grad_cam") -> CamMethod:
        """Return this method if it is chosen, otherwise the first chosen one."""
        return next((m for m in self.methods if m.key == key), self.methods[0])

    @property
    def is_whole(self) -> bool:
        """Whether all models and images, and the profile's methods and protocols, are chosen."""
        methods = tuple(method.key for method in self.methods)
        chosen = (self.backbones, methods, self.limit, self.protocols, self.precision, self.target)
        row = self.profile
        whole = (row.backbones, row.methods, 0, row.protocols, "float32", row.target)
        return chosen == whole


# Everything that can be chosen, by the names of options and parameters; and the plain values.
NAMES = tuple("models" if f.name == "backbones" else f.name for f in fields(Choices))
_LISTS = ("models", "methods", "protocols", "accept", "compare", "gaze")
OPTIONS = tuple(n for n in NAMES if n not in ("profile", *_LISTS))
