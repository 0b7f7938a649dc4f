"""Comparisons: which models belong together, in which order, and what the difference is called.

Each row is one comparison; tables, figures, tests and wording follow from it. The first row is the
paper's question: with DCLS against without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.tables import Table, UnknownName
from ..maps.methods import CamMethod
from ..networks.backbones import Backbone, variant_name

if TYPE_CHECKING:
    from .choices import Choices


@dataclass(frozen=True)
class Member:
    """A model in a comparison, with one method or with each of the study's.

    method : None for each of the study's methods
    form   : what distinguishes it from the others of its group: "with DCLS"; "" for one alone
    at     : its position on the comparison's axis, if it has one
    name   : its name in `Choices.compare`
    """

    backbone: Backbone
    dcls: bool
    method: CamMethod | None = None
    form: str = ""
    at: float | None = None
    name: str = ""

    @property
    def variant(self) -> str:
        return variant_name(self.backbone.key, self.dcls)

    @property
    def label(self) -> str:
        """The model's label, followed by its method if it has one of its own."""
        model = self.backbone.titled(self.dcls)
        return f"{model}, {self.method.label}" if self.method else model


@dataclass(frozen=True)
class Group:
    """Models that belong together, in their order; each later one is compared with the first.

    label  : unique within the comparison
    family : p values are corrected over all groups of the same family
    """

    label: str
    members: tuple[Member, ...]
    family: str = ""


@dataclass(frozen=True)
class Placed:
    """A model and a method with their position in the comparison.

    panel : the method's key if each of the study's methods has its own panel, otherwise ""
    place : 0 for the group's first
    """

    panel: str
    group: Group
    place: int
    member: Member
    method: CamMethod


@dataclass(frozen=True)
class Comparison:
    """A row of the table.

    label    : what is compared, in a few words
    question : the report's heading
    groups   : returns groups of the chosen models; a model in no group stands alone
    rows     : what a group is called, in the singular
    change   : what a difference is: "with DCLS minus without"
    axis     : what the order means, with its unit; "" for an order without one
    along    : the summary's column with the position on the axis
    shared   : whether groups have the same forms, so that they can be drawn side by side
    applies  : whether the comparison is meant if nobody names one
    """

    key: str
    label: str
    question: str
    groups: Callable[[Choices], list[Group]] = field(repr=False)
    rows: str = "model"
    change: str = "difference"
    axis: str = ""
    along: str = "at"
    shared: bool = False
    applies: Callable[[Choices], bool] = field(repr=False, default=lambda choices: False)


def _by_dcls(choices: Choices) -> list[Group]:
    """Pair each backbone's variants. p values of the study's own models are corrected together,
    those of a user's separately, and a fairer pair of one of the study's models by itself."""
    found = []
    for b in choices.backbones:
        if b.dcls is None:
            continue
        family = b.key if b.pair_of else "own" if b.origin else ""
        members = tuple(Member(b, dcls, form=b.form_name(dcls)) for dcls in (False, True))
        found.append(Group(b.label, members, family))
    return found


def _by_training(choices: Choices) -> list[Group]:
    """Group the checkpoints of each folder as one training."""
    groups = _together(choices, lambda b: f"{_base(b)}@{_folder(b)}" if b.series else "")
    return [
        Group(
            _of_training(group, groups),
            tuple(
                replace(m, form=m.form.rpartition(", ")[2])  # "epoch 3" of "resnet18, epoch 3"
                for m in sorted(group.members, key=lambda m: m.at)
            ),
        )
        for group in groups
    ]


def _base(backbone: Backbone) -> str:
    """Return the name from which `NAME@PATH` made a row."""
    return backbone.named.partition("@")[0]


def _folder(backbone: Backbone) -> Path:
    return Path(backbone.weights).parent


def _of_training(group: Group, groups: Sequence[Group]) -> str:
    """Return what is trained: "resnet18" for "resnet18, epoch 3", with as much of the folder as is
    needed to distinguish trainings."""

    def told(one: Group, parts: int) -> str:
        first = one.members[0].backbone
        name = first.label.rpartition(", ")[0].partition(" (")[0]
        return f"{name} ({'/'.join(_folder(first).parts[-parts:])})" if parts else name

    longest = max(len(_folder(one.members[0].backbone).parts) for one in groups)
    for parts in range(longest + 1):
        label = told(group, parts)
        if [told(one, parts) for one in groups].count(label) == 1:
            return label
    return group.label


