"""Where pictures, human maps and labels lie: ClickMe's shards, `.npz` files, a plain folder.

A `Part` is what is scored and kept at once: a shard, or so many files of a folder.
Nothing here needs torch.

May import: people, base.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lib.people.stored.folders import LABELS, list_archives, list_folder
from lib.people.stored.gaze import GAZE, list_gaze
from lib.people.stored.part import Part, StoredError, StoredPicture
from lib.people.stored.shards import Shard, find_shards

__all__ = ["Part", "StoredError", "StoredPicture", "list_parts", "open_parts", "picture_files"]

_TOLD = 10  # problems in one message; `lib.people.stored.check` tells all


def picture_files(place: Path) -> list[Path]:
    """The shards in a folder in their order, or the folder itself, which is read as a whole."""
    return find_shards(place) or [place]


def open_parts(places: Iterable[Path], tolerant: bool = False) -> list[Part]:
    """The parts of some shards or folders, in this order, with what each holds.

    places   : a file is a shard; a folder holds shards, or `labels.csv` with pictures and
               maps or gaze points, or `.npz` files
    tolerant : a part that cannot be read has a `damage` and holds what lies before it
    Raises FileNotFoundError and StoredError, unless tolerant.
    """
    parts: list[Part] = []
    for place in places:
        if not place.is_dir():
            parts.append(Shard(place, tolerant))
        elif shards := find_shards(place):
            parts += [Shard(path, tolerant) for path in shards]
        else:
            found, problems = _listed(place)
            if problems:
                told = _told(place, problems)
                if not (tolerant and found):
                    raise StoredError(told)
                found[0].damage = told
            parts += found
    if repeated := _repeated(parts):
        raise StoredError(repeated)
    return parts


def list_parts(place: Path) -> tuple[list[Part], list[str]]:
    """The parts of a shard or folder as far as they can be read, and every problem in listing them.

    Raises FileNotFoundError and StoredError for a folder that cannot be listed at all.
    """
    if place.is_dir() and not find_shards(place):
        return _listed(place)
    parts: list[Part] = [Shard(path, tolerant=True) for path in picture_files(place)]
    problems = [part.damage for part in parts if part.damage]
    if repeated := _repeated(parts):
        problems.append(repeated)
    return [part for part in parts if len(part)], problems


def _listed(folder: Path) -> tuple[list[Part], list[str]]:
    if (folder / GAZE).is_file():
        return list_gaze(folder)
    return list_folder(folder) if (folder / LABELS).is_file() else list_archives(folder)


def _told(folder: Path, problems: Sequence[str]) -> str:
    lines = [f"  {problem}" for problem in problems[:_TOLD]]
    if len(problems) > _TOLD:
        lines.append(f"  … and {len(problems) - _TOLD} more: dcls-check {folder}")
    return "\n".join([f"{folder}:", *lines])


def _repeated(parts: Sequence[Part]) -> str:
    names = [part.name for part in parts]
    repeated = sorted({name for name in names if names.count(name) > 1})
    return f"more than one part has the name {', '.join(repeated)}; rename them" * bool(repeated)
