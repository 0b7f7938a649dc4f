"""Agreement with human maps, picture by picture.

Scores are kept on disk, one file per variant and part, under a name that contains a
hash of everything that determines them; what is asked for again is read, not computed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from lib import cam, clickme, dcls, methods, models, pictures, protocols, spearman
from lib import human_maps as human_maps_code
from lib.backbones import Backbone, Preprocessing, variant_name
from lib.checkpoints import MissingWeights, WeightsError
from lib.clickme import ClickMe, ClickMeBatch
from lib.files import write_atomically
from lib.fingerprint import fingerprint, sha256_of
from lib.human_maps import human_maps
from lib.methods import CamMethod
from lib.models import StudyModel
from lib.paths import shown
from lib.protocols import PROTOCOLS, Protocol
from lib.spearman import Ranks, rank_maps, sort_maps, spearman_per_image
from lib.stored import folders, shards
from lib.study import MissingInputs, Study

VALID = "valid"
CONSTANT_MODEL_MAP = "constant model map"
CONSTANT_HUMAN_MAP = "constant human map"
NON_FINITE = "non-finite map"

_LEFT_OUT = "left_out"  # in a table's attributes

# A change to any of these may change a score, so kept scores depend on their text.
_DETERMINING_CODE = (
    cam, clickme, dcls, folders, human_maps_code, methods, models, pictures, protocols, shards,
    spearman, sys.modules[__name__],
)  # fmt: skip
_DETERMINING_PACKAGES = ("torch", "timm", "dcls", "numpy", "simplejpeg", "pillow")


def score_batch(
    model: StudyModel,
    batch: ClickMeBatch,
    human: Mapping[str, Ranks],
    rows: Sequence[CamMethod],
    kept: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Scores of one batch: a row per protocol, method and image.

    human : {protocol: ranked human maps as this backbone's maps are compared with them}
    kept  : {protocol: how many of the stored pictures it scores}; all if not given

    The target is the picture's label, as published. `rho` is Spearman's correlation
    over all pixels; it is missing where `validity` says why.
    """
    passed = cam.head_pass(model, model.prepare(batch.pictures), batch.labels)
    best = passed.logits.topk(min(5, passed.logits.shape[1]), dim=1).indices.cpu()
    hits = best == batch.labels[:, None]
    frames = []
    for row in rows:
        maps = cam.enlarge(row.small_map(passed.features, passed.gradient))
        ordered = sort_maps(maps)
        for key, ranks in human.items():
            rho = spearman_per_image(ordered, ranks, PROTOCOLS[key].settles).cpu()
            frame = pd.DataFrame(
                {
                    "protocol": key,
                    "method": row.key,
                    "image_id": batch.image_ids,
                    "label": batch.labels.numpy(),
                    "rho": rho.numpy(),
                    "validity": _validity(maps, ranks),
                    "top1": hits[:, 0].numpy(),
                    "top5": hits.any(dim=1).numpy(),
                }
            )
            frames.append(frame[batch.places < kept[key]] if kept else frame)
    return pd.concat(frames, ignore_index=True)


def _validity(maps: torch.Tensor, human: Ranks) -> list[str]:
    finite = torch.isfinite(maps).flatten(1).all(dim=1).cpu() & torch.isfinite(human.norm).cpu()
    constant, human_constant = cam.is_constant(maps).cpu(), (human.norm == 0).cpu()
    words = []
    for is_finite, model_flat, human_flat in zip(finite, constant, human_constant, strict=True):
        if not is_finite:
            words.append(NON_FINITE)
        elif human_flat:
            words.append(CONSTANT_HUMAN_MAP)
        else:
            words.append(CONSTANT_MODEL_MAP if model_flat else VALID)
    return words


def _key(study: Study, backbone: Backbone, has_dcls: bool, some: ClickMe) -> str:
    """A hash of what determines a variant's scores on a part's pictures."""
    return fingerprint(
        {
            "weights": sha256_of(study.weights_path(backbone.key, has_dcls)),
            "dcls": has_dcls and backbone.dcls,
            "preprocessing": backbone.preprocessing,
            "head_norm_eps": backbone.head_norm_eps,
            "methods": {method.key: method.small_map for method in study.methods},
            "protocols": [(p.key, sorted(p.mends)) for p in some.protocols],
            "scored": {p.key: some.scored(p.key) for p in some.protocols},
            "part": some.part.digest(),
            "pictures": [chosen.index for chosen in some.chosen],
            "device": study.torch_device().type,
            "code": _DETERMINING_CODE,
            "packages": {name: version(name) for name in _DETERMINING_PACKAGES},
        }
    )


