"""Learned attention maps in a study: their training, and comparison with gradient-based maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from ...maps.cam import cam_maps
from ...maps.forward import enlarge
from ...maps.learned.training import Trained
from ...maps.methods import METHODS, PUBLISHED_METHODS, CamMethod
from ...networks.backbones import Backbone
from ...networks.preprocessing import resize_images
from ...people.image_folders import ArrayImages
from ...people.stored import StoredError
from ...scores.agreements import VALID
from ...scores.ceiling import Ceilings
from ...scores.statistics import mean_interval
from ...scores.study_scores import score_study
from ...study.inputs import Inputs
from ...study.study import Study
from ..faithfulness.definitions import LET_THROUGH
from ..faithfulness.study import COLUMNS, score_faithfulness
from .trainings import default_recipe, train_variant

# The default methods of notebook 08.
LCAM_METHODS = (*PUBLISHED_METHODS, "lcam_fm", "lcam_img", "lcam_fm_a", "lcam_img_a", "tame")
REFERENCE = "grad_cam"
_WATCHED = ("lcam_fm", "lcam_img")
# Images, batch and epochs of a training that is watched; a short run's are in its `Brief`.
WATCHED = (96, 32, 8)
LOOKED_AT = 6


def comparable(study: Study, methods: Sequence[CamMethod]) -> Study:
    """Return the study with only those methods and backbones that have trained modules.

    A learned method is skipped if one of the study's own variants has no module for it. A user's
    own backbone without modules is skipped itself, unless there are no other backbones.
    """
    there = list(dict.fromkeys(backbone for backbone, _ in study.networks.there()))

    def trained(backbone: Backbone, method: CamMethod) -> bool:
        return not method.learned or all(
            study.inputs.attention_path(backbone.key, dcls, method.key).is_file()
            for dcls in backbone.forms
        )

    deciding = [b for b in there if not b.origin] or there
    chosen = tuple(m for m in methods if all(trained(b, m) for b in deciding))
    backbones = tuple(b for b in there if all(trained(b, m) for m in chosen))
    return study.changed(backbones=backbones, methods=chosen)


@dataclass(frozen=True)
class Watched:
    """A training and the maps that were recorded during it.

    histories : {label: losses of every step}
    images    : (image, side, side, 3) uint8, the watched images
    maps      : {"after 10 steps": (image, side, side)} of the last method, and Grad-CAM's for
                comparison; empty if training was not watched
    """

    title: str
    histories: dict[str, pd.DataFrame]
    images: np.ndarray
    maps: dict[str, np.ndarray]


def watch_training(study: Study, backbone: Backbone, compared: int) -> Watched:
    """Return a short training of the embedded example, or the recorded losses of other studies.

    The embedded example is trained now, on images that are not among the first `compared`. For
    other studies the result has the losses of the modules' own training, which are stored beside
    the modules, and no images."""
    if not study.choices.profile.mini:
        return _kept_histories(study.inputs, backbone)
    count, batch, epochs = study.choices.briefly("watched", WATCHED)
    delivered = images_besides(study, compared, count)
    resized = resize_images(delivered, backbone.preprocessing)
    images = ArrayImages(resized, study.choices.profile.label)
    some = torch.from_numpy(resized[:LOOKED_AT]).permute(0, 3, 1, 2).float() / 255
    trained: dict[str, Trained] = {}
    dcls = backbone.forms[-1]
    for key in _WATCHED:
        recipe = default_recipe(study.choices.profile.key, backbone, key)
        recipe = replace(recipe, batch=batch, epochs=epochs)
        trained[key] = train_variant(study, backbone, dcls, key, images, recipe, look_at=some)
    last, side = trained[_WATCHED[-1]], some.shape[-1]
    label = METHODS[_WATCHED[-1]].label
    maps = looked_at(last.looks, label, side)
    model = study.networks.inference_model(backbone.key, dcls, ())
    x = model.prepare_pixels(torch.from_numpy(resized[:LOOKED_AT]))
    maps[METHODS[REFERENCE].label] = (
        cam_maps(model, x, None, [REFERENCE], side)[REFERENCE].cpu().numpy()
    )
    histories = {METHODS[key].label: t.history for key, t in trained.items()}
    title = f"{backbone.titled(dcls)}, {len(images)} images, {epochs} epochs"
    return Watched(title, histories, resized[:LOOKED_AT], maps)


def looked_at(looks: Mapping[int, torch.Tensor], label: str, side: int) -> dict[str, np.ndarray]:
    """Return recorded maps of a training as rows for drawing: {"after 10 steps": (image, side,
    side)}."""
    return {
        f"{label}, untrained" if not step else f"after {step} step" + "s" * (step > 1):
        enlarge(small, side).numpy()
        for step, small in looks.items()
    }  # fmt: skip


def images_besides(study: Study, compared: int, count: int) -> np.ndarray:
    """Up to `count` delivered images that are not among the compared ones."""
    used = {name for batch in study.clickme(limit=compared).batches(64) for name in batch.image_ids}
    found: list[np.ndarray] = []
    for batch in study.clickme(limit=0).batches(64):
        found += [p for p, name in zip(batch.images, batch.image_ids, strict=True)
                  if name not in used]  # fmt: skip
        if len(found) >= count:
            break
    if not found:
        raise StoredError(
            f"all {len(used)} images of the study are compared, so none is left to watch a "
            "training on: give more images, or a lower --limit"
        )
    return np.stack(found[:count])


def _kept_histories(inputs: Inputs, backbone: Backbone) -> Watched:
    histories, dcls = {}, backbone.forms[-1]
    for key in _WATCHED:
        path = inputs.attention_path(backbone.key, dcls, key).with_suffix(".csv")
        if path.is_file():
            histories[METHODS[key].label] = pd.read_csv(path)
    return Watched(backbone.titled(dcls), histories, np.empty((0, 1, 1, 3), np.uint8), {})


def compare_methods(study: Study, images: int, ceilings: Ceilings) -> pd.DataFrame:
    """Faithfulness and agreement with people of every model and method of a study.

    images   : the number of images
    ceilings : those of the whole study, which notebook 04 caches; an estimate for a part of its
               backbones would be a new one

    Returns `backbone, dcls, method, image_id, measure, value`: a row per image and measure. The
    measures are those of faithfulness, and "score" under the first of the study's protocols.
    Raises as `score_faithfulness` and `score_study` do.
    """
    backbones = list(dict.fromkeys(backbone for backbone, _ in study.networks.there()))
    values = score_faithfulness(study, backbones, study.choices.methods, images, False)
    scores = score_study(study.changed(limit=images, protocols=study.choices.protocols[:1]))
    valid = ceilings.scored(scores[scores.validity == VALID])
    agreed = valid.assign(value=valid.score, measure="score")
    return pd.concat([values, agreed[COLUMNS]], ignore_index=True)


def better(measure: str, difference: pd.Series) -> float:
    """Return how many differences are improvements: less average drop, more of everything else;
    NaN for a measure that does not measure quality."""
    if measure == LET_THROUGH:
        return np.nan
    return float((difference < 0 if "drop" in measure else difference > 0).sum())


def against_grad_cam(values: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the differences between every other method and Grad-CAM, paired by image.

    values : from `compare_methods`
    The first table is over all models: `method, measure, difference, low, high, n, better,
    models`. An image's difference is its mean over models, the 95 % interval is over images, and
    `better` counts the models on which the method is better. The second table has one row per
    model: `backbone, dcls, method, measure, difference, n`.
    """
    index = ["measure", "backbone", "dcls", "image_id"]
    wide = values.pivot(index=index, columns="method", values="value")
    together, apart = [], []
    others = [m for m in wide if m != REFERENCE] if REFERENCE in wide else []
    for method in others:
        for measure in values.measure.unique():
            differences = (wide[method] - wide[REFERENCE]).loc[measure].dropna()
            of_models = differences.groupby(level=["backbone", "dcls"], sort=False).agg(
                difference="mean", n="size"
            )
            of_models = of_models.reset_index().assign(method=method, measure=measure)
            apart.append(of_models)
            found = mean_interval(differences.groupby(level="image_id").mean())
            together.append(
                {"method": method, "measure": measure, "difference": found.mean, "low": found.low,
                 "high": found.high, "n": found.n,
                 "better": better(measure, of_models.difference),
                 "models": len(of_models)}
            )  # fmt: skip
    names = ["method", "measure", "difference", "low", "high", "n", "better", "models"]
    each = ["backbone", "dcls", "method", "measure", "difference", "n"]
    return pd.DataFrame(together, columns=names), (
        pd.concat(apart, ignore_index=True)[each] if apart else pd.DataFrame(columns=each)
    )
