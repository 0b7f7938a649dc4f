"""Make `data/gaze/` again from the originals: 48 photographs as squares, and their gaze.

    python -m lib.demo.real_people FOLDER

FOLDER holds OSIE as its authors distribute it (data/README.md), or its photographs with their
`fixations.csv`. The network's weights are not made here; their file stays in `data/gaze`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..base.files import write_atomically
from ..people.stored import Read, list_parts
from ..people.stored.fit import Fit
from ..people.stored.folders import read_listed_image
from ..people.stored.gaze import BLUR, Gazed
from ..people.stored.part import STORED_SIZE
from ..people.stored.shards import encode_jpeg
from ..people.stored.viewing import Looked
from ..study.profiles import GAZE

COUNT = 48
FROM = range(1001, 1121)  # the photographs from which the 48 are drawn
SEED = 20240803
QUALITY = 92  # of the JPEGs
PIXELS_PER_DEGREE = 24  # in the originals, 800 x 600


def names() -> list[str]:
    """The file names of the 48 photographs, drawn with a fixed seed."""
    drawn = np.random.default_rng(SEED).permutation(FROM)[:COUNT]
    return [f"{number}.jpg" for number in sorted(drawn.tolist())]


def make(originals: Path, folder: Path) -> None:
    """Write images, `gaze.csv` and `gaze.json`.

    originals : a folder with the 48 photographs and their fixations
    Raises ValueError if any of them is missing.
    """
    blur = (f"sigma_pixels={PIXELS_PER_DEGREE}",)
    parts, problems = list_parts(originals, Read(gaze=blur))
    found = {
        Path(each.name).name: each
        for part in parts
        if isinstance(part, Gazed)
        for each in part.looked
    }
    missing = [name for name in names() if name not in found]
    if missing:
        told = "".join(f"\n  {problem}" for problem in problems[:5])
        raise ValueError(f"{originals} lacks fixations of {', '.join(missing)}{told}")
    rows = io.StringIO(newline="")
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["file", "x", "y", "duration", "observer"])
    scales = []
    for name in names():
        image = read_listed_image(found[name].image)
        times, plus = Fit().place(*image.size)
        scales.append(times[0])
        with write_atomically(folder / "pictures" / name) as partial:
            partial.write_bytes(encode_jpeg(Fit().squared(image), QUALITY))
        writer.writerows(_rows(name, found[name], times, plus))
    with write_atomically(folder / "gaze.csv") as partial:
        partial.write_text(rows.getvalue(), encoding="utf-8")
    if len(set(scales)) > 1:
        raise ValueError(
            f"{originals}: the photographs differ in size, so no blur fits all of them: use the "
            "original ones"
        )
    said = {
        "sigma_degrees": 1,
        "pixels_per_degree": round(PIXELS_PER_DEGREE * scales[0], 6),
        "weigh": "counts",
        "outside": "keep",
    }
    with write_atomically(folder / BLUR) as partial:
        partial.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def _rows(name: str, looked: Looked, times: np.ndarray, plus: np.ndarray) -> list[tuple[str, ...]]:
    """Lines of `gaze.csv`, in pixels of the square; points may lie outside it."""
    at = looked.points[:, :2] * times + plus
    return [
        (f"pictures/{name}", f"{x:.2f}", f"{y:.2f}", f"{duration:g}", str(who))
        for (x, y), duration, who in zip(at, looked.points[:, 2], looked.who, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lib.demo.real_people",
        description=f"Make {COUNT} photographs of {STORED_SIZE} pixels a side, with their gaze.",
    )
    parser.add_argument("originals", type=Path)
    parser.add_argument("--out", type=Path, default=GAZE)
    options = parser.parse_args(arguments)
    make(options.originals, options.out)


if __name__ == "__main__":
    main()
