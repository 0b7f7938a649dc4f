"""Heatmaps made elsewhere, scored against human maps without any model: `python -m lib.score_maps`.

Each map is taken to cover the whole picture as the study shows it (its centred square), and is
compared with the human map as a network's is: same readings, same ranks, same intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lib.backbones import BACKBONES, Preprocessing
from lib.clickme import ClickMe
from lib.control_scores import MapBlock, map_blocks
from lib.files import write_atomically
from lib.fingerprint import sha256_of
from lib.human_maps import human_maps
from lib.outputs import commit, environment
from lib.own_maps import (
    Maps,
    MapsError,
    Match,
    as_scored,
    in_lines,
    match,
    not_finite,
    open_maps,
    some_of,
)
from lib.paths import shown
from lib.protocols import PROTOCOLS, Protocol
from lib.results import HUMAN_CEILING
from lib.scoring import (
    CONSTANT_HUMAN_MAP,
    CONSTANT_MODEL_MAP,
    NON_FINITE,
    VALID,
    agreement,
)
from lib.spearman import rank_maps
from lib.statistics import effect_size, holm, mean_interval, sign_flip_p
from lib.stored import open_parts
from lib.study import PROFILES, MissingInputs, Study

NO_MAP = "no map"
UNREADABLE = "unreadable map"
COLUMNS = ["maps", "image_id", "protocol", "rho", "validity", "floor"]
WHOLE = Preprocessing(resize=224, crop=224)  # nothing of the picture is cut off
_LEFT_OUT = 14  # the exit status, as of run_all.py


@dataclass(frozen=True)
class Collection:
    """Maps of one model. match : which of them is of which picture"""

    name: str
    maps: Maps
    match: Match


def validate(collection: Collection, image_ids: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Read the maps of these pictures.

    Returns {picture: why its map cannot be read}, and the maps with values that are not finite.
    """
    unreadable: dict[str, str] = {}
    unordered: list[str] = []
    of = collection.match.of
    wanted = [image_id for image_id in image_ids if image_id in of]
    for image_id in tqdm(wanted, desc=f"checking {collection.name}", unit="map", leave=False):
        try:
            bad = not_finite(collection.maps.read(of[image_id]))
        except MapsError as error:
            unreadable[image_id] = str(error)
        else:
            if bad:
                unordered.append(f"{collection.maps.where(of[image_id])}: {bad}")
    return unreadable, unordered


