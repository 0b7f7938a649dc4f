"""The models that a command for single images is to use, and where their weights are."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..base.paths import IS_CHECKOUT, ONLY_IN_A_CHECKOUT, shown
from ..base.shortage import is_out_of_memory
from ..base.tables import unknown_name
from ..maps.methods import CamMethod
from ..networks.backbones import BACKBONES, Backbone, variant_name
from ..networks.class_counts import load_with_its_classes
from ..networks.loading import load_model
from ..networks.models import StudyModel
from ..networks.sources import AS_IS
from ..study.inputs import MissingInputs
from ..study.named_models import named_rows
from ..study.profiles import PROFILES
from ..study.study import Study

WEIGHTS = ("demo", "paper", "timm", "random")


def variants(names: Sequence[str], dcls: bool, both: bool) -> list[tuple[Backbone, bool]]:
    """Return (backbone, dcls) for each name: a model's key, a variant such as "resnet50_dcls", or
    a name from which `lib.study.named_models` makes a model.

    dcls, both : all models with DCLS, or all without and with it

    Raises UnknownName, and ValueError for a model that has no DCLS form.
    """
    found: list[tuple[Backbone, bool]] = []
    for name in names:
        if name not in BACKBONES and any(sign in name for sign in ":@"):
            profile = PROFILES["paper"]  # its models have full size
            found += [(row, False) for row in named_rows([name], profile, True).rows]
            continue
        key = name.removesuffix("_dcls")
        backbone = BACKBONES[key]
        forms = (False, True) if both else (dcls or name != key,)
        if True in forms and backbone.dcls is None:
            names_none = (
                "add_model was given no recipe for it (`dcls` and `weights_dcls`, see "
                "docs/own-models.md)" if backbone.origin else "no DCLS weights of it are published"
            )  # fmt: skip
            raise ValueError(
                f"{key} has no DCLS form: {names_none}. Use it without DCLS, and add other models "
                f"with DCLS by name: --model {key} resnet50_dcls"
            )
        found += [(backbone, form) for form in forms]
    return list(dict.fromkeys(found))


def class_count(model: StudyModel) -> int:
    """Return a model's number of classes."""
    side, device = model.backbone.preprocessing.crop, next(model.parameters()).device
    with torch.inference_mode():
        return model(torch.zeros(1, 3, side, side, device=device)).shape[-1]


