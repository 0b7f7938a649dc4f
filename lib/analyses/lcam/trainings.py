"""Training of learned attention maps for a study's networks: images, recipes, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open

from ...base.files import write_atomically
from ...base.fingerprint import fingerprint
from ...base.paths import shown
from ...maps.learned.attention import ATTENTIONS, MASKINGS, AttentionError, save_attention
from ...maps.learned.processes import ALONE, Processes
from ...maps.learned.training import (
    RECIPES,
    TRAINING,
    Images,
    Recipe,
    Trained,
    checkpoint_facts,
    train_attention,
)
from ...networks.backbones import Backbone
from ...networks.checkpoints import MissingWeights
from ...networks.models import StudyModel
from ...networks.rewrites import Form
from ...people.image_folders import FolderImages, listed_images
from ...study.profiles import PROFILES
from ...study.study import Study


def folder_images(
    folder: Path, annotations: Path | None, limit: int, workers: int
) -> Callable[[Backbone], Images]:
    """Return a folder's images, cropped as each backbone needs. Raises ImageFolderError."""
    paths = listed_images(folder, annotations, limit)

    @cache  # because identifying the images reads every file
    def cropped(side: int) -> Images:
        return FolderImages(paths, side, workers, folder)

    return lambda backbone: cropped(backbone.preprocessing.crop)


_PUBLISHED = {"resnet": "resnet50", "vgg": "vgg16"}  # by family


def default_recipe(profile: str, backbone: Backbone, key: str) -> Recipe:
    """Return the default recipe: the published one for ResNet-50 and VGG-16, TAME's for TAME, and
    ours for networks without a published one and for the embedded example."""
    if key == "tame":
        return RECIPES["tame"]
    if PROFILES[profile].mini:
        return RECIPES["demo"]
    return RECIPES[_PUBLISHED.get(backbone.family, "standardised")]


# The files beside a module, by suffix.
_BESIDE = LOSSES, EPOCHS, DRAWN_LOSSES, DRAWN_MAPS = (
    ".csv", ".epochs.csv", ".losses.png", ".maps.png"
)  # fmt: skip


def unfinished(save_to: Path, suffix: str) -> Path:
    """The path of a file beside a module while the module is being trained."""
    return save_to.with_name(f".{save_to.stem}.unfinished{suffix}")


def train_variant(
    study: Study,
    backbone: Backbone,
    dcls: bool,
    key: str,
    images: Images,
    recipe: Recipe,
    *,
    masking: str = MASKINGS[0],
    seed: int = 0,
    resume: bool = False,
    look_at: torch.Tensor | None = None,
    on_look: Callable[..., None] = lambda history, looks: None,
    save_to: Path | None = None,
    held_out: Images | None = None,
    processes: Processes = ALONE,
) -> Trained | None:
    """Train one method beside one variant, and save the module at `save_to` if it is given.

    Returns None if `save_to` already holds a module from the same training. An unfinished training
    is stored beside `save_to` as `.<method>.unfinished.pt`. Losses, the table of epochs, and the
    figures that `on_look` draws at `unfinished(save_to, DRAWN_MAPS)` and DRAWN_LOSSES, replace
    those of an earlier module when the new module does.

    held_out, processes : as for `train_attention`; every process calls this function alike, and
                          process 0 alone writes
    Raises MissingWeights, WeightsError (AttentionError), ImageFolderError, OSError.
    """
    weights = study.inputs.weights_path(backbone.key, dcls)
    if not backbone.untrained and not weights.is_file():
        raise MissingWeights(f"no weights at {shown(weights)}: fetch the file, or name another")
    facts = {
        "attention": key, "variant": study.inputs.weights_name(backbone.key, dcls),
        "weights": study.inputs.weights_sha256(backbone.key, dcls),
        "masking": masking, "seed": str(seed),
        "recipe": json.dumps(vars(recipe) | {"decays": list(recipe.decays)}),
        "precision": study.choices.precision,
        "images": json.dumps(images.facts()),
    } | ({"held_out": json.dumps(held_out.facts())} if held_out else {})  # fmt: skip
    facts["training"] = fingerprint(facts | {"code": TRAINING})
    checkpoint = save_to and unfinished(save_to, ".pt")

    def already() -> bool:
        alike = save_to is not None and _trained_alike(save_to, facts["training"])
        if alike and _is_of(checkpoint, facts["training"]):  # killed just before this last step
            settle(save_to)
        return alike

    if processes.agreed(already):
        return None
    loaded = study.networks.load_model(backbone.key, dcls)
    model: StudyModel | None = None

    def form() -> Form:
        nonlocal model
        earlier = _form_of(checkpoint) if resume and checkpoint and checkpoint.exists() else None
        model = trainable(loaded, key, study.choices.precision, earlier)
        return model.form

    # One process chooses, because another one's measurement might find another form the fastest.
    chosen = processes.agreed(form)
    if model is None:
        model = trainable(loaded, key, study.choices.precision, chosen)
    trained = train_attention(
        model, key, images, recipe, backbone.preprocessing.crop,
        masking=masking, seed=seed, checkpoint=checkpoint, resume=resume, look_at=look_at,
        on_look=on_look, held_out=held_out, processes=processes,
        facts={name: facts[name] for name in ("variant", "weights", "precision", "training")}
        | {"form": vars(model.form)},
    )  # fmt: skip
    if save_to is not None and processes.writes:
        for suffix, table in ((LOSSES, trained.history), (EPOCHS, trained.epochs)):
            with write_atomically(unfinished(save_to, suffix)) as partial:
                table.to_csv(partial, index=False, float_format="%.6g")
        save_attention(save_to, key, trained.attention, facts, half=study.choices.profile.mini)
        for suffix in _BESIDE:
            if not unfinished(save_to, suffix).exists():  # it belongs to an earlier module
                save_to.with_suffix(suffix).unlink(missing_ok=True)
        settle(save_to)
    return trained


def settle(save_to: Path) -> None:
    """Move the files beside a saved module to their final names; delete the checkpoint last."""
    for suffix in _BESIDE:
        made = unfinished(save_to, suffix)
        if made.exists():
            made.replace(save_to.with_suffix(suffix))
    unfinished(save_to, ".pt").unlink(missing_ok=True)


def trainable(
    model: StudyModel, key: str, precision: str = "float32", form: Form | None = None
) -> StudyModel:
    """The form of a network beside which one of `ATTENTIONS` is trained; `form` as in
    `for_inference`."""
    # Only the head is differentiated if features are masked.
    if form is None and ATTENTIONS[key].hides == "image":
        return model.for_backward(precision)
    return model.for_inference(precision, form=form)


def _is_of(checkpoint: Path, training: str) -> bool:
    try:
        return checkpoint.exists() and checkpoint_facts(checkpoint).get("training") == training
    except AttentionError:  # damaged, so its training is unknown
        return False


def _form_of(checkpoint: Path) -> Form:
    """The form of the network that a checkpoint was trained beside. The fastest form is measured
    and may differ now, but only the same form gives the same numbers."""
    try:
        return Form(**checkpoint_facts(checkpoint)["form"])
    except (KeyError, TypeError) as error:
        raise AttentionError(
            f"the checkpoint {shown(checkpoint)} names no known form of the network: delete it and "
            f"train again ({error})"
        ) from error


def _trained_alike(path: Path, training: str) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("training") == training
    except Exception:  # missing or damaged, so it is trained again
        return False
