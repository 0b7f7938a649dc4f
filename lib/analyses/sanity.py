"""Does a heatmap depend on what the network has learned? Layers are re-initialised, head first.

Source: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018 (cascading
randomisation)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import nn

from ..maps.cam import cam_maps
from ..networks.building import build_network
from ..networks.dcls import dcls_layers
from ..networks.models import StudyModel
from ..networks.rewrites import Form
from ..people.clickme import ClickMe
from ..scores.agreements import VALID
from ..scores.observers import study_ceilings
from ..scores.spearman import spearman_per_image
from ..scores.statistics import mean_interval, means_by
from ..scores.study_scores import score_study
from ..scores.units import VariantOnPart, VariantWork, joined
from ..study.choices import TARGETS
from ..study.study import Study

SEED = 20240803
TRAINED = "nothing"
_BATCH = 16


def parts(network: nn.Module) -> dict[str, list[str]]:
    """Return the parts of a network from the head down: {name: names of its modules}.

    They are the head, the stages and the stem. Modules between a stage and the next part above
    belong to that stage. A network without named stages is divided, below its last module, into at
    most five parts with about as many modules each.
    """
    names = _with_parameters(network, lambda name, child: name == "stages")
    stages = [n for n in names if n.startswith(("stages.", "layer"))]
    if not stages:
        names = _with_parameters(network, lambda name, child: isinstance(child, _LISTS))
        if len(names) < 2:
            return {"head": names}
        few = [list(some) for some in np.array_split(names[:-1], min(5, len(names) - 1))]
        numbered = {f"part {number}": some for number, some in enumerate(few, 1)}
        return {"head": names[-1:], **dict(reversed(numbered.items()))}
    first, head = names.index(stages[0]), names[-1]
    between = [n for n in names[first:-1] if n not in stages]  # FastViT's last convolution
    groups = {"head": [head]}
    for number, stage in reversed(list(enumerate(stages, 1))):
        groups[f"stage {number}"] = [stage, *between]
        between = []
    return groups | {"stem": names[:first]}


_LISTS = nn.Sequential | nn.ModuleList


def _with_parameters(network: nn.Module, opened: Callable[[str, nn.Module], bool]) -> list[str]:
    """The names of the network's children; an opened child is replaced by its own children."""
    names = []
    for name, child in network.named_children():
        inside = (
            [f"{name}.{n}" for n, _ in child.named_children()] if opened(name, child) else [name]
        )
        names += [n for n in inside if any(True for _ in network.get_submodule(n).parameters())]
    return names


def forgetting(model: StudyModel, mini: bool, classes: int) -> Iterator[tuple[str, StudyModel]]:
    """Yield the model, and then copies in which more and more parts have random weights.

    Kernels, matrices and positions are drawn again once, as before training. Scales, biases and
    running statistics stay, because many scales are nearly 0 at the start of training, and such a
    part would pass its input on unchanged.

    Yields (the last re-initialised part, the model); the first model is unchanged.
    """
    yield TRAINED, model
    torch.manual_seed(SEED)
    has_dcls = bool(dcls_layers(model.network))
    fresh = build_network(model.backbone, has_dcls, mini=mini, num_classes=classes).state_dict()
    network = copy.deepcopy(model.network)
    for name, modules in parts(network).items():
        prefixes = tuple(f"{module}." for module in modules)
        chosen = {
            key: value
            for key, value in fresh.items()
            if key.startswith(prefixes) and sum(n > 1 for n in value.shape) > 1
        }
        network.load_state_dict(chosen, strict=False)
        yield name, model.with_network(network)


def score_forgetting(study: Study, count: int) -> pd.DataFrame:
    """Return the similarity of maps to the trained network's as parts are re-initialised.

    The columns are `backbone, dcls, method, part, image_id, rho`, one row per image: Spearman's
    correlation of the maps for the study's target, NaN if a map is constant. `part` is the last
    re-initialised part; all parts above it are re-initialised too.
    """
    return joined(ForgettingWork(study, count=count))