@dataclass(frozen=True)
class AskedModel:
    """One variant, and the weights that it is to have.

    weights : a word of WEIGHTS, or a file; "" for the row's own: a user's model has its file, the
              study's eight have the demo's miniatures, the others the paper's weights
    options : options of `Study.from_profile`
    """

    backbone: Backbone
    dcls: bool
    weights: str
    options: dict

    @property
    def name(self) -> str:
        return variant_name(self.backbone.key, self.dcls)

    @property
    def kind(self) -> str:
        """A word of WEIGHTS, "own" or "file"."""
        if self.weights and self.weights not in ("demo", "paper"):
            return self.weights if self.weights in WEIGHTS else "file"
        if self.backbone.origin:
            return "own"
        known = self.backbone in PROFILES["demo"].known
        return self.weights or ("demo" if known else "paper")

    @property
    def label(self) -> str:
        """The model's label in a figure."""
        said = {"demo": " (miniature)", "random": " (random weights)"}
        return self.backbone.titled(self.dcls) + said.get(self.kind, "")

    @property
    def on_the_demo(self) -> bool:
        return "demo" in (self.weights, self.kind)

    def study(self, profile: str = "") -> Study:
        profile = profile or ("demo" if self.on_the_demo else "paper")
        target = {"target": "predicted"} if self.backbone.named else {}  # of whatever classes
        return Study.from_profile(profile, [self.backbone.key], **self.options, **target)

    def check(self, methods: Sequence[CamMethod]) -> None:
        """Raise MissingInputs or ValueError for problems that are clear before any work."""
        if self.kind == "file" and not Path(self.weights).is_file():
            raise unknown_name("weights", self.weights, [*WEIGHTS, "or an existing file"])
        if self.kind == "timm" and not self.backbone.timm_tag:
            raise ValueError(
                f"timm has no weights of {self.name}, because a function builds it: omit --weights "
                "to use its own file"
            )
        if self.on_the_demo and not IS_CHECKOUT:
            raise MissingInputs(
                f"the miniatures of --weights demo are {ONLY_IN_A_CHECKOUT}. Or use other weights "
                f"of {self.name}: --weights timm fetches them, if timm has some; or give a file"
            )
        study = self.study()
        if self.kind in ("own", "paper") and not self.backbone.untrained:
            path = study.inputs.weights_path(self.backbone.key, self.dcls)
            if not path.is_file():
                raise MissingInputs(f"{shown(path)} does not exist{self._mend(study, path)}")
        learned = [method for method in methods if method.learned]
        if learned and self.kind not in ("own", "demo", "paper"):
            raise ValueError(
                f"{learned[0].key} is trained for the demo's or the paper's weights, or a model's "
                f"own, and not for --weights {self.weights}: choose other weights"
            )
        if self.kind in ("demo", "paper"):
            self._check_trained(learned, study)

    def _mend(self, study: Study, path: Path) -> str:
        """Return what to do about missing weights."""
        key, extend = self.backbone.key, self.options["extend"]
        if self.backbone.named and study.inputs.published(key, self.dcls):
            study = self.study("gaze")  # its images come with the project, so none are fetched
            return f": fetch it with `{study.inputs.fetch_command()}`"
        if str(path) in (self.backbone.weights, self.backbone.weights_dcls):
            return f", but {extend} names it for {key}: put the file there, or name another"
        source = study.inputs.published(key, self.dcls)
        if source is None:
            return ": put the file there"
        timms = self.backbone.timm_tag in source.place and not self.dcls
        return (
            f": fetch it, with the images for scoring, by `python run_all.py "
            f"--download-only --models {key}{self._more_options()}`"
            + (", or use timm's weights: --weights timm" if timms else "")
        )

    def _more_options(self) -> str:
        """Return the options with which another command knows the same models and folders."""
        given = {
            "--extend": self.options["extend"] if self.backbone.origin else "",
            "--data-dir": self.options["data_dir"] if not self.on_the_demo else "",
        }
        return "".join(f" {name} {shlex.quote(value)}" for name, value in given.items() if value)

    def _check_trained(self, methods: Sequence[CamMethod], study: Study) -> None:
        """Raise MissingInputs, with the command that trains them, for learned methods without a
        module for this model."""
        key, mini = self.backbone.key, study.choices.profile.mini
        paths = {m: study.inputs.attention_path(key, self.dcls, m.key) for m in methods}
        if missing := [method for method, path in paths.items() if not path.is_file()]:
            command = "python -m lib.demo.attention" if mini else "dcls-lcam --images FOLDER"
            raise MissingInputs(
                f"{', '.join(m.label for m in missing)}: not trained for {self.name}, "
                f"because {', '.join(shown(paths[m]) for m in missing)} does not exist. Train with "
                f"`{command} --models {shlex.quote(self.backbone.named or key)} "
                f"--methods {' '.join(m.key for m in missing)}"
                f"{self._more_options()}`{'' if mini else ', with training images in FOLDER'}; "
                "see docs/lcam.md"
            )

    def load(self, methods: Sequence[CamMethod]) -> StudyModel:
        """Return the model with the learned methods' modules, prepared for these methods.

        Raises what reading weights and modules raises: OSError, ValueError.
        """
        key, study = self.backbone.key, self.study()
        accept = study.choices.accept
        if self.kind in ("demo", "paper") or self.backbone.untrained:
            model = study.networks.load_model(key, self.dcls)
        elif self.kind == "own":
            path, reading = (
                part(key, self.dcls) for part in (study.inputs.weights_path, study.inputs.reading)
            )
            model = load_with_its_classes(key, self.dcls, path, reading)
        elif self.kind == "file":
            reading = replace(AS_IS, accepted=accept)
            model = load_with_its_classes(key, self.dcls, Path(self.weights), reading)
        else:
            model = self._load_by_word(accept)
        model = model.to(study.networks.device())
        if learned := [method for method in methods if method.learned]:
            if self.kind == "own":
                study = self._trained_on(model)
                self._check_trained(learned, study)
            model.attentions = study.networks.attentions(key, self.dcls, learned)
        return model.for_inference(keep_plain=any(method.plain for method in methods))

    def _load_by_word(self, accept: Sequence[str]) -> StudyModel:
        try:
            return load_model(self.backbone.key, self.dcls, self.kind, accept=accept)
        except RuntimeError as error:  # from timm, for a tag without weights
            if is_out_of_memory(error):
                raise
            raise ValueError(f"--weights {self.kind} of {self.name}: {error}") from error

    def _trained_on(self, model: StudyModel) -> Study:
        """Return the study in which modules for a user's own model are trained, by its classes."""
        count = class_count(model)
        for profile in ("paper", "demo"):
            if PROFILES[profile].classes == count:
                return self.study(profile)
        raise ValueError(
            f"{self.name} has {count} classes, but learned methods are trained only for models "
            "with ImageNet's 1000 or the demo's 12: omit these methods"
        )
