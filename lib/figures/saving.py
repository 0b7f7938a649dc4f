"""Figures as files, with their caption and where they come from beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ..base.files import write_atomically
from ..study.outputs import provenance, staged, write_provenance, write_result
from ..study.study import Study
from .captions import caption_of

# What would tell the time, of each kind of file: without it a run gives the same bytes again.
_TIMELESS = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def draw_files(
    fig: Figure,
    folder: Path,
    name: str,
    write: Callable[[Path], AbstractContextManager[Path]] = write_atomically,
) -> list[Path]:
    """Write a figure as NAME.png, NAME.pdf and NAME.svg, each whole or not at all; returns where.

    write : opens a place for writing
    """
    places = [folder / f"{name}.{suffix}" for suffix in _TIMELESS]
    fig.draw_without_rendering()
    layout = fig.get_layout_engine()
    if layout:  # all has its place, which takes long to find for each file again
        fig.set_layout_engine("none")
    for path, (suffix, timeless) in zip(places, _TIMELESS.items(), strict=True):
        with plt.rc_context({"svg.hashsalt": name}), write(path) as partial:
            fig.savefig(partial, format=suffix, metadata=timeless)
    if layout:
        fig.set_layout_engine(layout)
    return places


def save_figure(
    fig: Figure,
    name: str,
    study: Study,
    drawn_from: Path | None = None,
    caption: str = "",
    of: Mapping[str, object] | None = None,
) -> Path:
    """Write a figure as PNG, PDF and SVG, its provenance as JSON, its caption as text.

    The profile's caveat is printed at the figure's foot, so it travels with it.

    drawn_from : the saved table that the figure shows, if it shows one
    caption    : for a figure that `lib.figures.captions` has none for
    of         : as for `provenance`
    Returns where the PNG is.
    """
    profile, folder = study.choices.profile, study.places.figures
    fig.draw_without_rendering()
    if profile.caveat:
        lowest = min(0.0, fig.get_tightbbox().y0 / fig.get_figheight())
        fig.text(0.5, lowest - 0.02, profile.caveat, ha="center", va="top",
                 fontsize="small", color="#a00000")  # fmt: skip
    draw_files(fig, folder, name, write_result)
    write_provenance(folder / f"{name}.json", provenance(study, drawn_from, of))
    if not caption and (known := caption_of(name, study.choices)):
        caption = ". ".join(known)
    people = f"Human maps: {study.reading}." if study.reading else ""
    words = " ".join(filter(None, [caption, f"Data: {profile.label}.", people, profile.caveat]))
    with write_result(folder / f"{name}.txt") as partial:
        partial.write_text(f"{words}\n", encoding="utf-8")
    return staged(folder / f"{name}.png")