class ForgettingWork(VariantWork):
    """The similarity of one model's maps of all images as its parts are re-initialised."""

    folder, bar = "forgetting", ("forgetting", "image")
    columns = ("method", "part", "image_id", "rho")
    code = ("analyses.sanity",)

    def images(self) -> Iterator[ClickMe]:
        yield self.study.clickme(limit=self.arguments["count"])

    def compute(self, of: VariantOnPart) -> pd.DataFrame:
        choices, networks = self.study.choices, self.study.networks
        plain = any(method.plain for method in choices.methods)
        whole = networks.load_model(of.backbone.key, of.dcls)
        whole.attentions = networks.attentions(of.backbone.key, of.dcls)
        batches = list(of.some.batches(_BATCH))
        # For the predicted class, always the one that the trained network predicts.
        trained = whole.for_inference(form=Form()) if choices.predicted else None
        targets = [
            batch.labels if trained is None else _predicted(trained, batch.images)
            for batch in batches
        ]
        image_ids = [name for batch in batches for name in batch.image_ids]
        first: dict[str, torch.Tensor] = {}
        frames = [pd.DataFrame(columns=self.columns)]
        for part, model in forgetting(whole, choices.profile.mini, choices.profile.classes):
            fast = model.for_inference(form=Form(), keep_plain=plain)
            found = [
                cam_maps(fast, fast.prepare(batch.images), target, choices.methods)
                for batch, target in zip(batches, targets, strict=True)
            ]
            for method in choices.methods if found else ():
                maps = torch.cat([maps[method.key] for maps in found]).cpu()
                first.setdefault(method.key, maps)
                rho = spearman_per_image(maps, first[method.key]).numpy()
                frames.append(
                    pd.DataFrame(
                        {"method": method.key, "part": part, "image_id": image_ids, "rho": rho}
                    )
                )
        return pd.concat(frames[1:] or frames, ignore_index=True)


@torch.inference_mode()
def _predicted(model: StudyModel, images: np.ndarray) -> torch.Tensor:
    return model(model.prepare(images)).argmax(dim=1).cpu()


def summarise_forgetting(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean similarity for each model, method and part: `similarity, low, high, n`."""
    return means_by(table, ["backbone", "dcls", "method", "part"], "rho", "similarity")


def compare_targets(study: Study) -> pd.DataFrame:
    """Return scores of maps for the true and for the predicted class, on the profile's sample.

    The columns are `backbone, dcls, method, top1, true, predicted, difference, low, high, n`. The
    difference, predicted minus true, is paired by image; it is 0 if the model is right. The table
    is empty if images have no class.
    """
    columns = ["backbone", "dcls", "method", "top1", *TARGETS, "difference", "low", "high", "n"]
    if study.clickme().without_labels:
        return pd.DataFrame(columns=columns)
    wide, ceilings = [], study_ceilings(study)
    for target in TARGETS:
        sample = study.sampled(target=target, protocols=study.choices.protocols[:1])
        scores = score_study(sample)
        valid = ceilings.scored(scores[scores.validity == VALID])
        index = ["backbone", "dcls", "method", "image_id"]
        wide.append(valid.set_index(index)[["score", "top1"]].add_suffix(f"_{target}"))
    together = pd.concat(wide, axis=1, join="inner")
    rows = []
    names = ["backbone", "dcls", "method"]
    for key, chosen in together.groupby(level=names, sort=False):
        scores = {target: chosen[f"score_{target}"] for target in TARGETS}
        found = mean_interval(scores["predicted"] - scores["true"])
        rows.append(
            dict(zip(names, key, strict=True))
            | {"top1": chosen.top1_true.mean()}
            | {target: values.mean() for target, values in scores.items()}
            | {"difference": found.mean, "low": found.low, "high": found.high, "n": found.n}
        )
    return pd.DataFrame(rows, columns=columns)
