"""Learned attention maps in a study: how they come about, and beside gradients' maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lib.attention_runs import demo_pictures, train_variant
from lib.attention_training import RECIPES, Trained
from lib.backbones import Backbone
from lib.cam import cam_maps, enlarge
from lib.faithfulness import score_faithfulness
from lib.method_study import alignment, faithfulness
from lib.methods import METHODS, PUBLISHED_METHODS, CamMethod
from lib.statistics import mean_interval
from lib.study import Study
from lib.study_scores import score_study

# What notebook 08 compares unless others are asked for.
LCAM_METHODS = (*PUBLISHED_METHODS, "lcam_fm", "lcam_img", "lcam_fm_a", "lcam_img_a")
_WATCHED = ("lcam_fm", "lcam_img")
_PICTURES, _EPOCHS = 96, 6  # of a training that is watched
_LOOKED_AT = 5


def trained_ones(study: Study, methods: Sequence[CamMethod]) -> tuple[CamMethod, ...]:
    """These methods without the learned ones of which a variant has no module yet."""
    return tuple(
        m for m in methods
        if not m.learned
        or all(study.attention_path(b.key, d, m.key).is_file() for b, d in study.there())
    )  # fmt: skip


@dataclass(frozen=True)
class Watched:
    """A training and what is seen of it.

    histories : {label: losses of every step}
    pictures  : (image, side, side, 3) uint8 that are looked at
    maps      : {"after 10 steps": (image, side, side)}, of the last of the methods, and
                Grad-CAM's for comparison; empty where training was not watched
    """

    title: str
    histories: dict[str, pd.DataFrame]
    pictures: np.ndarray
    maps: dict[str, np.ndarray]


def watch_training(study: Study, backbone: Backbone) -> Watched:
    """Of the embedded example a short training, done now; else the losses of the one that the
    study's modules come from, as kept beside them, without pictures."""
    if not study.profile.mini:
        return _kept_histories(study, backbone)
    pictures = demo_pictures(_PICTURES)(backbone)
    recipe = replace(RECIPES["demo"], epochs=_EPOCHS)
    some = pictures.pictures[:_LOOKED_AT]
    trained: dict[str, Trained] = {
        key: train_variant(study, backbone, True, key, pictures, recipe, look_at=some.float() / 255)
        for key in _WATCHED
    }
    model = study.inference_model(backbone.key, True, ())
    shown = some.permute(0, 2, 3, 1).contiguous()
    side = shown.shape[1]
    last = trained[_WATCHED[-1]]
    label = METHODS[_WATCHED[-1]].label
    maps = {
        f"{label}, untrained" if not step else f"after {step} step" + "s" * (step > 1):
        enlarge(small, side).numpy()
        for step, small in last.looks.items()
    }  # fmt: skip
    gradients = cam_maps(model, model.prepare_pixels(shown), None, ["grad_cam"], side)
    maps["Grad-CAM"] = gradients["grad_cam"].cpu().numpy()
    histories = {METHODS[key].label: t.history for key, t in trained.items()}
    title = f"{backbone.label} + DCLS, {_PICTURES} pictures, {recipe.epochs} epochs"
    return Watched(title, histories, shown.numpy(), maps)


def _kept_histories(study: Study, backbone: Backbone) -> Watched:
    histories = {}
    for key in _WATCHED:
        path = study.attention_path(backbone.key, True, key).with_suffix(".csv")
        if path.is_file():
            histories[METHODS[key].label] = pd.read_csv(path)
    return Watched(f"{backbone.label} + DCLS", histories, np.empty((0, 1, 1, 3), np.uint8), {})


def compare_methods(study: Study, methods: Sequence[CamMethod], pictures: int) -> pd.DataFrame:
    """Faithfulness and agreement with people, means over pictures of every model and method.

    `backbone, dcls, method, measure, value, low, high, n`; measures are those of
    `lib.faithfulness.score_faithfulness` and "score". Raises as these do.
    """
    backbones = list(dict.fromkeys(backbone for backbone, _ in study.there()))
    values = score_faithfulness(study, backbones, methods, pictures, False)
    scores = score_study(replace(study, methods=tuple(methods), limit=pictures))
    agreed = alignment(scores).rename(columns={"score": "value"}).assign(measure="score")
    table = pd.concat([faithfulness(values), agreed], ignore_index=True)
    return table[["backbone", "dcls", "method", "measure", "value", "low", "high", "n"]]


def against_grad_cam(table: pd.DataFrame) -> pd.DataFrame:
    """Of each method and measure: on how many models it is better than Grad-CAM, and the mean
    difference over models with its 95 % interval.

    `method, label, measure, better, models, difference, low, high`. Less average drop is better,
    more of everything else.
    """
    wide = table.pivot(index=["measure", "backbone", "dcls"], columns="method", values="value")
    rows = []
    others = [m for m in wide if m != "grad_cam"] if "grad_cam" in wide else []
    for method in others:
        for measure in table.measure.unique():
            differences = (wide[method] - wide["grad_cam"]).loc[measure].dropna()
            gains = -differences if "drop" in measure else differences
            found = mean_interval(differences)
            rows.append((method, METHODS[method].label, measure, int((gains > 0).sum()),
                         len(differences), found.mean, found.low, found.high))  # fmt: skip
    names = ["method", "label", "measure", "better", "models", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=names)
