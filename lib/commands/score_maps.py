"""Heatmaps made elsewhere, scored against human maps without any model: `dcls-score-maps`.

Each heatmap is assumed to cover the whole image as the study shows it (its centred square), and is
compared with the human map like a model's: same protocols, same ranks, same intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ..base.files import refuse_as_output, write_atomically, write_json
from ..base.fingerprint import sha256_of
from ..base.geometry import WHOLE
from ..base.paths import shown
from ..base.spreadsheets import csv_text
from ..base.versions import commit, environment
from ..base.words import in_lines, some_of
from ..maps.elsewhere import MapsError, match, open_maps
from ..networks.backbones import BACKBONES
from ..people.protocols import PROTOCOLS
from ..people.stored import open_parts
from ..people.stored.folders import LABELS
from ..people.stored.gaze import GAZE
from ..scores.agreements import VALID
from ..scores.ceiling import Ceilings
from ..scores.control_scores import controls_of
from ..scores.controls import control_labels
from ..scores.map_scores import Collection, compare_maps, score_maps, summarise_maps, validate
from ..scores.observers import ceilings_of, score_observers
from ..study.inputs import MissingInputs
from ..study.profiles import PROFILES
from ..study.rules import RULES
from ..study.study import Study
from .reading import add_reading, read_as
from .running import run

_LEFT_OUT = 14  # the exit status, as in run_all.py


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dcls-score-maps",
        description="Score heatmaps that were made elsewhere against human maps. A heatmap is "
        "assumed to cover the whole image as the study shows it, its centred square. See "
        "docs/own-data.md.",
        epilog=f"protocols: {', '.join(PROTOCOLS)}",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("maps", type=Path, nargs="+", metavar="MAPS",
        help="a folder with a heatmap per image (.npy, .npz, .png, .jpg), an .npz with an entry "
        "per image, or an .npy of (image, height, width) with ids.txt beside it; MAPS of several "
        "models are compared with one another")  # fmt: skip
    add("--name", nargs="+", default=[], metavar="NAME",
        help="a name for each MAPS, in order (default: the folder's or file's)")  # fmt: skip
    add("--ids", type=Path, metavar="FILE",
        help="the image names of an .npy, one per line (default: ids.txt beside it)")  # fmt: skip
    add("--images", default="", metavar="FOLDER",
        help="your own images and human maps (default: the profile's)")  # fmt: skip
    add_reading(add)
    add("--profile", default="paper", help=f"{', '.join(PROFILES)} (default: paper)")
    add("--protocols", nargs="+", default=[], metavar="KEY",
        help="protocols: how human maps are read (default: published corrected)")  # fmt: skip
    add("--geometry", default="", metavar="MODEL",
        help="a model such as resnet50 whose crop the heatmaps cover: human maps are cropped "
        "alike under protocols that crop (corrected) (default: the whole image)")  # fmt: skip
    add("--ceiling", type=float, default=0.0, metavar="RHO",
        help="how well these people agree, if you know it (default: ClickMe's own; for other "
        "data estimated from their observers, or none)")  # fmt: skip
    add("--smallest-effect", type=float, default=RULES.smallest_effect, metavar="SCORE",
        help="a difference of scores below this does not matter (default: "
        f"{RULES.smallest_effect:g})")  # fmt: skip
    add("--limit", type=int, default=0, metavar="N", help="number of images; 0: all")
    add("--out", type=Path, metavar="FILE.csv",
        help="a row per image and protocol; also FILE.json: numbers and their origin")  # fmt: skip
    add("--keep-going", action="store_true",
        help="skip heatmaps and images that cannot be read, and name them")  # fmt: skip
    add("--data-dir", default="")
    return parser


def _collections(options: argparse.Namespace, image_ids: Sequence[str]) -> list[Collection]:
    names = options.name or [_named(place.absolute()) for place in options.maps]
    if len(names) != len(options.maps):
        raise ValueError(f"{len(options.maps)} MAPS have {len(names)} names: give --name one each")
    if len(set(names)) < len(names):
        raise ValueError(f"two of the MAPS have the same name ({', '.join(names)}): give --name")
    found, problems = [], []
    for name, place in zip(names, options.maps, strict=True):
        try:
            maps = open_maps(place, options.ids)
            found.append(Collection(name, maps, match(maps, image_ids)))
        except MapsError as error:
            problems.append(str(error))
    if problems:
        raise MapsError("\n".join(problems))
    return found


def _named(place: Path) -> str:
    return place.name if place.is_dir() else place.stem


def _study(options: argparse.Namespace) -> Study:
    study = Study.from_profile(
        options.profile, limit=options.limit, device="cpu", data_dir=options.data_dir,
        protocols=options.protocols, images=options.images, keep_going=options.keep_going,
        ceiling=options.ceiling, smallest_effect=options.smallest_effect, target="predicted",
        **read_as(options),
    )  # fmt: skip
    missing = [path for path in study.inputs.image_paths() if not path.exists()]
    if missing and not (options.keep_going and len(missing) < len(study.inputs.image_paths())):
        raise MissingInputs(
            f"images and human maps are missing at {', '.join(map(shown, missing))}: use --images "
            "FOLDER for your own, or --profile demo for the embedded example's"
        )
    # No model classifies the images, so any labels are allowed.
    return study.changed(profile=replace(study.choices.profile, classes=sys.maxsize))


def _run(options: argparse.Namespace) -> int:
    if options.out is not None:
        lists = [Path(options.images or ".") / name for name in (LABELS, *GAZE)]
        ids = [options.ids] if options.ids else []
        refuse_as_output(options.out, [*lists, *ids, *options.maps])
    geometry = BACKBONES[options.geometry].preprocessing if options.geometry else WHOLE
    study = _study(options)
    clickme = study.clickme()
    choices = study.choices
    parts = open_parts(study.inputs.image_paths(), choices.keep_going, choices.read)
    every = [part.image_id(index) for part in parts for index in range(len(part))]
    chosen = [image.image_id for image in clickme.chosen]
    collections = _collections(options, every)
    unreadable, problems = {}, []
    for collection in collections:
        unreadable[collection.name], unordered = validate(collection, chosen)
        problems += [*unreadable[collection.name].values(), *unordered]
    if problems and not options.keep_going:
        raise MapsError(
            f"{in_lines(problems)}\nNothing was scored: correct these heatmaps, or skip them with "
            "--keep-going."
        )
    # From here on no computed result is lost because of one file.
    clickme.keep_going = True
    scores, unreadable = score_maps(collections, clickme, geometry, unreadable)
    read = {why for of_one in unreadable.values() for why in of_one.values()}
    left_out = [
        *problems,
        *sorted(read - set(problems)),
        *(f"{name}: {why}" for name, why in clickme.left_out.items()),
    ]
    if scores.empty:
        raise MapsError(f"nothing can be scored:\n{in_lines(left_out)}")
    controls = controls_of(clickme, [geometry])
    people = score_observers(clickme, [geometry])
    ceilings = ceilings_of(study.choices, people)
    summary = summarise_maps(scores, controls, ceilings, geometry)
    compared = compare_maps(scores, ceilings, study.choices.smallest_effect, geometry)
    if options.out is not None:
        facts = _facts(options, study, collections, ceilings, summary, compared, left_out)
        with write_atomically(options.out) as partial:
            beside = _with_controls(scores, controls)
            partial.write_text(csv_text(beside), encoding="utf-8", newline="")
        write_json(options.out.with_suffix(".json"), facts)
    print(_told(collections, chosen, ceilings, summary, compared))
    if study.choices.profile.caveat and not options.images:
        print(study.choices.profile.caveat)
    if left_out:
        print(f"skipped:\n{in_lines(left_out)}", file=sys.stderr)
    return _LEFT_OUT if left_out else 0


def _with_controls(scores: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with each control's rho on the same image, in a column each."""
    of_each = controls.assign(rho=controls.rho.where(controls.validity == VALID)).pivot(
        index=["protocol", "image_id"], columns="control", values="rho"
    )
    return scores.merge(of_each.reset_index(), on=["protocol", "image_id"], how="left")


