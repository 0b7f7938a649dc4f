"""Models made from a name, without a file of rows: timm's, untrained ones, and weights files.

`timm:NAME`       timm's architecture NAME with its published weights; a tag, as in
                  `timm:resnet50.a1_in1k`, selects them; `timm:resnet*` gives several models
`untrained:NAME`  the same with random weights from a fixed seed: a control, not a result
`NAME@PATH`       NAME is a model of the table, `timm:NAME` or timm's own NAME; the weights come
                  from a file; a folder gives a row per numbered file: the stages of one training
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from glob import glob
from pathlib import Path

from timm.models import is_model, list_models
from torch import nn

from ..base.fingerprint import fingerprint
from ..base.tables import unknown_name
from ..base.words import counted, some_of
from ..networks import timm_names
from ..networks.backbones import BACKBONES, Backbone, variant_name
from ..networks.building import build_network
from ..networks.checked import at_its_layer, found_of
from ..networks.checkpoints import OF_TIMM
from ..networks.sources import WEIGHTS, WEIGHTS_SUFFIXES
from .profiles import Profile
from .stages import stages_of, weights_in, word_of

MOST = 60  # models that one pattern may name
_TIMM, _UNTRAINED = "timm:", "untrained:"
_COLOURS = (
    "#332288", "#AA4499", "#117733", "#882255", "#44AA99", "#999933", "#88CCEE", "#DDCC77",
    "#CC6677", "#661100", "#6699CC", "#888888",
)  # fmt: skip


@dataclass
class Named:
    """Rows made from names.

    rows  : in the order in which they were requested
    notes : what was skipped, and what a short name stands for, in words
    """

    rows: list[Backbone] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def named_rows(texts: Sequence[str], profile: Profile, predicted: bool) -> Named:
    """Return the models of these texts, added to the table; a text may also be a key of the table.

    predicted : whether heatmaps show the evidence for the predicted class, so that a model may
                have other classes than the profile

    Raises UnknownName with the nearest name, and ValueError for weights that do not exist or
    have other classes.
    """
    made = Named()
    folders: dict[str, set[Path]] = {}
    for base, at, place in (text.partition("@") for text in texts):
        if at:
            path = Path(re.sub(r"#\d+$", "", place)).expanduser().resolve()
            folders.setdefault(base, set()).add(path if path.is_dir() else path.parent)
    several = {base for base, found in folders.items() if len(found) > 1}
    maker = _Maker(profile, predicted, made.notes, several)
    for text in texts:
        made.rows += maker.rows_of(text)
    made.rows = list(dict.fromkeys(made.rows))
    return made


@dataclass
class _Member:
    """One weights file: its model, and its stage of a training."""

    base: str
    file: Path
    stage: int | None = None
    word: str = "epoch"


class _Maker:
    """Makes rows from texts for one profile."""

    def __init__(self, profile: Profile, predicted: bool, notes: list[str], several: set[str]):
        self.profile, self.notes = profile, notes
        self.several = several  # models with weights in several folders, which labels distinguish
        self.classes = None if predicted else profile.classes

    def rows_of(self, text: str) -> list[Backbone]:
        if text in BACKBONES:
            return [BACKBONES[text]]
        if "@" in text:
            return self._of_files(text)
        if text.startswith(_UNTRAINED):
            return self._untrained(text.removeprefix(_UNTRAINED))
        if text.startswith(_TIMM):
            return self._published(text.removeprefix(_TIMM))
        raise _unknown(text)

    # --- published weights ----------------------------------------------------------------

    def _published(self, pattern: str) -> list[Backbone]:
        names = timm_names.published(pattern)
        refused = {n: why for n in names if (why := timm_names.why_not(n, self.classes))}
        if len(names) == 1 and refused:
            raise ValueError(refused[names[0]])
        usable = [name for name in names if name not in refused]
        if not usable:
            raise ValueError(f"timm:{pattern}: none can be used: {next(iter(refused.values()))}")
        _check_count(f"timm:{pattern}", usable)
        if refused:
            self.notes.append(
                f"timm:{pattern}: {len(refused)} of {len(names)} are skipped, such as "
                f"{next(iter(refused.values()))}"
            )
        if len(names) > 1:
            self.notes.append(
                f"timm:{pattern} are {counted(len(usable), 'model')}: {', '.join(usable)}"
            )
        elif "." not in pattern:
            self.notes.append(f"timm:{pattern} is {usable[0]}, timm's default weights")
        return self._each(f"timm:{pattern}", usable, self._one_published)

    def _one_published(self, name: str) -> Backbone:
        def made(key: str) -> Backbone:
            return replace(self._of_timm(key, name, name), named=f"{_TIMM}{name}")

        return self._added(_as_key(name), f"{_TIMM}{name}", made, name)

    def _of_timm(self, key: str, label: str, name: str) -> Backbone:
        architecture = name.partition(".")[0]
        return Backbone(
            key, label, timm_names.family_of(architecture), name, None,
            timm_names.preprocessing_of(name), _next_colour(),
            origin=_digest(f"{_TIMM}{architecture}"),
        )  # fmt: skip

    # --- random weights -------------------------------------------------------------------

    def _untrained(self, pattern: str) -> list[Backbone]:
        if pattern in BACKBONES or not _is_timms(pattern):
            self._check_base(pattern)
            return [self._one_untrained(pattern)]
        names = timm_names.architectures(pattern)
        _check_count(f"{_UNTRAINED}{pattern}", names)
        if len(names) > 1:
            self.notes.append(
                f"{_UNTRAINED}{pattern} are {counted(len(names), 'model')}: {', '.join(names)}"
            )
        return self._each(f"{_UNTRAINED}{pattern}", names, self._one_untrained)

    def _one_untrained(self, name: str) -> Backbone:
        def made(key: str) -> Backbone:
            row = self._base(name, key)
            label = f"{row.label}, untrained"
            return replace(row, label=label, named=f"{_UNTRAINED}{name}", untrained=True)

        return self._added(
            f"{_as_key(name)}_untrained{self._suffix(name)}", f"{_UNTRAINED}{name}", made
        )

    # --- weights of files -----------------------------------------------------------------

    def _of_files(self, text: str) -> list[Backbone]:
        base, _, place = text.partition("@")
        if base.startswith(_UNTRAINED):
            raise ValueError(f"{text}: untrained weights do not come from a file: omit untrained:")
        self._check_base(base)
        if not base.startswith(_TIMM) and _of_table(base)[0] is None:
            base = f"{_TIMM}{base}"
        found = re.fullmatch(r"(.*)#(\d+)", place, re.DOTALL)
        if found and Path(found[1]).expanduser().is_file():
            file = Path(found[1]).expanduser().resolve()
            stage = int(found[2])
            return [self._one_of_file(_Member(base, file, stage, word_of(file, stage)))]
        path = Path(place).expanduser()
        if path.is_file():
            if not path.name.endswith(WEIGHTS_SUFFIXES):
                raise ValueError(
                    f"{text}: a file of weights ends in {', '.join(WEIGHTS_SUFFIXES)}; rename it"
                )
            return [self._one_of_file(_Member(base, path.resolve()))]
        if path.is_dir():
            files = weights_in(path)
        else:
            matching = [Path(name) for name in glob(str(path))]  # noqa: PTH207 - of any folder
            files = sorted(p for p in matching if p.name.endswith(WEIGHTS_SUFFIXES))
            if not files:
                raise ValueError(f"{text}: no file or folder is named, or matches, {place}")
        stages, left = stages_of([file.resolve() for file in files], text)
        if left:
            self.notes.append(f"{text}: skipped, without such a number: {some_of(left)}")
        return [self._one_of_file(_Member(base, s.file, s.number, s.word)) for s in stages]

    def _one_of_file(self, member: _Member) -> Backbone:
        base, file = member.base, member.file
        number = "" if member.stage is None else f"#{member.stage}"
        text = f"{member.base}@{file}{number}"
        series = file.parent.name if number else ""
        short = f"{series}_{member.stage}" if number else file.name.partition(".")[0]
        place = _digest(text)[:4]
        key = f"{_as_key(base.removeprefix(_TIMM))}_{_as_key(short)}_{place}{self._suffix(base)}"

        def made(key: str) -> Backbone:
            row = self._base(base, key)
            said = f"{member.word} {member.stage}" if number else file.name.partition(".")[0]
            folder = f" ({file.parent.name})" * (member.base in self.several)
            labels = (
                f"{row.label}{folder}, {said}",
                f"{row.label} ({file.parent.name}), {said}",
                f"{row.label} ({file.parent.parent.name}/{file.parent.name}), {said}",
            )
            taken = {other.label for other in BACKBONES.values()}
            before = [o for o in BACKBONES.values() if series and o.weights]
            of_series = [o for o in before if Path(o.weights).parent == file.parent]
            colour = of_series[0].colour if of_series else row.colour  # one colour per training
            return replace(
                row, label=next((label for label in labels if label not in taken), key),
                colour=colour, named=text, series=series, stage=member.stage, weights=str(file),
            )  # fmt: skip

        return self._added(key, text, made)

    # --- shared -----------------------------------------------------------------------------

    def _base(self, name: str, key: str) -> Backbone:
        """Return a row of this architecture under another key, without weights of its own."""
        row, dcls = _of_table(name)
        if row is None:
            name = name.removeprefix(_TIMM)
            return self._of_timm(key, name.partition(".")[0], name)
        mini = self.profile.mini and not row.origin
        own = dict(
            key=key, label=row.titled(dcls) + " mini" * mini, dcls=None, pair_of="",
            top1=(None, None), compared=True, embedded=False, weights="", weights_dcls="",
            named="", untrained=False, colour=_next_colour(),
        )  # fmt: skip
        facts = {"row": (row.timm_tag, row.origin, row.layer, dict(row.arguments))}
        facts |= {"form": (dcls and row.dcls, mini and row.mini)}
        if dcls or mini:
            own["build"] = partial(_built, row, dcls, mini)
        return replace(row, **own, origin=_digest(fingerprint(facts)))

    def _check_base(self, name: str) -> None:
        """Raise UnknownName unless the table, or timm, has this architecture, and ValueError for
        a form that it does not have."""
        row, dcls = _of_table(name)
        if row is None and not name.startswith(_TIMM) and not is_model(name):
            raise _unknown(name)
        if row is None:
            timm_names.check_architecture(name.removeprefix(_TIMM))
        elif dcls and row.dcls is None:
            raise ValueError(f"{row.key} has no DCLS form: omit _dcls")

    def _suffix(self, name: str) -> str:
        """Return a key's suffix: the embedded miniatures are other networks of the same name."""
        row, _ = _of_table(name)
        return "_mini" * (row is not None and self.profile.mini and not row.origin)

    def _each(
        self, text: str, names: Sequence[str], make: Callable[[str], Backbone]
    ) -> list[Backbone]:
        """Make a row per name; if there are several, skip and note those without usable layers."""
        rows, failed = [], []
        for name in names:
            try:
                rows.append(make(name))
            except ValueError as error:
                if len(names) == 1:
                    raise
                failed.append(f"{text}: skipped: {error}")
        if not rows:
            raise ValueError(failed[0])
        self.notes += failed
        return rows

    def _added(
        self, key: str, text: str, make: Callable[[str], Backbone], published: str = ""
    ) -> Backbone:
        """Return the row of this key: the existing one if the same text made it, or a new one.

        published : the name, with its tag, of weights that are to be fetched
        """
        if key in BACKBONES:
            if BACKBONES[key].named != text:
                raise ValueError(
                    f"{text} would have the key {key}, like another model of the table: rename one"
                )
            return BACKBONES[key]
        row = make(key)
        if any(other.label == row.label for other in BACKBONES.values()):
            row = replace(row, label=f"{row.label} ({key})")
        if row.family.startswith(OF_TIMM) and row.build is None:  # such a row was not tried before
            found = found_of(row)
            row = at_its_layer(row, found)
            if published and key not in WEIGHTS:
                WEIGHTS.add(timm_names.source_of(key, published, found.parameters / 1e6))
        return BACKBONES.add(row)


