"""Where images, human maps and labels are stored: ClickMe's shards, `.npz` files, a plain folder,
or a data set of gaze as its authors distribute it.

A `Part` is what is scored and cached as one unit: a shard, or some files of a folder.
Nothing here needs torch.

May import: people, base.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...base.tables import unknown_name
from .fit import CROP, FITS, Fit
from .folders import LABELS, list_archives, list_folder
from .gaze import gaze_file, list_data_set, list_gaze, viewing_of
from .layouts import LAYOUTS, Note
from .part import Part, StoredError, StoredImage
from .shards import Shard, find_shards
from .viewing import read_options

__all__ = [
    "Part",
    "Read",
    "StoredError",
    "StoredImage",
    "gaze_facts",
    "has_gaze",
    "image_files",
    "layout_in",
    "list_parts",
    "open_parts",
]  # fmt: skip

_TOLD = 10  # problems in one message; `lib.people.stored.check` lists all


# The layouts that belong to no data set.
PLAIN = ("shards", "archives", "maps", "gaze")


@dataclass(frozen=True)
class Read:
    """How folders are read.

    layout : a key of LAYOUTS, or one of PLAIN; "" for automatic recognition
    fit    : how images become squares, one of FITS
    gaze   : "KEY=VALUE" texts, where KEY is a field of `lib.people.stored.viewing.Viewing`

    Raises ValueError (UnknownName for a name), which says what is wrong.
    """

    layout: str = ""
    fit: str = CROP
    gaze: tuple[str, ...] = ()
    options: dict[str, object] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.layout and self.layout not in (*PLAIN, *LAYOUTS):
            raise unknown_name("layout", self.layout, [*PLAIN, *LAYOUTS])
        if self.fit not in FITS:
            raise unknown_name("fit", self.fit, FITS)
        object.__setattr__(self, "options", read_options(self.gaze))


def layout_in(folder: Path, read: Read = Read()) -> str:
    """Return the layout of a folder, as given or recognised: a key of LAYOUTS, or one of PLAIN.

    Raises StoredError if the folder may contain one of several data sets.
    """
    if read.layout:
        return read.layout
    if find_shards(folder):
        return "shards"
    if gaze_file(folder):
        return "gaze"
    if (folder / LABELS).is_file():
        return "maps"
    found = [layout.key for layout in LAYOUTS.values() if folder.is_dir() and layout.holds(folder)]
    if len(found) > 1:
        raise StoredError(f"{folder} may be {', '.join(found)}: choose one with --layout")
    return found[0] if found else "archives"


def has_gaze(layout: str) -> bool:
    """Return whether folders of a layout contain gaze points, rather than only maps."""
    return layout == "gaze" or layout in LAYOUTS


def gaze_facts(folder: Path, read: Read = Read()) -> dict[str, object]:
    """Return how the gaze of a folder becomes maps, as plain values; {} if it has no gaze points.

    Raises StoredError if the folder's layout or its `gaze.json` is unclear.
    """
    if not has_gaze(key := layout_in(folder, read)):
        return {}
    layout = LAYOUTS.get(key)
    named = {"data_set": layout.label, "source": layout.source} if layout else {}
    viewing = viewing_of(folder, layout, read.options)
    return named | viewing.facts | {"in_words": f"{viewing.words}; {Fit(read.fit).words}"}


def image_files(place: Path) -> list[Path]:
    """Return the shards in a folder in their order, or the folder itself if it is read whole."""
    return find_shards(place) or [place]


def open_parts(
    places: Iterable[Path],
    tolerant: bool = False,
    read: Read = Read(),
) -> list[Part]:
    """Open shards or folders and return their parts, in this order.

    places   : a file is a shard; a folder contains shards, or `labels.csv` with images and
               maps, or gaze points, or `.npz` files, or a known data set
    tolerant : whether a part that cannot be read is returned with the images before the
               damage, and its `damage` says why
    read     : how folders are read

    Raises FileNotFoundError and StoredError, unless tolerant.
    """
    parts: list[Part] = []
    for place in places:
        if shards := _shards_at(place, read):
            parts += [Shard(path, tolerant) for path in shards]
        else:
            found, problems = _listed(place, read)
            notes = [problem for problem in problems if isinstance(problem, Note)]
            if notes and found and len(notes) == len(problems):
                found[0].damage = "; ".join(notes)
            elif problems:
                told = _told(place, problems)
                if not (tolerant and found):
                    raise StoredError(told)
                found[0].damage = told
            parts += found
    if repeated := _repeated(parts):
        raise StoredError(repeated)
    return parts


def list_parts(
    place: Path,
    read: Read = Read(),
) -> tuple[list[Part], list[str]]:
    """Return the readable parts of a shard or folder, and every problem found in listing them.

    Raises FileNotFoundError and StoredError for a folder that cannot be listed at all.
    """
    if not (shards := _shards_at(place, read)):
        return _listed(place, read)
    parts: list[Part] = [Shard(path, tolerant=True) for path in shards]
    problems = [part.damage for part in parts if part.damage]
    if repeated := _repeated(parts):
        problems.append(repeated)
    return [part for part in parts if len(part)], problems


def _shards_at(place: Path, read: Read) -> list[Path]:
    """Return the shards to read there; none if the place is a folder to be listed.

    Raises StoredError for a way of reading that shards do not have.
    """
    shards = [place] if not place.is_dir() else find_shards(place)
    if read.layout not in ("", "shards"):
        if not place.is_dir():
            raise StoredError(f"{place} is not a folder of the layout {read.layout}")
        return []
    if read.layout == "shards" and not shards:
        raise StoredError(f"{place} contains no shards (.tfrecords)")
    if shards and (read.gaze or read.fit != CROP):
        raise StoredError(f"{place} contains squares with maps of clicks: omit --fit and --gaze")
    return shards


def _listed(folder: Path, read: Read) -> tuple[list[Part], list[str]]:
    fit, key = Fit(read.fit), layout_in(folder, read)
    if key in LAYOUTS:
        return list_data_set(folder, LAYOUTS[key], read.options, fit)
    if key == "gaze":
        return list_gaze(folder, read.options, fit)
    if read.gaze:
        raise StoredError(f"{folder} contains no gaze points: omit --gaze {read.gaze[0]}")
    if key == "archives":
        return list_archives(folder, fit)
    if not (folder / LABELS).is_file():
        raise StoredError(f"{folder} has no {LABELS}, a list of image,map")
    return list_folder(folder, fit)


def _told(folder: Path, problems: Sequence[str]) -> str:
    lines = [f"  {problem}" for problem in problems[:_TOLD]]
    if len(problems) > _TOLD:
        lines.append(f"  … and {len(problems) - _TOLD} more: dcls-check {folder}")
    return "\n".join([f"{folder}:", *lines])


def _repeated(parts: Sequence[Part]) -> str:
    names = [part.name for part in parts]
    repeated = sorted({name for name in names if names.count(name) > 1})
    return f"more than one part has the name {', '.join(repeated)}; rename them" * bool(repeated)
