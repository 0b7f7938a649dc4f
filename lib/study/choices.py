"""What a user chooses, checked: plain values and rows of tables, no files and no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

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

# Notebooks of one question: where people look, what DCLS replaces, what differs between models.
_OF_GAZE, _OF_DCLS, _OF_COMPARISONS = "00", "02", ("05", "05b", "05c")
_OF_SEVERAL = "05c"  # a leaderboard of one model would say nothing
_FEW = 4  # models; notebook 00 shows maps of each, and asks each again about every image
_COMPILERS = (os.environ.get("CXX") or "g++", "clang++", "c++", "cl")  # torch.compile's
_OF_THE_CLUSTER = ("workers", "scheduler")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_names(chosen: Iterable[str], known: Iterable[str]) -> None:
    """Raise UnknownName, with the nearest one, for a choice that there is not."""
    known = list(known)
    for name in chosen:
        if name not in known:
            raise unknown_name("choice", name, known)


def _in_order(models: Sequence[str]) -> tuple[Backbone, ...]:
    """Rows in the table's order, those that a name has made after them and as they were asked."""
    rows = BACKBONES.select(models)
    asked = dict.fromkeys(BACKBONES[key] for key in models)
    return (*(r for r in rows if not r.named), *(r for r in asked if r.named))


@dataclass(frozen=True)
class Choices:
    """Everything that can be chosen about a study; make one with `of`.

    limit      : number of images to use, 0 for all
    device     : "auto", "cpu", "cuda", "cuda:1" or "mps"
    batch_size : images per forward, 0 for a size that suits the device
    data_dir   : folder of downloaded files, "" for the project's `data/`
    protocols  : keys of PROTOCOLS
    images   : a folder of images and human maps in place of the profile's, "" for none
    keep_going : what is missing or cannot be read is left out and named
    precision  : a key of PRECISIONS
    compile    : networks are compiled by torch.compile, which needs a C++ compiler
    workers    : so many processes score at once, 0 for none but this one
    scheduler  : address of a Dask scheduler whose workers score, "" for none
    target     : one of TARGETS, the class whose evidence the maps show
    layout     : how `images` lie there, a key of LAYOUTS or of PLAIN, "" to find out
    fit        : how images that are no squares become such, one of FITS
    gaze       : "KEY=VALUE" texts: how gaze was recorded and becomes maps
    extend     : a file of own models and methods, see `lib.study.own_rows`, "" for none
    accept     : names of tensors, or patterns of them, that weights files may lack or have beyond
                 their network's
    ceiling    : the human ceiling, in 0-1, for who knows that of the human maps; 0 for none
    smallest_effect : difference of scores below which it does not matter
    name       : of the folders of results, in place of what the choices are called; "" for that
    compare    : a key of COMPARISONS; or models of which every two are compared, see `compared`;
                 empty for what the models ask for
    whole      : long analyses take the profile's whole sample, not its `brief` one; always False
                 where the profile has one sample only
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
        """Names become rows, and every choice is checked.

        models, methods, protocols, target : keys; empty takes the profile's: all models, and most
                  often the published methods, as always where models are named
        own     : models that the file `extend` has added
        gazed   : the folder `images` holds gaze points
        options : the other fields by name
        Raises ValueError (UnknownName for a name) saying what is wrong, the nearest
        name, and what is allowed.
        """
        if any(isinstance(names, str) for names in (models, methods, accept, compare, gaze)):
            raise ValueError(
                "models, methods, accept, compare and gaze are lists of names, not one text"
            )
        row = replace(PROFILES[profile], own=tuple(own))
        chosen = _in_order(models) if models else row.backbones
        absent = [b.key for b in chosen if b not in row.known]
        if absent:
            raise ValueError(f"the {row.key} profile has no model {', '.join(absent)}")
        if images := options.get("images"):
            caveat = "" if row.images else row.caveat  # of the embedded people
            layout = options.get("layout")
            label = LAYOUTS[layout].label if layout in LAYOUTS else Path(images).name[:40]
            row = replace(row, label=label, caveat=caveat)
            if gazed:  # which is blurred once already
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
        """The same with other values, by the names of the fields or of `from_profile`; rows, or
        their keys. Raises as `of`."""
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
            raise ValueError("workers and scheduler exclude each other: one starts a cluster here")
        if self.compile and not any(map(which, _COMPILERS)):
            raise ValueError(
                f"compile needs a C++ compiler, and none of {', '.join(_COMPILERS)} is there: "
                "install one, or leave --compile out"
            )
        if not _DEVICE.fullmatch(str(self.device)):
            raise ValueError(
                f"device {self.device!r} is none of auto, cpu, cuda, cuda:<number>, mps"
            )
        if self.target not in TARGETS:
            raise unknown_name("target", self.target, TARGETS)
        read = self.read  # raises, with the nearest name
        if not self.images and (self.layout or self.gaze or read.fit != CROP):
            raise ValueError(
                "layout, fit and gaze say how the folder of `images` is read: give one"
            )
        PRECISIONS[self.precision]  # raises, with the nearest name
        for name in self.accept:
            if not isinstance(name, str) or len(re.sub(r"[*?.\[\]!]", "", name)) < 2:
                raise ValueError(
                    f"accept {name!r} names no tensor: give its name, or a pattern such as "
                    "'*.total_ops'; what would match all is refused"
                )

        for name, low, high in (("ceiling", 0, 1), ("smallest_effect", 0, 2)):
            value = getattr(self, name)
            plain = isinstance(value, int | float) and not isinstance(value, bool)
            if not plain or not low <= value <= high:
                raise ValueError(f"{name} must be a number from {low} to {high}, got {value!r}")
            object.__setattr__(self, name, float(value))
        if 0 < self.ceiling < RULES.least_ceiling:
            raise ValueError(
                f"ceiling {self.ceiling:g}: people who agree by less than {RULES.least_ceiling:g} "
                "are no yardstick; 0 is for a ceiling that you do not know"
            )
        if self.name == "subset":
            raise ValueError("name 'subset' is that of runs without one: choose another")
        if not isinstance(self.name, str) or not re.fullmatch(
            r"([A-Za-z0-9][\w-]{0,59})?", self.name
        ):
            raise ValueError(
                f"name {self.name!r} names no folder: letters, digits, _ and -, 60 at most"
            )
        one = len(self.compare) == 1 and self.compare[0] not in COMPARISONS
        if one or len(set(self.compare)) < len(self.compare):
            raise ValueError(
                f"compare takes one of {', '.join(COMPARISONS)}, or two different models or more; "
                f"got {', '.join(self.compare)}"
            )

    @property
    def rows(self) -> list[Backbone | CamMethod | Layout]:
        """The models, methods and data set that were chosen."""
        data_set = [LAYOUTS[self.layout]] if self.layout in LAYOUTS else []
        return [*self.backbones, *self.methods, *data_set]

    @property
    def read(self) -> Read:
        """How the folder of images is read."""
        return Read(self.layout, self.fit, self.gaze)

    @property
    def rules(self) -> Rules:
        """By which results are judged."""
        return replace(RULES, smallest_effect=self.smallest_effect)

    @property
    def comparison(self) -> Comparison:
        """The row of COMPARISONS that `compare` names, or that these models ask for."""
        return comparison_of(self)

    @property
    def compared(self) -> list[Member]:
        """The models of which every two are compared: those that `compare` names, or all variants.

        A name is a variant's, such as "resnet50_dcls", with a method of the study's behind a
        colon where that is not the preferred one. Raises UnknownName.
        """
        named = self.compare[1:] and self.compare
        return [*map(self.member, named or (variant_name(b.key, d) for b, d in self.variants))]

    def member(self, name: str) -> Member:
        """One of the study's models by such a name. Raises UnknownName."""
        variants = {variant_name(b.key, dcls): (b, dcls) for b, dcls in self.variants}
        methods = {method.key: method for method in self.methods}
        named = {b.named: b.key for b in self.backbones if b.named}
        variant, colon, method = name.partition(":")
        for text, key in named.items():  # as --models takes it, which may have colons itself
            if name == text or name.startswith(f"{text}:"):
                variant, colon, method = key, *name[len(text) :].partition(":")[1:]
        check_names([variant], variants)
        check_names([method] if colon else [], methods)
        backbone, dcls = variants[variant]
        return Member(backbone, dcls, methods.get(method, self.prefer_method()), name=name)

    def options(self) -> dict:
        """What `Study.from_profile` makes the same choices from, in another process.

        Without workers and scheduler: those processes score by themselves.
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
        """(backbone, dcls) pairs, each backbone's baseline first."""
        return [(backbone, dcls) for backbone in self.backbones for dcls in backbone.forms]

    @property
    def paired(self) -> bool:
        """Some backbone has both forms, without DCLS and with it."""
        return any(backbone.dcls for backbone in self.backbones)

    def takes(self, number: str) -> bool:
        """Whether a whole run has the notebook of this number, such as "04b"."""
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
        """It asks the paper's question of some of the paper's models, so that its figures and
        claims are meant."""
        return self.comparison.key == "dcls" and any(b in THE_EIGHT for b in self.backbones)

    @property
    def predicted(self) -> bool:
        """Maps show the evidence for the class that a network predicts."""
        return self.target == "predicted"

    def asked(self, labels: torch.Tensor) -> torch.Tensor | None:
        """The classes whose evidence maps show: the labels, or None for the predicted ones."""
        return None if self.predicted else labels

    @property
    def sample(self) -> int:
        """Images for analyses that score many methods or networks a model."""
        return self.brief.images if self.brief else self.profile.sample

    @property
    def brief(self) -> Brief | None:
        """The smaller sample of the long analyses, where they take it."""
        return None if self.whole else self.profile.brief

    @property
    def sampled(self) -> dict:
        """The choices by which the long analyses differ, by the names of the fields."""
        limit = min(self.limit or self.sample, self.sample)
        if self.brief and self.backbones == self.profile.backbones:
            return {"limit": limit, "backbones": tuple(BACKBONES.select(self.brief.models))}
        return {"limit": limit}

    @property
    def of_sample(self) -> dict[str, str]:
        """For results of the long analyses, {"sample": how it is smaller than a whole run's}; {}
        where it is not."""
        if not self.brief:
            return {}
        taken = self.sampled
        of = f"{len(taken.get('backbones', self.backbones))} of {len(self.backbones)} backbones"
        return {"sample": f"Short run: {taken['limit']} images at most, {of}. --whole takes all."}

    def few(self, part: int, least: int = 2) -> int:
        """A part of the sample's number of images, for analyses that cost even more; at most
        `limit`.

        least : so many at least, as far as `limit` allows; one image alone has no interval
        """
        return min(self.limit or self.sample, max(least, self.sample // part))

    def prefer_method(self, key: str = "threshold_grad_cam") -> CamMethod:
        """This method if it is chosen, else the first that is."""
        return next((m for m in self.methods if m.key == key), self.methods[0])

    @property
    def is_whole(self) -> bool:
        """All models and images, and the profile's own methods and protocols, are chosen."""
        methods = tuple(method.key for method in self.methods)
        chosen = (self.backbones, methods, self.limit, self.protocols, self.precision, self.target)
        row = self.profile
        whole = (row.backbones, row.methods, 0, row.protocols, "float32", row.target)
        return chosen == whole


# What can be chosen, by the names of options and parameters; and what of it is a plain value.
NAMES = tuple("models" if f.name == "backbones" else f.name for f in fields(Choices))
_LISTS = ("models", "methods", "protocols", "accept", "compare", "gaze")
OPTIONS = tuple(n for n in NAMES if n not in ("profile", *_LISTS))
