"""Agreement with human maps, picture by picture.

Scores are kept on disk, one file per variant and shard, under a name that contains a
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

from lib import cam, clickme, dcls, methods, models, protocols, spearman
from lib import human_maps as human_maps_code
from lib.backbones import Backbone, Preprocessing, variant_name
from lib.clickme import ClickMe, ClickMeBatch
from lib.files import write_atomically
from lib.fingerprint import fingerprint, sha256_of
from lib.human_maps import human_maps
from lib.methods import CamMethod
from lib.models import StudyModel
from lib.protocols import PROTOCOLS, Protocol
from lib.spearman import Ranks, rank_maps, sort_maps, spearman_per_image
from lib.study import Study

VALID = "valid"
CONSTANT_MODEL_MAP = "constant model map"
CONSTANT_HUMAN_MAP = "constant human map"
NON_FINITE = "non-finite map"

# A change to any of these may change a score, so kept scores depend on their text.
_DETERMINING_CODE = (
    cam, clickme, dcls, human_maps_code, methods, models, protocols, spearman, sys.modules[__name__]
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


def _key(study: Study, backbone: Backbone, has_dcls: bool, part: ClickMe) -> str:
    """A hash of what determines a variant's scores on a shard's pictures."""
    return fingerprint(
        {
            "weights": sha256_of(study.weights_path(backbone.key, has_dcls)),
            "dcls": has_dcls and backbone.dcls,
            "preprocessing": backbone.preprocessing,
            "head_norm_eps": backbone.head_norm_eps,
            "methods": {method.key: method.small_map for method in study.methods},
            "protocols": [(p.key, sorted(p.mends)) for p in part.protocols],
            "kept": part.kept,
            "shard": sha256_of(part.addresses[0].shard),
            "pictures": [address.index for address in part.addresses],
            "device": study.torch_device().type,
            "code": _DETERMINING_CODE,
            "packages": {name: version(name) for name in _DETERMINING_PACKAGES},
        }
    )


def score_study(study: Study) -> pd.DataFrame:
    """The tidy per-image table of a study: computed where not kept, then kept.

    One row per variant, method and image: `variant, backbone, dcls, protocol,
    method, image_id, label, rho, validity, top1, top5`.

    Shards are worked through one by one, so memory does not grow with their number;
    a shard's pictures and human ranks are made once for all variants.
    Raises MissingInputs, and ShardError for an unreadable shard.
    """
    study.require_inputs()
    paths: list[Path] = []
    parts = list(study.clickme().per_shard())
    reused = 0
    with tqdm(total=len(parts) * len(study.variants), desc="scoring", unit="model") as bar:
        for part in parts:
            ranked: HumanRanks | None = None
            for backbone, has_dcls in study.variants:
                name = variant_name(backbone.key, has_dcls)
                key = _key(study, backbone, has_dcls, part)
                path = study.scores / f"{name}-{part.addresses[0].shard.stem}-{key}.parquet"
                kept = _is_kept(path)
                reused += kept
                if not kept:
                    ranked = ranked or HumanRanks(part, study)
                    scores = score_variant(study, backbone, has_dcls, ranked)
                    with write_atomically(path) as partial:
                        scores.to_parquet(partial, index=False)
                paths.append(path)
                bar.set_postfix_str(f"{reused} kept from before", refresh=False)
                bar.update()
    scores = pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)
    order = {variant_name(b.key, d): i for i, (b, d) in enumerate(study.variants)}
    return scores.sort_values("variant", key=lambda v: v.map(order), kind="stable").reset_index(
        drop=True
    )


def _is_kept(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        pq.read_metadata(path)
    except pa.ArrowInvalid:
        tqdm.write(f"{path} is damaged: scoring anew")
        return False
    return True


class HumanRanks:
    """A shard's pictures with their ranked human maps, for all variants and protocols.

    A reading of the maps that several protocols or backbones share is made and ranked once.
    """

    def __init__(self, part: ClickMe, study: Study):
        self.part = part
        self._device = study.torch_device()
        self._batches = list(part.batches(study.batch_size))
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
    """Scores of one variant over a shard's ranked batches."""
    model = study.load_model(backbone.key, has_dcls).for_inference()
    scores = pd.concat(
        [
            score_batch(model, batch, human, study.methods, ranked.part.kept)
            for batch, human in ranked.batches(backbone)
        ],
        ignore_index=True,
    )
    names = {"variant": variant_name(backbone.key, has_dcls), "backbone": backbone.key,
             "dcls": has_dcls}  # fmt: skip
    for column, value in reversed(names.items()):
        scores.insert(0, column, value)
    return scores
