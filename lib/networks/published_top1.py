"""ImageNet top-1 accuracies that timm publishes for its weights.

The table `timm_top1.csv` is beside this file; data/README.md gives its origin.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

_OWN = Path(__file__).with_name("timm_top1.csv")
# The columns' names in this project, and in timm's own file.
_COLUMNS = {"name": "model", "image_size": "img_size", "top1": "top1"}


def published_top1(
    name: str, image_size: int | None = None, table: str | Path | None = None
) -> float | None:
    """Return top-1 accuracy in percent (0-100) on ImageNet's 50,000 validation images, or None.

    name       : timm's name of the weights, with the tag: "resnet50.a1_in1k"
    image_size : side in pixels of the images that the model saw; None for the largest in the
                 table, which is timm's own evaluation size. Accuracy changes with this size, often
                 by a percentage point or more.
    table      : a CSV to read instead of the one that comes with the project: a newer
                 results-imagenet.csv of timm, or the columns name,image_size,top1

    Returns None if the accuracy is unknown. Raises FileNotFoundError, and ValueError, which names
    the line that cannot be read.
    """
    sizes = _read(_OWN if table is None else Path(table).expanduser().resolve()).get(name)
    if sizes is None:
        return None
    return sizes.get(max(sizes) if image_size is None else image_size)


def evaluated_at(name: str) -> list[int]:
    """Return the image sides, in pixels, for which the table has an accuracy, largest first."""
    return sorted(_read(_OWN).get(name, ()), reverse=True)


@cache
def _read(path: Path) -> dict[str, dict[int, float]]:
    """Return {name: {image size: top-1 in percent}}."""
    if not path.is_file():
        raise FileNotFoundError(f"no table of accuracies at {path}: name a CSV file that exists")
    found: dict[str, dict[int, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            columns = [_column(rows.fieldnames or (), *pair, path) for pair in _COLUMNS.items()]
            for row in rows:
                _add(found, [row[column] or "" for column in columns], f"{path}:{rows.line_num}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from None
    if not found:
        raise ValueError(f"{path} lists no models: a row needs {','.join(_COLUMNS)}")
    return found


def _column(there, ours: str, timms: str, path: Path) -> str:
    for column in (ours, timms):
        if column in there:
            return column
    has = ",".join(there) or "nothing"
    raise ValueError(f"{path} needs the columns {','.join(_COLUMNS)}; has {has}")


def _add(found: dict[str, dict[int, float]], values: list[str], line: str) -> None:
    name, size, top1 = (value.strip() for value in values)
    try:
        side, percent = int(size), float(top1)
    except ValueError:
        side, percent = 0, float("nan")
    if not (name and side > 0 and 0 <= percent <= 100):
        raise ValueError(
            f"{line}: {','.join(values)!r} is not a name, a size in pixels and a top-1 in percent, "
            "0-100: correct the line"
        )
    if side in found.setdefault(name, {}):
        raise ValueError(f"{line}: {name} at {side} pixels appears twice: remove one line")
    found[name][side] = percent
