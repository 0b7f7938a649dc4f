"""Where pictures, human maps and labels lie: ClickMe's shards, `.npz` files, a plain folder.

A `Part` is what is scored and kept at once: a shard, or so many files of a folder.
Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lib.stored.folders import LABELS, open_archives, open_folder
from lib.stored.part import Part, StoredError, StoredPicture
from lib.stored.shards import Shard, find_shards

__all__ = ["Part", "StoredError", "StoredPicture", "open_parts", "picture_files"]


def picture_files(place: Path) -> list[Path]:
    """The shards in a folder in their order, or the folder itself, which is read as a whole."""
    return find_shards(place) or [place]


def open_parts(places: Iterable[Path], tolerant: bool = False) -> list[Part]:
    """The parts of some shards or folders, in this order, with what each holds.

    places   : a file is a shard; a folder holds shards, or `labels.csv` with pictures and
               maps, or `.npz` files
    tolerant : a part that cannot be read has a `damage` and holds what lies before it
    Raises FileNotFoundError and StoredError, unless tolerant.
    """
    parts: list[Part] = []
    for place in places:
        if not place.is_dir():
            parts.append(Shard(place, tolerant))
        elif shards := find_shards(place):
            parts += [Shard(path, tolerant) for path in shards]
        elif (place / LABELS).is_file():
            parts += open_folder(place, tolerant)
        else:
            parts += open_archives(place)
    names = [part.name for part in parts]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise StoredError(f"more than one part has the name {', '.join(repeated)}; rename them")
    return parts
