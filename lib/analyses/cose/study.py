"""COSE's pairs of a whole study: made where not kept, a block of pictures at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from tqdm import tqdm

from lib.analyses.cose.changes import CHANGES
from lib.analyses.cose.pairs import (
    COLUMNS,
    ITSELF,
    pairs_of_changed_network,
    pairs_of_changed_pictures,
)
from lib.base.fingerprint import code_of, fingerprint, sha256_of
from lib.base.threads import reuse_memory
from lib.maps.methods import PUBLISHED_METHODS
from lib.networks.backbones import Backbone, variant_name
from lib.networks.batch_size import BatchSize
from lib.networks.checkpoints import WeightsError
from lib.networks.models import StudyModel
from lib.people.clickme import ClickMe, ClickMeBatch
from lib.people.stored import StoredError
from lib.scores.kept import LEFT_OUT, facts_of_maps, read_kept, write_kept
from lib.scores.units import foretell
from lib.study.study import Study

# Unless others are asked for: the study's two, one that looks elsewhere, and the control.
COSE_METHODS = (*PUBLISHED_METHODS, "grad_cam_plus_plus", "random_cam")
SEED = 20240803
RANDOM = "random weights"
_BLOCK = 16  # pictures whose pairs are kept at once
_OF_MINIATURES = 24  # changed pictures a forward
_CODE = ("lib.analyses.cose.changes", "lib.analyses.cose.pairs", "lib.analyses.cose.ssim")


@dataclass(frozen=True)
class _Other:
    """What a variant is compared with.

    name : ITSELF on changed pictures, else what the network became
    load : makes the changed network, None for the variant itself
    hash : of what determines its weights
    """

    name: str
    load: Callable[[], StudyModel] | None = None
    hash: str = ""


def score_cose(study: Study, pictures: int = 0) -> pd.DataFrame:
    """Every pair of every variant, method and picture: `backbone, dcls` and `COLUMNS`.

    pictures : so many of the study's, 0 for all

    Networks change to random weights, and to each file of `Inputs.training_checkpoints`. What
    is done is kept, so that a run goes on where one ended. Raises MissingInputs, StoredError,
    WeightsError; with `keep_going` what cannot be read is left out, and told by
    `lib.scores.study_scores.left_out`.
    """
    study.inputs.require()
    clickme = study.clickme(limit=pictures or study.choices.limit)
    reuse_memory()
    others = {variant: _others(study, *variant) for variant in study.networks.there()}
    if any(method.forwards for method in study.choices.methods) and not study.choices.keep_going:
        backbone, dcls = next(iter(others))
        maps = sum(1 + CHANGES + 2 * (len(compared) - 1) for compared in others.values())
        model = study.networks.inference_model(backbone.key, dcls)
        batch = next(clickme.batches(1))
        tqdm.write(foretell(model, batch, study.choices.methods, maps * len(clickme)))
    frames = []
    missed = dict(clickme.left_out) | {
        backbone.key: "its weights, or a learned method's for it, are missing or cannot be read"
        for backbone in study.choices.backbones
        if (backbone, False) not in others
    }
    total = len(clickme) * sum(map(len, others.values()))
    with tqdm(total=total, desc="COSE", unit="picture") as bar:
        for (backbone, dcls), compared in others.items():
            bar.set_postfix_str(variant_name(backbone.key, dcls))
            variant = _Variant(study, backbone, dcls)
            for other in compared:
                try:
                    for number, some in enumerate(clickme.blocks(_BLOCK)):
                        frame = variant.pairs(other, some, number)
                        missed |= frame.attrs.pop(LEFT_OUT, {}) | some.left_out
                        frames.append(frame.assign(backbone=backbone.key, dcls=dcls))
                        bar.update(len(some))
                except WeightsError as error:
                    if not study.choices.keep_going or other.load is None:
                        raise
                    name = f"{variant_name(backbone.key, dcls)}, {other.name}"
                    missed[name] = str(error)
                    tqdm.write(f"left out: {name}: {error}")
    if not len(clickme) or all(frame.empty for frame in frames):
        raise StoredError("no picture of the study can be read")
    table = pd.concat(frames, ignore_index=True)[["backbone", "dcls", *COLUMNS]]
    table.attrs[LEFT_OUT] = missed
    return table


def _others(study: Study, backbone: Backbone, dcls: bool) -> list[_Other]:
    key = backbone.key
    earlier = [
        _Other(
            f"earlier: {path.name}",
            lambda path=path: study.networks.load_model(key, dcls, path),
            sha256_of(path),
        )
        for path in study.inputs.training_checkpoints(key, dcls)
    ]
    untrained = _Other(RANDOM, lambda: study.networks.untrained_model(key, dcls, SEED), str(SEED))
    return [_Other(ITSELF), untrained, *earlier]


class _Variant:
    """Makes pairs, holding the variant and one changed network in memory at most."""

    def __init__(self, study: Study, backbone: Backbone, dcls: bool):
        self._study, self._key = study, (backbone.key, dcls)
        self._name = variant_name(backbone.key, dcls)
        self._facts = facts_of_maps(study, backbone, dcls) | {"code of COSE": code_of(*_CODE)}
        self._whole: StudyModel | None = None
        self._changed: tuple[_Other, StudyModel] | None = None
        choices = study.choices
        self._size = BatchSize.chosen(
            choices.batch_size, study.networks.device(), choices.profile.mini, _OF_MINIATURES
        )

    def pairs(self, other: _Other, some: ClickMe, number: int) -> pd.DataFrame:
        """Of a block of pictures: kept from before, or made and kept."""
        of = [(chosen.index, chosen.place) for chosen in some.chosen]
        here = {"other": [other.name, other.hash], "part": some.part.digest(), "pictures": of}
        name = f"{self._name}-{some.part.name}-{number}-{fingerprint(self._facts | here)}"
        path = self._study.places.scores.with_name("cose") / f"{name}.parquet"
        table = read_kept(path, self._study.choices.keep_going, COLUMNS)
        if table is None:
            frames = [self._made(other, batch) for batch in some.batches(_BLOCK)]
            table = pd.concat(frames) if frames else pd.DataFrame(columns=COLUMNS)
            write_kept(path, table, some.left_out)
        return table

    def _made(self, other: _Other, batch: ClickMeBatch) -> pd.DataFrame:
        methods = self._study.choices.methods
        if self._whole is None:
            self._whole = self._study.networks.inference_model(*self._key)
        if other.load is None:
            return pairs_of_changed_pictures(self._whole, methods, batch, self._size)
        if self._changed is None or self._changed[0] != other:
            self._changed = None  # its memory goes before the next one's comes
            self._changed = other, self._study.networks.made_ready(other.load())
        changed = self._changed[1]
        return pairs_of_changed_network(
            self._whole, changed, other.name, methods, batch, self._size
        )