def _built(row: Backbone, dcls: bool, mini: bool, classes: int) -> nn.Module:
    """Build a row's network, plain or with DCLS."""
    return build_network(row, dcls, mini=mini, num_classes=classes)


def _of_table(name: str) -> tuple[Backbone | None, bool]:
    """Return the row that a text names, and whether with DCLS; None for a name of timm's."""
    if name in BACKBONES:
        return BACKBONES[name], False
    key = name.removesuffix(variant_name("", True))
    return (BACKBONES[key], True) if key != name and key in BACKBONES else (None, False)


def _is_timms(text: str) -> bool:
    return any(sign in text for sign in timm_names.WILD) or is_model(text)


def _unknown(text: str) -> ValueError:
    """Return the error for a text that names nothing, with what may have been meant."""
    error = unknown_name("model", text, BACKBONES)
    prefix, _, name = text.rpartition(":")
    near = difflib.get_close_matches(name, {*BACKBONES, *list_models()}, n=3, cutoff=0.5)
    if near and prefix in ("", _TIMM[:-1], _UNTRAINED[:-1]) and not is_model(name):
        return type(error)(
            f"unknown model {text!r}. Did you mean {' or '.join(map(repr, near))}? "
            "`python run_all.py --list` shows the study's models; timm's are timm:NAME, or "
            "untrained:NAME"
        )
    if is_model(text.partition("@")[0]):
        more = f"timm has it: timm:{text}, or untrained:{text} with random weights."
        return type(error)(f"unknown model {text!r}. {more}")
    prefix, _, name = text.partition(":")
    if f"{prefix}:" in (_TIMM, _UNTRAINED):
        timm_names.check_architecture(name)
    if ":" in text:
        return type(error)(
            f"unknown model {text!r}: {prefix}: is not a known prefix; use timm:NAME, "
            "untrained:NAME or NAME@PATH"
        )
    return error


def _check_count(text: str, names: Iterable[str]) -> None:
    names = list(names)
    if len(names) > MOST:
        raise ValueError(
            f"{text} matches {len(names)} models, such as {', '.join(names[:4])}; a pattern may "
            f"match at most {MOST}: narrow it ({names[0][:9]}*), or give several"
        )


def _as_key(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").removesuffix("_dcls") + (
        "_with_dcls" if name.endswith("_dcls") else ""
    )


def _next_colour() -> str:
    return _COLOURS[sum(1 for row in BACKBONES.values() if row.origin) % len(_COLOURS)]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
