"""Ten real photographs for Figures 5 and 6, with their attributions.

They come with packages that the study needs anyway (scikit-image, scikit-learn,
matplotlib), so nothing is downloaded. A user's own folder can replace them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..base.geometry import DELIVERED_SIZE
from .images import read_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
ATTRIBUTIONS = "attributions.csv"


@dataclass(frozen=True)
class Photograph:
    """A photograph. pixels : (224, 224, 3) uint8, a centred square of the original"""

    name: str
    pixels: np.ndarray
    attribution: str


def _in(package: str, folder: str) -> Callable[[str], Callable[[], Path]]:
    return lambda name: lambda: Path(str(resources.files(package) / folder / name))


_scikit_image, _scikit_learn = _in("skimage", "data"), _in("sklearn", "datasets/images")
_matplotlib = _in("matplotlib", "mpl-data/sample_data")

# The attributions are those in the packages' own notes.
_SHIPPED: dict[str, tuple[Callable[[], Path], str]] = {
    "cat": (_scikit_image("chelsea.png"), "Stefan van der Walt, CC0 (scikit-image)"),
    "coffee": (_scikit_image("coffee.png"), "Rachel Michetti, CC0 (scikit-image)"),
    "rocket": (_scikit_image("rocket.jpg"), "SpaceX, public domain (scikit-image)"),
    "astronaut": (_scikit_image("astronaut.png"), "NASA, public domain (scikit-image)"),
    "photographer": (_scikit_image("camera.png"), "Lav Varshney, CC0 (scikit-image)"),
    "coins": (_scikit_image("coins.png"), "Brooklyn Museum, no known restrictions (scikit-image)"),
    "galaxies": (_scikit_image("hubble_deep_field.jpg"), "NASA/ESA, public domain (scikit-image)"),
    "palace": (_scikit_learn("china.jpg"), "danielbuechele, CC BY 2.0 (scikit-learn)"),
    "flower": (_scikit_learn("flower.jpg"), "vultilion, CC BY 2.0 (scikit-learn)"),
    "admiral": (_matplotlib("grace_hopper.jpg"), "US Navy, public domain (matplotlib)"),
}  # fmt: skip


def load_square(source: Path | BinaryIO, name: str = "") -> np.ndarray:
    """Return an image file as (224, 224, 3) uint8: upright, in colour, the centred square.

    source, name : as for `lib.people.images.read_image`

    Raises ValueError, which names the file, if it is not a readable image.
    """
    colour = read_image(source, name)
    return np.array(
        ImageOps.fit(colour, (DELIVERED_SIZE, DELIVERED_SIZE), Image.Resampling.BICUBIC)
    )


def shipped_photographs() -> list[Photograph]:
    """Return the ten photographs that the installed packages contain."""
    return [Photograph(n, load_square(path()), text) for n, (path, text) in _SHIPPED.items()]


def folder_photographs(folder: Path) -> list[Photograph]:
    """Return a user's photographs, sorted by file name, with their attributions.

    `attributions.csv` in the folder has the columns `file,attribution`; an image without a row
    is shown with "no attribution given". Raises ValueError, which names an unreadable file or
    a row without an image.
    """
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"{folder} contains no images ({', '.join(SUFFIXES)})")
    credit: dict[str, str] = {}
    listing = folder / ATTRIBUTIONS
    if listing.is_file():
        with listing.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"file", "attribution"} <= set(rows.fieldnames or ()):
                raise ValueError(f"{listing} needs the columns file,attribution")
            try:
                lines = list(rows)
            except UnicodeDecodeError:
                raise ValueError(f"{listing} is not UTF-8 text") from None
            for number, row in enumerate(lines, 2):
                if None in row or None in row.values():
                    raise ValueError(
                        f"{listing}, line {number}: it needs a file and an attribution; "
                        'put "quotes" around text with commas'
                    )
            credit = {row["file"]: row["attribution"] for row in lines}
        strangers = sorted(set(credit) - {p.name for p in files})
        if strangers:
            raise ValueError(f"{listing} names images that do not exist: {', '.join(strangers)}")
    return [
        Photograph(p.stem, load_square(p), credit.get(p.name, "no attribution given"))
        for p in files
    ]


def photographs(folder: Path, count: int = 10) -> list[Photograph]:
    """Return at most `count` photographs: the user's, or the shipped ones if they have none."""
    found = folder_photographs(folder) if folder.is_dir() else shipped_photographs()
    return found[:count]
