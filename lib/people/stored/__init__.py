"""Where pictures, human maps and labels lie: ClickMe's shards, `.npz` files, a plain folder,
a data set of gaze as its authors distribute it.

A `Part` is what is scored and kept at once: a shard, or so many files of a folder.
Nothing here needs torch.

May import: people, base.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.base.tables import unknown_name
from lib.people.stored.fit import CROP, FITS, Fit
from lib.people.stored.folders import LABELS, list_archives, list_folder
from lib.people.stored.gaze import gaze_file, list_data_set, list_gaze, viewing_of
from lib.people.stored.layouts import LAYOUTS, Layout, Note
from lib.people.stored.part import Part, StoredError, StoredPicture
from lib.people.stored.shards import Shard, find_shards
from lib.people.stored.viewing import read_options

__all__ = [
    "Part", "Read", "StoredError", "StoredPicture", "gaze_facts", "has_gaze", "layout_of",
    "list_parts", "open_parts", "picture_files",
]  # fmt: skip

_TOLD = 10  # problems in one message; `lib.people.stored.check` tells all


# The layouts that are no data set's own.
PLAIN = ("shards", "archives", "maps", "gaze")


@dataclass(frozen=True)
class Read:
    """How folders are read.

    layout : a key of LAYOUTS, or one of PLAIN; "" is found out
    fit    : how pictures become squares, one of FITS
    gaze   : "KEY=VALUE" texts, fields of `lib.people.stored.viewing.Viewing`
    Raises ValueError (UnknownName for a name) saying what is wrong.
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


def layout_of(folder: Path, read: Read = Read()) -> Layout | None:
    """The data set whose layout a folder has, None for a plain folder.

    Raises StoredError where it might be several.
    """
    if read.layout:
        return LAYOUTS.get(read.layout, None)
    if not folder.is_dir() or (folder / LABELS).is_file() or gaze_file(folder):
        return None
    found = [layout for layout in LAYOUTS.values() if layout.holds(folder)]
    if len(found) > 1:
        names = ", ".join(layout.key for layout in found)
        raise StoredError(f"{folder} may be {names}: say which by --layout")
    return found[0] if found else None


def gaze_facts(folder: Path, read: Read = Read()) -> dict[str, object]:
    """How the gaze of a folder becomes maps, as plain values; {} for a folder without gaze points.

    Raises StoredError.
    """
    if not has_gaze(folder, read):
        return {}
    layout = layout_of(folder, read)
    named = {"data_set": layout.label, "source": layout.source} if layout else {}
    viewing = viewing_of(folder, layout, read.options)
    return named | viewing.facts | {"in_words": f"{viewing.words}; {Fit(read.fit).words}"}


def has_gaze(folder: Path, read: Read = Read()) -> bool:
    """Whether a folder holds gaze points, not maps alone. Raises StoredError."""
    if read.layout in PLAIN:
        return read.layout == "gaze"
    return folder.is_dir() and bool(layout_of(folder, read) or gaze_file(folder))


def picture_files(place: Path) -> list[Path]:
    """The shards in a folder in their order, or the folder itself, which is read as a whole."""
    return find_shards(place) or [place]


def open_parts(
    places: Iterable[Path],
    tolerant: bool = False,
    read: Read = Read(),
) -> list[Part]:
    """The parts of some shards or folders, in this order, with what each holds.

    places   : a file is a shard; a folder holds shards, or `labels.csv` with pictures and
               maps, or gaze points, or `.npz` files, or is a data set's
    tolerant : a part that cannot be read has a `damage` and holds what lies before it
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
    """The parts of a shard or folder as far as they can be read, and every problem in listing them.

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
    """The shards to read there, none where the place is a folder to be listed.

    Raises StoredError for a way of reading that shards do not have.
    """
    shards = [place] if not place.is_dir() else find_shards(place)
    if read.layout not in ("", "shards"):
        if not place.is_dir():
            raise StoredError(f"{place} is no folder of the layout {read.layout}")
        return []
    if read.layout == "shards" and not shards:
        raise StoredError(f"{place} holds no shards (.tfrecords)")
    if shards and (read.gaze or read.fit != CROP):
        raise StoredError(f"{place} holds squares with maps of clicks: leave --fit and --gaze out")
    return shards


def _listed(folder: Path, read: Read) -> tuple[list[Part], list[str]]:
    fit = Fit(read.fit)
    if layout := layout_of(folder, read):
        return list_data_set(folder, layout, read.options, fit)
    if read.layout == "gaze" or (not read.layout and gaze_file(folder)):
        return list_gaze(folder, read.options, fit)
    if read.gaze:
        raise StoredError(f"{folder} holds no gaze points: leave --gaze {read.gaze[0]} out")
    if read.layout == "maps" and not (folder / LABELS).is_file():
        raise StoredError(f"{folder} has no {LABELS}, a list of picture,map")
    if read.layout == "maps" or (not read.layout and (folder / LABELS).is_file()):
        return list_folder(folder, fit)
    return list_archives(folder, fit)


def _told(folder: Path, problems: Sequence[str]) -> str:
    lines = [f"  {problem}" for problem in problems[:_TOLD]]
    if len(problems) > _TOLD:
        lines.append(f"  … and {len(problems) - _TOLD} more: dcls-check {folder}")
    return "\n".join([f"{folder}:", *lines])


def _repeated(parts: Sequence[Part]) -> str:
    names = [part.name for part in parts]
    repeated = sorted({name for name in names if names.count(name) > 1})
    return f"more than one part has the name {', '.join(repeated)}; rename them" * bool(repeated)