def _facts(
    options: argparse.Namespace,
    study: Study,
    collections: Sequence[Collection],
    ceilings: Ceilings,
    summary: pd.DataFrame,
    compared: pd.DataFrame,
    left_out: Sequence[str],
) -> dict:
    """Return the facts saved beside the scores: what they were made from, and their results."""
    return {
        "maps": {
            c.name: {
                "place": str(c.maps.place.absolute()),
                "sha256": sha256_of(c.maps.place),
                **({"ids_sha256": sha256_of(c.maps.ids)} if c.maps.ids else {}),
                "maps": len(c.maps.names),
                "without_image": c.match.without_image,
            }
            for c in collections
        },
        "study": {
            "profile": study.choices.profile.key,
            "images": study.choices.images,
            "protocols": list(study.choices.protocols),
            "limit": study.choices.limit,
            "geometry": options.geometry or "whole image",
            "keep_going": study.choices.keep_going,
            "human_ceiling": ceilings.words,
            "smallest_effect": study.choices.smallest_effect,
            "rules": study.choices.rules.version,
        },
        "inputs": study.inputs.hashes("images"),
        "summary": _records(summary),
        "ceilings": _records(ceilings.table()),
        "compared": _records(compared),
        "left_out": list(left_out),
        "commit": commit(),
        "environment": environment(),
    }