def score_study(study: Study) -> pd.DataFrame:
    """The tidy per-image table of a study: computed where not kept, then kept.

    One row per variant, method and image: `variant, backbone, dcls, protocol,
    method, image_id, label, rho, validity, top1, top5`.

    Shards (parts of a folder) are worked through one by one, so memory does not grow with
    their number; a part's pictures and human ranks are made once for all variants.
    Raises MissingInputs, StoredError and WeightsError for what cannot be read; with
    `keep_going` that is left out, and told by `left_out`.
    """
    study.require_inputs()
    clickme = study.clickme()
    missed = dict(clickme.left_out)
    parts = list(clickme.per_part())
    kept: list[tuple[Backbone, bool, Path]] = []
    reused = 0
    with tqdm(total=len(parts) * len(study.variants), desc="scoring", unit="model") as bar:
        for some in parts:
            ranked: HumanRanks | None = None
            for backbone, has_dcls in study.variants:
                bar.update()
                name = variant_name(backbone.key, has_dcls)
                if name in missed:
                    continue
                try:
                    path = _kept_path(study, backbone, has_dcls, some)
                    if _is_kept(path, study.keep_going):
                        reused += 1
                    else:
                        ranked = ranked or HumanRanks(some, study)
                        scores = score_variant(study, backbone, has_dcls, ranked)
                        scores.attrs[_LEFT_OUT] = some.left_out
                        with write_atomically(path) as partial:
                            scores.to_parquet(partial, index=False)
                except (MissingWeights, WeightsError) as error:
                    if not study.keep_going:
                        raise
                    missed[name] = str(error)
                    tqdm.write(f"left out: {name}: {error}")
                    continue
                kept.append((backbone, has_dcls, path))
                bar.set_postfix_str(f"{reused} kept from before", refresh=False)
    if not kept:
        reasons = "\n".join(f"{name}: {reason}" for name, reason in missed.items())
        raise MissingInputs(f"nothing can be scored:\n{reasons}")
    kept.sort(key=lambda item: study.variants.index(item[:2]))
    tables = [_read_kept(*item) for item in kept]
    for table in tables:
        missed |= table.attrs.pop(_LEFT_OUT, {})
    scores = pd.concat(tables, ignore_index=True)
    scores.attrs[_LEFT_OUT] = missed
    return scores


def left_out(scores: pd.DataFrame) -> pd.DataFrame:
    """What a study with `keep_going` left out: a row per variant, part or picture, and why."""
    missed = scores.attrs.get(_LEFT_OUT, {})
    return pd.DataFrame(missed.items(), columns=["left_out", "reason"], dtype=str)


def _kept_path(study: Study, backbone: Backbone, has_dcls: bool, some: ClickMe) -> Path:
    """Raises MissingWeights."""
    weights = study.weights_path(backbone.key, has_dcls)
    if not weights.is_file():
        raise MissingWeights(f"no weights at {shown(weights)}")
    name = study.weights_name(backbone.key, has_dcls)
    key = _key(study, backbone, has_dcls, some)
    return study.scores / f"{name}-{some.part.name}-{key}.parquet"


def _is_kept(path: Path, keep_going: bool) -> bool:
    if not path.is_file():
        return False
    try:
        told = pq.read_schema(path).pandas_metadata or {}
    except pa.ArrowInvalid:
        tqdm.write(f"{path} is damaged: scoring anew")
        return False
    return keep_going or not told.get("attributes", {}).get(_LEFT_OUT)


def _read_kept(backbone: Backbone, has_dcls: bool, path: Path) -> pd.DataFrame:
    scores = pd.read_parquet(path)
    scores.insert(0, "variant", variant_name(backbone.key, has_dcls))
    scores.insert(1, "backbone", backbone.key)
    scores.insert(2, "dcls", has_dcls)
    return scores


class HumanRanks:
    """A part's pictures with their ranked human maps, for all variants and protocols.

    A reading of the maps that several protocols or backbones share is made and ranked once.
    """

    def __init__(self, part: ClickMe, study: Study):
        self.part = part
        self._device = study.torch_device()
        self._batches = list(part.batches(study.batch_size))
        for name, reason in part.left_out.items():
            tqdm.write(f"left out: {name}: {reason}")
        self._ranks: dict[tuple, list[Ranks]] = {}

    def batches(self, backbone: Backbone) -> Iterator[tuple[ClickMeBatch, dict[str, Ranks]]]:
        """The batches, each with {protocol: ranks} for this backbone's maps."""
        geometry = backbone.preprocessing
        for number, batch in enumerate(self._batches):
            human = {p.key: self._of(p, geometry)[number] for p in self.part.protocols}
            yield batch, human

    def _of(self, protocol: Protocol, geometry: Preprocessing) -> list[Ranks]:
        reading = protocol.reading(geometry)
        if reading not in self._ranks:
            self._ranks[reading] = [
                rank_maps(
                    human_maps(batch.stored_maps, protocol, geometry).to(self._device),
                    protocol.settles,
                )
                for batch in self._batches
            ]
        return self._ranks[reading]


def score_variant(
    study: Study, backbone: Backbone, has_dcls: bool, ranked: HumanRanks
) -> pd.DataFrame:
    """Scores of one variant over a part's ranked batches."""
    model = study.load_model(backbone.key, has_dcls).for_inference()
    frames = [
        score_batch(model, batch, human, study.methods, ranked.part.kept)
        for batch, human in ranked.batches(backbone)
    ]
    if not frames:
        return pd.DataFrame()
    # Whatever the batches, the same rows in the same order.
    return pd.concat(frames).sort_values(["method", "protocol"], kind="stable", ignore_index=True)
