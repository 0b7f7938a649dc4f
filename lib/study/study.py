"""One study: what was chosen, which files it reads, its models, and where its results go.

Everything a user chooses is checked here, before any work, for notebooks and
`run_all.py` alike. Importing this module and making a `Study` does not load torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.fingerprint import sha256_of
from ..base.paths import remember_staging
from ..networks.backbones import BACKBONES, Backbone
from ..people.stored import Read, StoredError, gaze_facts, has_gaze, layout_in
from ..people.stored.layouts import LAYOUTS
from .choices import NAMES, Choices, check_names
from .extension import load_extension, placed
from .inputs import Inputs, chosen_folder
from .places import Places
from .plug_ins import load_asked, plug_in_origins, plug_ins_used
from .profiles import PROFILES, Profile

if TYPE_CHECKING:
    from ..people.clickme import ClickMe
    from .networks import Networks


def _found_in(folder: Path, options: Mapping) -> dict:
    """Return what a folder of images reveals: the data set whose layout it has, and whether it
    contains gaze. Reading the folder reports any problem."""
    with suppress(StoredError, ValueError):
        read = Read(options.get("layout", ""))
        found = layout_in(folder, read)
        return {"layout": found if found in LAYOUTS else read.layout, "gazed": has_gaze(found)}
    return {}


def _by_name(
    models: Sequence[str], profile: Profile, target: str
) -> tuple[Sequence[str | Backbone], list[Backbone]]:
    """Return keys of the requested models, and the models made from names. A warning gives what a
    short name stands for, and what was skipped. Raises ImportError if torch cannot be loaded."""
    texts = [] if isinstance(models, str) else [m for m in models if isinstance(m, str)]
    if all(text in BACKBONES and not BACKBONES[text].named for text in texts):
        return models, []
    # Imported here because it loads torch and timm.
    try:
        from .named_models import named_rows
    except (OSError, RuntimeError) as error:  # a library of torch's, or the GPU's driver, is broken
        raise ImportError(f"torch cannot be loaded: {error}") from None

    made = named_rows(texts, profile, (target or profile.target) == "predicted")
    for note in made.notes:
        warnings.warn(note, NamedModels, stacklevel=3)
    rows = [m for m in models if not isinstance(m, str)]
    named = [row for row in made.rows if row.named]
    return ([*made.rows, *rows] if rows else [row.key for row in made.rows]), named


class NamedModels(UserWarning):
    """The warning that says what names of models stand for, and what was skipped."""


# The choices that determine results, besides profile, models and methods.
_RESULTS_DEPEND_ON = (
    "limit", "protocols", "images", "layout", "fit", "gaze", "precision", "compile", "target",
    "accept", "ceiling", "smallest_effect", "compare", "whole",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """The four parts of a study; create one with `from_profile`.

    choices  : what was chosen, checked
    inputs   : which files it reads
    networks : its models
    places   : where its results go
    """

    choices: Choices

    @classmethod
    def from_profile(
        cls,
        profile: str = "demo",
        models: Sequence[str] = (),
        methods: Sequence[str] = (),
        limit: int = 0,
        **options,
    ) -> Study:
        """Check every choice and bind it to a profile's data.

        models, methods : keys; empty takes all models and the published methods. Models may also
                  be "timm:NAME", "untrained:NAME" and "NAME@PATH", see `lib.study.named_models`
        limit   : the number of images to use, 0 for all
        options : the other fields of `Choices` by name: device, batch_size, images, …

        Raises ValueError (UnknownName for a name), which says what is wrong, the nearest known
        name, and what is allowed.
        """
        remember_staging()
        check_names(options, NAMES)
        layout = options.get("layout", "") if options.get("images") else None
        own = []
        if extend := options.get("extend"):
            path = placed(Path(extend))
            origin = load_extension(path)
            own = [b for b in BACKBONES.values() if b.origin == origin and not b.named]
            options |= {"extend": str(path)}
        load_asked(models, methods, layout)
        for name in ("images", "data_dir"):
            if name in options:
                options[name] = chosen_folder(name, options[name])
        if options.get("images"):
            options |= _found_in(Path(options["images"]), options)
        models, named = _by_name(models, PROFILES[profile], options.get("target", ""))
        rows = [BACKBONES[name] for name in models if name in BACKBONES]
        named += [row for row in rows if plug_in_origins([row]) and row not in own + named]
        return cls(Choices.of(profile, models, methods, own + named, limit=limit, **options))

    def changed(self, **changes) -> Study:
        """Return the same study with other choices, fields of `Choices` by name."""
        load_asked(changes.get("models", ()), changes.get("methods", ()))
        if "models" in changes:
            target = changes.get("target", self.choices.target)
            changes["models"], _ = _by_name(changes["models"], self.choices.profile, target)
        return Study(self.choices.changed(**changes))

    def sampled(self, **changes) -> Study:
        """Return the study on at most the sample's number of images, and its models, as the long
        analyses take them, with other changes."""
        return self.changed(**self.choices.sampled | changes)

    @cached_property
    def inputs(self) -> Inputs:
        return Inputs(self.choices)

    @cached_property
    def places(self) -> Places:
        return Places(self.choices)

    @cached_property
    def networks(self) -> Networks:
        # Imported here because it loads torch, which choosing and checking do not need.
        from .networks import Networks

        return Networks(self.choices, self.inputs)

    def clickme(self, limit: int | None = None) -> ClickMe:
        """Return the study's images, human maps and labels; `limit` overrides its own."""
        # Imported here because it loads torch.
        from ..people.clickme import ClickMe

        return self.inputs.listed(ClickMe, limit)

    def unlike(self, facts: Mapping) -> list[str]:
        """Return how this study differs from the one in `facts`, ignoring where it ran."""
        return [
            f"{name}: {facts[name]}, here {value}"
            for name, value in self._made_by().items()
            if name in facts and facts[name] != value
        ]

    def _made_by(self) -> dict:
        """Return the choices that determine results."""
        options, extend = self.choices.options(), self.choices.extend
        used = plug_ins_used(self.choices.rows)
        return {
            **{name: options[name] for name in ("profile", "models", "methods")},
            **{name: options[name] for name in _RESULTS_DEPEND_ON},
            "extend": sha256_of(Path(extend)) if extend else "",
            **({"plug_ins": dict(used)} if used else {}),
        }

    @property
    def reading(self) -> str:
        """How the gaze of its images becomes maps, in words; "" if only maps are stored."""
        return self._viewing.get("in_words", "")

    @cached_property
    def _viewing(self) -> dict:
        """Return how gaze becomes maps; {} if only maps are stored."""
        places = self.inputs.image_paths()
        with suppress(StoredError):  # reading the images reports it
            return gaze_facts(places[0], self.choices.read) if places[0].is_dir() else {}
        return {}

    def facts(self) -> dict:
        """Return the choices as plain values, written beside figures and tables."""
        # Imported here because it loads torch.
        from .device import chosen_device

        return self._made_by() | {
            "viewing": self._viewing,
            "device": str(chosen_device(self.choices.device)),
            "batch_size": self.choices.batch_size or "auto",
            "caveat": self.choices.profile.caveat,
        }