def score_maps(
    collections: Sequence[Collection],
    clickme: ClickMe,
    geometry: Preprocessing = WHOLE,
    unreadable: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[pd.DataFrame, dict[str, dict[str, str]]]:
    """A row per collection, protocol and picture: `COLUMNS`.

    rho      : Spearman's, over all 224 x 224 pixels; missing where `validity` says why
    validity : as of networks' maps, or NO_MAP, UNREADABLE
    floor    : rho of another picture's human map with this picture's
    geometry : of whose crop the corrected protocol compares the maps with
    unreadable : {collection: {picture: why}}, maps not to be read again

    Also returns `unreadable` with what could not be read now. Human maps are read and ranked once
    for all collections; what cannot be read of them is in the reader's `left_out`.
    """
    known = {c.name: dict((unreadable or {}).get(c.name, {})) for c in collections}
    frames = []
    with tqdm(total=len(clickme), desc="scoring", unit="picture", leave=False) as bar:
        for block in map_blocks(clickme):
            frames += _scored(block, clickme, collections, geometry, known)
            bar.update(len(block.image_ids))
    if not frames:
        return pd.DataFrame(columns=COLUMNS), known
    table = pd.concat(frames, ignore_index=True)
    order = [c.name for c in collections]
    keys = [p.key for p in clickme.protocols]
    table = table.sort_values(
        ["maps", "protocol"], kind="stable", key=lambda c: c.map([*order, *keys].index)
    )
    return table.reset_index(drop=True)[COLUMNS], known


def _scored(
    block: MapBlock,
    clickme: ClickMe,
    collections: Sequence[Collection],
    geometry: Preprocessing,
    unreadable: dict[str, dict[str, str]],
) -> list[pd.DataFrame]:
    ranks, floors = {}, {}
    for protocol in clickme.protocols:
        human, other = (
            human_maps(maps, protocol, geometry) for maps in (block.stored_maps, block.other_maps)
        )
        ranks[protocol.key] = rank_maps(human, protocol.settles)
        found = agreement(other[None], {protocol.key: ranks[protocol.key]})
        floors[protocol.key] = _where_valid(found.measured, found.validity(0, protocol.key),
                                            protocol, 0)  # fmt: skip
    maps, absent = zip(
        *(_read(c, block.image_ids, unreadable[c.name]) for c in collections), strict=True
    )
    kind = torch.float64 if any(m.dtype == torch.float64 for m in maps) else torch.float32
    found = agreement(torch.stack([m.to(kind) for m in maps]), ranks)
    frames = []
    for number, collection in enumerate(collections):
        for protocol in clickme.protocols:
            validity = found.validity(number, protocol.key)
            validity = np.where(absent[number] == "", validity, absent[number])
            frame = pd.DataFrame(
                {
                    "maps": collection.name,
                    "image_id": block.image_ids,
                    "protocol": protocol.key,
                    "rho": _where_valid(found.measured, validity, protocol, number),
                    "validity": validity,
                    "floor": floors[protocol.key],
                }
            )
            frames.append(frame[clickme.is_scored(protocol.key, block.places)])
    return frames


def _where_valid(
    measured: Mapping[str, torch.Tensor], validity: np.ndarray, protocol: Protocol, number: int
) -> np.ndarray:
    return np.where(validity == VALID, measured[protocol.key][0, number].numpy(), np.nan)


def _read(
    collection: Collection, image_ids: Sequence[str], unreadable: dict[str, str]
) -> tuple[torch.Tensor, np.ndarray]:
    """(image, 224, 224), NaN where there is no map, and "" or why there is none."""
    found, absent = [], []
    for image_id in image_ids:
        name = collection.match.of.get(image_id)
        why = NO_MAP if name is None else UNREADABLE if image_id in unreadable else ""
        if not why:
            try:
                found.append(as_scored(collection.maps.read(name)))
            except MapsError as error:  # it has changed since it was checked
                unreadable[image_id] = str(error)
                why = UNREADABLE
        if why:
            found.append(torch.full((WHOLE.crop, WHOLE.crop), torch.nan))
        absent.append(why)
    kind = torch.float64 if any(m.dtype == torch.float64 for m in found) else torch.float32
    return torch.stack([m.to(kind) for m in found]), np.array(absent)


# --- what it comes to -----------------------------------------------------------------------


def summarise_maps(scores: pd.DataFrame) -> pd.DataFrame:
    """Score of each collection under each protocol: one row each.

    score, low, high : mean rho of the valid maps divided by the human ceiling, and its 95 %
                bootstrap interval over pictures
    raw       : mean rho itself
    floor     : mean score of another picture's human map, on the same pictures
    n, n_constant_map, n_constant_human, n_non_finite, n_unreadable, n_no_map : pictures scored,
                and why others were not
    """
    rows = []
    for (name, protocol), chosen in scores.groupby(["maps", "protocol"], sort=False):
        valid = chosen[chosen.validity == VALID]
        found = mean_interval(valid.rho / HUMAN_CEILING)
        counts = chosen.validity.value_counts()
        rows.append(
            {
                "maps": name,
                "protocol": protocol,
                "score": found.mean,
                "low": found.low,
                "high": found.high,
                "raw": valid.rho.mean(),
                "floor": valid.floor.mean() / HUMAN_CEILING,
                "n": found.n,
                "n_constant_map": counts.get(CONSTANT_MODEL_MAP, 0),
                "n_constant_human": counts.get(CONSTANT_HUMAN_MAP, 0),
                "n_non_finite": counts.get(NON_FINITE, 0),
                "n_unreadable": counts.get(UNREADABLE, 0),
                "n_no_map": counts.get(NO_MAP, 0),
            }
        )
    return pd.DataFrame(rows)


def compare_maps(scores: pd.DataFrame) -> pd.DataFrame:
    """Each collection minus each one before it, paired by picture on those valid for both.

    difference, low, high : mean in units of the score, 95 % bootstrap interval
    n_paired  : pictures in the comparison
    p, p_holm : of the sign-flip test; corrected over the pairs of the same protocol
    effect    : Cohen's d
    """
    columns = ["protocol", "maps", "minus", "difference", "low", "high", "n_paired", "p",
               "p_holm", "effect"]  # fmt: skip
    rows = []
    valid = scores[scores.validity == VALID]
    for protocol in scores.protocol.unique():
        wide = valid[valid.protocol == protocol].pivot(
            index="image_id", columns="maps", values="rho"
        )
        family = []
        for first, second in combinations(scores.maps.unique(), 2):
            pair = wide.reindex(columns=[first, second]).dropna()
            gain = (pair[second] - pair[first]) / HUMAN_CEILING
            found = mean_interval(gain)
            family.append((protocol, second, first, found.mean, found.low, found.high, found.n,
                           sign_flip_p(gain), effect_size(gain)))  # fmt: skip
        corrected = holm([row[7] for row in family])
        rows += [(*row[:8], p, row[8]) for row, p in zip(family, corrected, strict=True)]
    return pd.DataFrame(rows, columns=columns)


# --- the command line -----------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lib.score_maps",
        description="Score heatmaps that were made elsewhere against human maps. A map is taken "
        "to cover the whole picture as the study shows it, its centred square. See "
        "docs/own-data.md.",
        epilog=f"protocols: {', '.join(PROTOCOLS)}",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("maps", type=Path, nargs="+", metavar="MAPS",
        help="a folder with a map per picture (.npy, .npz, .png, .jpg), an .npz with an entry "
        "per picture, or an .npy of (image, height, width) with ids.txt beside it; of several "
        "models one after another, which are then compared")  # fmt: skip
    add("--name", nargs="+", default=[], metavar="NAME",
        help="of each MAPS in their order (default: the folder's or file's)")  # fmt: skip
    add("--ids", type=Path, metavar="FILE",
        help="names of the maps in an .npy, a line each (default: ids.txt beside it)")  # fmt: skip
    add("--pictures", default="", metavar="FOLDER",
        help="your own pictures and human maps (default: the profile's)")  # fmt: skip
    add("--profile", default="paper", help=f"{', '.join(PROFILES)} (default: paper)")
    add("--protocols", nargs="+", default=[], metavar="KEY",
        help="how human maps are read (default: published corrected)")  # fmt: skip
    add("--geometry", default="", metavar="MODEL",
        help="the maps cover what this network's crop keeps, such as resnet50: where human maps "
        "are cropped (corrected), they are cropped alike (default: the whole picture)")  # fmt: skip
    add("--limit", type=int, default=0, metavar="N", help="so many of the pictures; 0: all")
    add("--out", type=Path, metavar="FILE.csv",
        help="a row per picture and protocol, and FILE.json: numbers and their origin")  # fmt: skip
    add("--keep-going", action="store_true",
        help="leave out maps and pictures that cannot be read, and name them")  # fmt: skip
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
        protocols=options.protocols, pictures=options.pictures, keep_going=options.keep_going,
    )  # fmt: skip
    missing = [path for path in study.picture_paths() if not path.exists()]
    if missing and not (options.keep_going and len(missing) < len(study.picture_paths())):
        raise MissingInputs(
            f"no pictures and human maps at {', '.join(map(shown, missing))}: --pictures FOLDER "
            "takes your own, --profile demo the embedded example's"
        )
    # No network classifies the pictures: their labels may be any.
    return replace(study, profile=replace(study.profile, classes=sys.maxsize))


