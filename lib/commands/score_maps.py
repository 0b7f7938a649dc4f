"""Heatmaps made elsewhere, scored against human maps without any model: `dcls-score-maps`.

Each map is taken to cover the whole image as the study shows it (its centred square), and is
compared with the human map as a network's is: same readings, same ranks, same intervals.
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

_LEFT_OUT = 14  # the exit status, as of run_all.py


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dcls-score-maps",
        description="Score heatmaps that were made elsewhere against human maps. A map is taken "
        "to cover the whole image as the study shows it, its centred square. See "
        "docs/own-data.md.",
        epilog=f"protocols: {', '.join(PROTOCOLS)}",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("maps", type=Path, nargs="+", metavar="MAPS",
        help="a folder with a map per image (.npy, .npz, .png, .jpg), an .npz with an entry "
        "per image, or an .npy of (image, height, width) with ids.txt beside it; of several "
        "models one after another, which are then compared")  # fmt: skip
    add("--name", nargs="+", default=[], metavar="NAME",
        help="of each MAPS in their order (default: the folder's or file's)")  # fmt: skip
    add("--ids", type=Path, metavar="FILE",
        help="names of the maps in an .npy, a line each (default: ids.txt beside it)")  # fmt: skip
    add("--images", default="", metavar="FOLDER",
        help="your own images and human maps (default: the profile's)")  # fmt: skip
    add_reading(add)
    add("--profile", default="paper", help=f"{', '.join(PROFILES)} (default: paper)")
    add("--protocols", nargs="+", default=[], metavar="KEY",
        help="how human maps are read (default: published corrected)")  # fmt: skip
    add("--geometry", default="", metavar="MODEL",
        help="the maps cover what this network's crop keeps, such as resnet50: where human maps "
        "are cropped (corrected), they are cropped alike (default: the whole image)")  # fmt: skip
    add("--ceiling", type=float, default=0.0, metavar="RHO",
        help="how well these people agree, where you know it (default: ClickMe's own; of other "
        "data estimated from their observers, or none)")  # fmt: skip
    add("--smallest-effect", type=float, default=RULES.smallest_effect, metavar="SCORE",
        help="difference of scores below which it does not matter (default: "
        f"{RULES.smallest_effect:g})")  # fmt: skip
    add("--limit", type=int, default=0, metavar="N", help="so many of the images; 0: all")
    add("--out", type=Path, metavar="FILE.csv",
        help="a row per image and protocol, and FILE.json: numbers and their origin")  # fmt: skip
    add("--keep-going", action="store_true",
        help="leave out maps and images that cannot be read, and name them")  # fmt: skip
    add("--data-dir", default="")
    return parser


def _collections(options: argparse.Namespace, image_ids: Sequence[str]) -> list[Collection]:
    names = options.name or [_named(place.absolute()) for place in options.maps]
    if len(names) != len(options.maps):
        raise ValueError(f"{len(options.maps)} MAPS and {len(names)} names: --name takes as many")
    if len(set(names)) < len(names):
        raise ValueError(f"two of the MAPS have one name ({', '.join(names)}): give --name")
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
            f"no images and human maps at {', '.join(map(shown, missing))}: --images FOLDER "
            "takes your own, --profile demo the embedded example's"
        )
    # No network classifies the images: their labels may be any.
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
            f"{in_lines(problems)}\nNothing was scored: mend these maps, or leave them out by "
            "--keep-going."
        )
    # From here on nothing that is computed is lost because of one file.
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
        print(f"left out:\n{in_lines(left_out)}", file=sys.stderr)
    return _LEFT_OUT if left_out else 0


def _with_controls(scores: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """The scores with each control's rho on the same image, a column each."""
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
    """What stands beside the scores: what they were made from, and what they come to."""
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
    """Scores, counts and differences, to be read."""
    lines = []
    for c in collections:
        there = sum(image_id in c.match.of for image_id in chosen)
        without = c.match.without_image
        lines.append(f"{c.name}: {there} of {len(chosen)} images have a map; "
                     f"{len(without)} maps without an image"
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
    """A line for each score: whether it is more than the strongest control's."""
    labels = control_labels()
    lines = []
    for row in summary.itertuples():
        if not row.control:
            lines.append(f"{row.maps}, {row.protocol}: no control to compare with")
            continue
        told = "lies above" if row.above_control else "DOES NOT SURELY LIE ABOVE"
        if row.n < RULES.fewest_images:
            told = f"too few images ({row.n}) to say whether it lies above"
        lines.append(
            f"{row.maps}, {row.protocol}: {told} the strongest map that no network made, the "
            f"{labels[row.control]} ({row.control_score:.3f}); difference {row.over_control:+.3f} "
            f"[{row.over_control_low:+.3f}, {row.over_control_high:+.3f}]"
        )
    return lines


def _as_text(table: pd.DataFrame) -> str:
    small = dict.fromkeys(["p", "p_holm"], "{:.4f}".format)
    return table.to_string(index=False, float_format="{:.3f}".format, formatters=small)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for what is wrong with what was asked, 14 if
    all is done but what could not be read."""
    options = build_parser().parse_args(arguments)
    return run("dcls-score-maps", lambda: _run(options), ", nothing was written")
