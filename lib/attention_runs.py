"""Trainings of learned attention maps for a study's networks: pictures, recipes, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open

from lib.attention import ATTENTIONS, MASKINGS, save_attention
from lib.attention_training import RECIPES, Pictures, Recipe, Trained, train_attention
from lib.backbones import Backbone
from lib.checkpoints import MissingWeights
from lib.files import write_atomically
from lib.fingerprint import fingerprint, sha256_of
from lib.paths import shown
from lib.picture_folders import FolderPictures, listed_pictures
from lib.study import PROFILES, Study


def folder_pictures(
    folder: Path, annotations: Path | None, limit: int, workers: int
) -> Callable[[Backbone], Pictures]:
    """A folder's pictures, cropped to what each backbone takes. Raises PictureFolderError."""
    paths = listed_pictures(folder, annotations, limit)
    return lambda backbone: FolderPictures(paths, backbone.preprocessing.crop, workers, folder)


_PUBLISHED = {"resnet": "resnet50", "vgg": "vgg16"}  # by family


def default_recipe(profile: str, backbone: Backbone, key: str) -> Recipe:
    """As published for ResNet-50 and VGG-16; TAME's; ours for networks that have none, and for
    the embedded example."""
    if key == "tame":
        return RECIPES["tame"]
    if PROFILES[profile].mini:
        return RECIPES["demo"]
    return RECIPES[_PUBLISHED.get(backbone.family, "standardised")]


def train_variant(
    study: Study,
    backbone: Backbone,
    dcls: bool,
    key: str,
    pictures: Pictures,
    recipe: Recipe,
    *,
    masking: str = MASKINGS[0],
    seed: int = 0,
    resume: bool = False,
    look_at: torch.Tensor | None = None,
    on_look: Callable[..., None] = lambda history, looks: None,
    save_to: Path | None = None,
) -> Trained | None:
    """Train one method beside one variant; with `save_to` save it there, and None if what is
    there was trained alike already.

    An unfinished training is kept beside `save_to` as `.<method>.unfinished.pt`.
    Raises MissingWeights, WeightsError (AttentionError), PictureFolderError.
    """
    weights = study.weights_path(backbone.key, dcls)
    if not weights.is_file():
        raise MissingWeights(f"no weights at {shown(weights)}")
    facts = {
        "attention": key, "variant": study.weights_name(backbone.key, dcls),
        "weights": sha256_of(weights), "masking": masking, "seed": str(seed),
        "recipe": json.dumps(vars(recipe) | {"decays": list(recipe.decays)}),
        "precision": study.precision,
        "pictures": json.dumps(pictures.facts()),
    }  # fmt: skip
    facts["training"] = fingerprint(facts)
    unfinished = save_to and save_to.with_name(f".{key}.unfinished.pt")
    if save_to is not None and _trained_alike(save_to, facts["training"]):
        unfinished.unlink(missing_ok=True)
        return None
    model = study.load_model(backbone.key, dcls)
    # Only the head is differentiated where features are masked.
    through_head = ATTENTIONS[key].hides == "features"
    ready = model.for_inference if through_head else model.for_backward
    model = ready(study.precision)
    model.precision = study.precision
    trained = train_attention(
        model, key, pictures, recipe, backbone.preprocessing.crop,
        masking=masking, seed=seed, checkpoint=unfinished, resume=resume, look_at=look_at,
        on_look=on_look,
        facts={"weights": facts["weights"], "precision": study.precision, "form": vars(model.form)},
    )  # fmt: skip
    if save_to is not None:
        with write_atomically(save_to.with_suffix(".csv")) as partial:
            trained.history.to_csv(partial, index=False, float_format="%.6g")
        save_attention(save_to, key, trained.attention, facts, half=study.profile.mini)
        unfinished.unlink(missing_ok=True)
    return trained


def _trained_alike(path: Path, training: str) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("training") == training
    except Exception:  # not there, or damaged: trained anew
        return False