def _by_method(choices: Choices) -> list[Group]:
    return [
        Group(
            backbone.titled(dcls),
            tuple(Member(backbone, dcls, method, method.label) for method in choices.methods),
        )
        for backbone, dcls in choices.variants
    ]


def _published(backbone: Backbone) -> bool:
    """Return whether its weights are the architecture's published ones: not random or a file's."""
    return not backbone.untrained and not backbone.weights


def _architecture(backbone: Backbone) -> str:
    """Return timm's name, "" if the network is modified, as with DCLS."""
    with_dcls = _base(backbone).endswith(variant_name("", True))
    return "" if with_dcls else backbone.timm_name


def _by_learning(choices: Choices) -> list[Group]:
    """Group trained models with untrained ones, random weights first."""
    found = []
    for group in _together(choices, _architecture):
        random = [m for m in group.members if m.backbone.untrained]
        learned = [m for m in group.members if _published(m.backbone)]
        if len(random) == len(learned) == 1:
            pair = replace(random[0], form="untrained"), replace(learned[0], form="trained")
            found.append(Group(learned[0].label, pair))
    return found


def _by_tuning(choices: Choices) -> list[Group]:
    """Group models of one architecture: published weights first, then those of files."""
    found = []
    for group in _together(choices, _architecture):
        before = [m for m in group.members if _published(m.backbone)]
        after = [m for m in group.members if "@" in m.backbone.named and not m.backbone.series]
        if len(before) == 1 and after:
            forms = ["before", "after"] if len(after) == 1 else [m.label for m in before + after]
            members = [replace(m, form=form) for m, form in zip(before + after, forms, strict=True)]
            found.append(Group(before[0].label, tuple(members)))
    return found


def _by_recipe(choices: Choices) -> list[Group]:
    return _together(choices, lambda b: _architecture(b) if _published(b) else "")


def _by_size(choices: Choices) -> list[Group]:
    return [Group("models", tuple(_plain_forms(choices)))]


def _plain_forms(choices: Choices) -> Iterator[Member]:
    for b in choices.backbones:
        yield Member(b, False, form=b.label, at=b.stage)


def _together(choices: Choices, named: Callable[[Backbone], str]) -> list[Group]:
    """Group models without DCLS by a property, if it is not "" and several models share it."""
    found: dict[str, list[Member]] = {}
    for member in _plain_forms(choices):
        if name := named(member.backbone):
            found.setdefault(name, []).append(member)
    return [Group(name, tuple(some)) for name, some in found.items() if len(some) > 1]


def _chosen(choices: Choices) -> list[Group]:
    """Return the models that `compare` names, in their order."""
    members = [replace(m, form=m.label) for m in choices.compared]
    methods = {m.method for m in members}
    if len(methods) == 1 and not any(":" in m.name for m in members):
        members = [replace(m, method=None, form=m.backbone.titled(m.dcls)) for m in members]
    return [Group("models", tuple(members))]


def _none(choices: Choices) -> list[Group]:
    return []


_HUMAN = "look where people look?"
COMPARISONS: Table[Comparison] = Table(
    "comparison",
    [
        Comparison(
            "dcls", "with and without DCLS",
            f"Do convolutions with learnable spacings make vision models {_HUMAN}",
            _by_dcls, "backbone", "with DCLS minus without", shared=True,
            applies=lambda choices: choices.paired,
        ),
        Comparison(
            "training", "checkpoints over a training",
            f"Does a model, while it is trained, come to {_HUMAN}",
            _by_training, "training", "later minus first checkpoint",
            "stage of the training, as its files are numbered",
            applies=lambda choices: bool(_by_training(choices)),
        ),
        Comparison(
            "learning", "trained and untrained",
            f"Does training make models {_HUMAN}",
            _by_learning, "architecture", "trained minus untrained", shared=True,
            applies=lambda choices: bool(_by_learning(choices)),
        ),
        Comparison(
            "tuning", "before and after fine-tuning",
            f"Does fine-tuning make models {_HUMAN}",
            _by_tuning, "architecture", "after minus before", shared=True,
            applies=lambda choices: bool(_by_tuning(choices)),
        ),
        Comparison(
            "recipes", "training recipes of one architecture",
            f"Does the training recipe make a model {_HUMAN}",
            _by_recipe, "architecture", "each minus the first",
        ),
        Comparison(
            "sizes", "models by their size",
            f"Do larger models {_HUMAN}",
            _by_size, "model", "each minus the first", "learnable parameters (millions)",
            "parameters_millions",
        ),
        Comparison(
            "methods", "CAM methods on each model",
            "Which CAM method's heatmaps lie where people look?",
            _by_method, "model", "each method minus the first", shared=True,
        ),
        Comparison(
            "models", "the named models, with the first of them",
            f"Which of these models {_HUMAN}",
            _chosen, "model", "each minus the first",
            applies=lambda choices: len(choices.compared) == 2 or len(choices.compare) > 1,
        ),
        Comparison("none", "models side by side", f"Do vision models {_HUMAN}", _none),
    ],
)  # fmt: skip
_ORDER = ("training", "dcls", "learning", "tuning", "models")


