"""A study's scores, computed unless cached, and cached for each variant and part."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tqdm import tqdm

from ..base.progress_bar import progress_bar
from ..maps.methods import METHODS
from ..networks.backbones import variant_name
from ..study.choices import Choices
from ..study.inputs import MissingInputs
from ..study.study import Study
from .agreements import NON_FINITE
from .cluster import score_on_cluster
from .kept import LEFT_OUT, read_kept
from .units import Unit, score_here, units_of


def score_study(study: Study) -> pd.DataFrame:
    """Return the tidy per-image table of a study's scores.

    One row per variant, protocol, method and image: `variant, backbone, dcls, protocol,
    method, image_id, label, rho, partial, tied, attainable, validity, top1, top5`.

    Parts (shards) are scored one by one, so memory does not grow with their number; with
    `workers` or `scheduler`, several processes share them (`lib.scores.cluster`). Raises
    MissingInputs, StoredError and WeightsError for files that cannot be read; with `keep_going`
    these are skipped, and `left_out` lists them.
    """
    study.inputs.require()
    clickme = study.clickme()
    missed = dict(clickme.left_out)
    tables: dict[tuple[str, Path], pd.DataFrame] = {}
    waiting: dict[Path, Unit] = {}
    units: list[Unit] = []
    for unit in units_of(study, clickme, missed):
        units.append(unit)
        if unit.path in waiting:  # a matched pair shares its DCLS model
            continue
        table = read_kept(unit.path, study.choices.keep_going)
        if table is None:
            waiting[unit.path] = unit
        else:
            tables[unit.variant, unit.path] = table
    with progress_bar(total=len(units), initial=len(tables), desc="scoring", unit="model") as bar:
        bar.set_postfix_str(f"{len(tables)} cached", refresh=False)
        elsewhere = study.choices.workers or study.choices.scheduler
        score = score_on_cluster if elsewhere else score_here
        for unit, error in score(study, list(waiting.values())):
            bar.update()
            if error is not None:
                missed[unit.variant] = str(error)
                tqdm.write(f"skipped: {unit.variant}: {error}")
    scores = _together(study.choices, units, tables, missed)
    damaged = scores[scores.validity == NON_FINITE]
    once = damaged.drop_duplicates(["backbone", "dcls", "method", "image_id"])  # over protocols
    for method, count in once.groupby("method").size().items():
        tqdm.write(f"{METHODS[method].label}: {count} maps are not finite and were skipped")
    return scores


def left_out(scores: pd.DataFrame) -> pd.DataFrame:
    """Return what a study with `keep_going` skipped: a row per variant, part or image, and why."""
    missed = {name: why[:1000] for name, why in scores.attrs.get(LEFT_OUT, {}).items()}
    return pd.DataFrame(missed.items(), columns=["left_out", "reason"], dtype=str)


def _together(
    choices: Choices, units: list[Unit], tables: dict, missed: dict[str, str]
) -> pd.DataFrame:
    order = [variant_name(backbone.key, dcls) for backbone, dcls in choices.variants]
    frames = []
    for unit in sorted(units, key=lambda unit: order.index(unit.variant)):
        if unit.variant in missed:
            continue
        scores = tables.get((unit.variant, unit.path))
        scores = read_kept(unit.path) if scores is None else scores
        if scores is None:
            missed[unit.variant] = "it shares its weights with a variant that was skipped"
            continue
        missed |= scores.attrs.pop(LEFT_OUT, {})
        if scores.empty:
            continue
        frames.append(
            scores.assign(variant=unit.variant, backbone=unit.backbone.key, dcls=unit.dcls)
        )
    if not frames:
        reasons = "\n".join(f"{name}: {reason}" for name, reason in missed.items())
        raise MissingInputs(f"no model can be scored:\n{reasons}")
    scores = pd.concat(frames, ignore_index=True)
    names = ["variant", "backbone", "dcls"]
    scores = scores[[*names, *scores.columns.difference(names, sort=False)]]
    scores.attrs[LEFT_OUT] = missed
    return scores