def _run(options: argparse.Namespace) -> int:
    if options.out is not None and options.out.suffix != ".csv":
        raise ValueError(f"--out {options.out} must end in .csv")
    geometry = BACKBONES[options.geometry].preprocessing if options.geometry else WHOLE
    study = _study(options)
    clickme = study.clickme()
    parts = open_parts(study.picture_paths(), study.keep_going)
    every = [part.image_id(index) for part in parts for index in range(len(part))]
    chosen = [picture.image_id for picture in clickme.chosen]
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
    summary, compared = summarise_maps(scores), compare_maps(scores)
    if options.out is not None:
        facts = _facts(options, study, collections, summary, compared, left_out)
        with write_atomically(options.out) as partial:
            scores.to_csv(partial, index=False)
        with write_atomically(options.out.with_suffix(".json")) as partial:
            partial.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    print(_told(collections, chosen, summary, compared))
    if study.profile.caveat and not options.pictures:
        print(study.profile.caveat)
    if left_out:
        print(f"left out:\n{in_lines(left_out)}", file=sys.stderr)
    return _LEFT_OUT if left_out else 0


def _facts(
    options: argparse.Namespace,
    study: Study,
    collections: Sequence[Collection],
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
                "maps": len(c.maps.names),
                "without_picture": c.match.without_picture,
            }
            for c in collections
        },
        "study": {
            "profile": study.profile.key,
            "pictures": study.pictures,
            "protocols": list(study.protocols),
            "limit": study.limit,
            "geometry": options.geometry or "whole picture",
            "keep_going": study.keep_going,
            "human_ceiling": HUMAN_CEILING,
        },
        "inputs": study.input_hashes("pictures"),
        "summary": _records(summary),
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
    summary: pd.DataFrame,
    compared: pd.DataFrame,
) -> str:
    """Scores, counts and differences, to be read."""
    lines = []
    for c in collections:
        there = sum(image_id in c.match.of for image_id in chosen)
        without = c.match.without_picture
        lines.append(f"{c.name}: {there} of {len(chosen)} pictures have a map; "
                     f"{len(without)} maps without a picture"
                     + f" ({some_of(without)})" * bool(without))  # fmt: skip
    counts = [name for name in summary.columns if name.startswith("n_") and summary[name].any()]
    text = summary[["maps", "protocol", "score", "low", "high", "raw", "floor", "n", *counts]]
    lines += [
        "",
        "score = mean rho ÷ human ceiling, with its 95 % interval; floor: another picture's "
        "human map",
        _as_text(text),
    ]
    if len(compared):
        lines += ["", "differences of scores, paired by picture", _as_text(compared)]
    return "\n".join(lines)


def _as_text(table: pd.DataFrame) -> str:
    small = dict.fromkeys(["p", "p_holm"], "{:.4f}".format)
    return table.to_string(index=False, float_format="{:.3f}".format, formatters=small)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for what is wrong with what was asked, 14 if
    all is done but what could not be read."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except (ValueError, OSError, MissingInputs) as error:
        print(f"lib.score_maps: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lib.score_maps: ended, nothing was written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