def named_groups(
    groups: Mapping[str, Sequence[str]],
    forms: Sequence[str],
    at: Mapping[str, float],
    choices: Choices,
) -> list[Group]:
    """Return the groups of a user's comparison, restricted to the chosen models.

    groups : {label: names as in `Choices.compare`}
    forms  : what the models of every group are called, by position; empty for the models' labels
    at     : {name: position on the axis}

    Raises ValueError if no group has two of the chosen models.
    """
    found = []
    of_methods = any(":" in name for names in groups.values() for name in names)
    for label, names in groups.items():
        members = []
        for place, name in enumerate(names):
            try:
                member = choices.member(name)
            except UnknownName:
                continue  # it belongs to the comparison, but not to this study
            member = member if of_methods else replace(member, method=None)
            form = forms[place] if forms else member.label
            members.append(replace(member, form=form, at=at.get(name, member.at)))
        if len(members) > 1:
            found.append(Group(label, tuple(members)))
    if not found:
        raise ValueError(
            "no group of this comparison has two of the study's models; choose some of "
            f"{', '.join(name for names in groups.values() for name in names)}"
        )
    return found


def check_compared(choices: Choices) -> None:
    """Raise UnknownName, or ValueError if a requested comparison compares nothing."""
    comparison = comparison_of(choices)
    groups = comparison.groups(choices)
    if choices.compare and comparison.key != "none" and not any(g.members[1:] for g in groups):
        raise ValueError(
            f"--compare {comparison.key} ({comparison.label}): these models and methods have "
            "nothing of that kind to compare, see docs/comparisons.md"
        )


def comparison_of(choices: Choices) -> Comparison:
    """Return the row that `compare` names, or the first that the chosen models suggest."""
    if len(choices.compare) == 1:
        return COMPARISONS[choices.compare[0]]
    if choices.compare:
        return COMPARISONS["models"]
    return next((COMPARISONS[k] for k in _ORDER if COMPARISONS[k].applies(choices)),
                COMPARISONS["none"])  # fmt: skip


def groups_of(choices: Choices) -> list[Group]:
    """Return the groups of the study's comparison, then every other model as its own group."""
    groups = comparison_of(choices).groups(choices)
    there = {member.variant for group in groups for member in group.members}
    taken = {group.label for group in groups}
    for backbone, dcls in choices.variants:
        alone = Member(backbone, dcls, at=backbone.stage)
        if alone.variant not in there:
            label = alone.label
            while label in taken:
                label += " alone"
            taken.add(label)
            groups.append(Group(label, (alone,)))
    return groups


def arranged(choices: Choices) -> list[Placed]:
    """Return every model of the study with every method, at its position in the comparison; a
    model in several groups appears several times."""
    found = []
    for group in groups_of(choices):
        for place, member in enumerate(group.members):
            if member.method:
                found.append(Placed("", group, place, member, member.method))
                continue
            found += [Placed(m.key, group, place, member, m) for m in choices.methods]
    return found


def pairs_of(choices: Choices) -> list[tuple[Placed, Placed]]:
    """Return (first, later) of every group and panel."""
    first: dict[tuple[str, str], Placed] = {}
    found = []
    for each in arranged(choices):
        key = each.panel, each.group.label
        if each.place:
            found.append((first[key], each))
        else:
            first[key] = each
    return found


def forms_of(choices: Choices) -> tuple[str, ...]:
    """Return what the models of a group are called if all groups share their forms, else ()."""
    if not comparison_of(choices).shared:
        return ()
    forms = {tuple(m.form for m in g.members) for g in groups_of(choices) if len(g.members) > 1}
    return forms.pop() if len(forms) == 1 else ()