def _records(table: pd.DataFrame) -> list[dict]:
    return json.loads(table.to_json(orient="records", double_precision=15))


def _told(
    collections: Sequence[Collection],
    chosen: Sequence[str],
    ceilings: Ceilings,
    summary: pd.DataFrame,
    compared: pd.DataFrame,
) -> str:
    """Return scores, counts and differences as text."""
    lines = []
    for c in collections:
        there = sum(image_id in c.match.of for image_id in chosen)
        without = c.match.without_image
        lines.append(f"{c.name}: {there} of {len(chosen)} images have a heatmap; "
                     f"{len(without)} heatmaps have no image"
                     + f" ({some_of(without)})" * bool(without))  # fmt: skip
    summary = summary.copy()
    counts = [name for name in summary.columns if name.startswith("n_") and summary[name].any()]
    known = summary.ceiling.notna()
    ends = ["score", "low", "high"]
    summary[ends] = summary[ends].where(known, axis=0)
    known = known.any()
    score = [*ends, "raw"] if known else ["raw", "raw_low", "raw_high"]
    text = summary[["maps", "protocol", *score, "other_human", "n", *counts]]
    unit = "score = mean rho ÷ human ceiling" if known else "raw = mean rho"
    lines += [
        f"human ceiling: {ceilings.words}",
        "",
        f"{unit}, with its 95 % interval; other_human: another image's human map",
        _as_text(text.rename(columns={"raw_low": "low", "raw_high": "high"})),
        "",
        *_beside_controls(summary),
    ]
    if len(compared):
        lines += ["", "differences of scores, paired by image", _as_text(compared)]
    return "\n".join(lines)


def _beside_controls(summary: pd.DataFrame) -> list[str]:
    """Return a line for each score: whether it is above the strongest control's."""
    labels = control_labels()
    lines = []
    for row in summary.itertuples():
        if not row.control:
            lines.append(f"{row.maps}, {row.protocol}: no control to compare with")
            continue
        told = "is above" if row.above_control else "is NOT CLEARLY ABOVE"
        if row.n < RULES.fewest_images:
            told = f"has too few images ({row.n}) to say whether it is above"
        lines.append(
            f"{row.maps}, {row.protocol}: {told} the strongest control, "
            f"{labels[row.control]} ({row.control_score:.3f}); difference {row.over_control:+.3f} "
            f"[{row.over_control_low:+.3f}, {row.over_control_high:+.3f}]"
        )
    return lines


def _as_text(table: pd.DataFrame) -> str:
    small = dict.fromkeys(["p", "p_holm"], "{:.4f}".format)
    return table.to_string(index=False, float_format="{:.3f}".format, formatters=small)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 2 for an invalid request, 14 if files that
    cannot be read were skipped and everything else is done."""
    options = build_parser().parse_args(arguments)
    return run("dcls-score-maps", lambda: _run(options), ", nothing was written")
