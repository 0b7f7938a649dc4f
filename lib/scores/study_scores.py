"""A study's scores, computed unless cached, and cached for each variant and part."""

from __future__ import annotations

import pandas as pd
from tqdm import tqdm

from ..maps.methods import METHODS
from ..networks.backbones import variant_name
from ..study.inputs import MissingInputs
from ..study.study import Study
from ..work.cache import LEFT_OUT
from ..work.doing import tables
from ..work.shares import ShareDone, do_share
from .agreements import NON_FINITE
from .units import ScoreWork


def score_study(study: Study) -> pd.DataFrame:
    """Return the tidy per-image table of a study's scores.

    One row per variant, protocol, method and image: `variant, backbone, dcls, protocol,
    method, image_id, label, rho, partial, tied, attainable, validity, top1, top5`.

    Parts (shards) are scored one by one, so memory does not grow with their number; with
    `workers` or `scheduler`, several processes share them (`lib.work.cluster`). Raises
    MissingInputs, StoredError and WeightsError for files that cannot be read; with `keep_going`
    these are skipped, and `left_out` lists them.
    """
    study.inputs.require()
    work = ScoreWork(study)
    order = [variant_name(backbone.key, dcls) for backbone, dcls in study.choices.variants]
    frames: dict[str, list[pd.DataFrame]] = {variant: [] for variant in order}
    for unit, table in tables(work):
        if not table.empty:
            of = unit.of
            frames[unit.model].append(
                table.assign(variant=unit.model, backbone=of.backbone.key, dcls=of.dcls)
            )
    scores = _together(frames, work.missed)
    damaged = scores[scores.validity == NON_FINITE]
    once = damaged.drop_duplicates(["backbone", "dcls", "method", "image_id"])  # over protocols
    for method, count in once.groupby("method").size().items():
        tqdm.write(f"{METHODS[method].label}: {count} maps are not finite and were skipped")
    return scores


def score_share(study: Study, number: int, count: int) -> ShareDone:
    """Compute the scores of share `number` of `count` and cache them for `score_study`.

    Raises as `score_study` and `lib.work.shares.share` do.
    """
    study.inputs.require()
    return do_share(ScoreWork(study), number, count)


def left_out(scores: pd.DataFrame) -> pd.DataFrame:
    """Return what a study with `keep_going` skipped: a row per variant, part or image, and why."""
    missed = {name: why[:1000] for name, why in scores.attrs.get(LEFT_OUT, {}).items()}
    return pd.DataFrame(missed.items(), columns=["left_out", "reason"], dtype=str)


def _together(frames: dict[str, list[pd.DataFrame]], missed: dict[str, str]) -> pd.DataFrame:
    found = [frame for of_variant in frames.values() for frame in of_variant]
    if not found:
        reasons = "\n".join(f"{name}: {reason}" for name, reason in missed.items())
        raise MissingInputs(f"no model can be scored:\n{reasons}")
    scores = pd.concat(found, ignore_index=True)
    names = ["variant", "backbone", "dcls"]
    scores = scores[[*names, *scores.columns.difference(names, sort=False)]]
    scores.attrs[LEFT_OUT] = missed
    return scores
