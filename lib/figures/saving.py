"""Figures as files, with their caption and where they come from beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.transforms import Bbox

from ..base.files import write_atomically
from ..study.outputs import provenance, staged, write_provenance, write_result
from ..study.study import Study
from .captions import caption_of

# With an engine, even one that does nothing, matplotlib draws a figure twice for a file.
_NO_LAYOUT = {"figure.autolayout": False, "figure.constrained_layout.use": False}
# What would tell the time, of each kind of file: without it a run gives the same bytes again.
_TIMELESS = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def draw_files(
    fig: Figure,
    folder: Path,
    name: str,
    write: Callable[[Path], AbstractContextManager[Path]] = write_atomically,
    formats: Sequence[str] = tuple(_TIMELESS),
) -> None:
    """Write a figure as NAME.png, NAME.pdf and NAME.svg, each whole or not at all.

    write   : opens a place for writing
    formats : of "png", "pdf" and "svg"
    """
    with _placed(fig), plt.rc_context({"svg.hashsalt": name}):
        window = _window(fig)
        for suffix in formats:
            with write(folder / f"{name}.{suffix}") as partial:
                fig.savefig(partial, format=suffix, metadata=_TIMELESS[suffix], bbox_inches=window)


@contextmanager
def _placed(fig: Figure) -> Iterator[None]:
    """Meanwhile all of a figure has its place, which takes long to find for each file again.

    The place is found at the files' resolution; at another one letters have other widths.
    """
    layout, shown_at = fig.get_layout_engine(), fig.get_dpi()
    if (saved_at := plt.rcParams["savefig.dpi"]) != "figure":
        fig.set_dpi(saved_at)
    try:
        if layout is not None and not isinstance(layout, PlaceHolderLayoutEngine):
            fig.draw_without_rendering()
        # matplotlib gives a figure the layout of the settings after each file.
        with plt.rc_context(_NO_LAYOUT):
            fig.set_layout_engine(None)
            yield
    finally:
        with plt.rc_context(_NO_LAYOUT):
            fig.set_layout_engine(layout)
        fig.set_dpi(shown_at)


def _window(fig: Figure) -> Bbox | None:
    """What of a figure goes into its files, in inches: asked for once, as each answer takes a
    drawing; None where a style wants all of its sheet."""
    if plt.rcParams["savefig.bbox"] != "tight":
        return None
    return fig.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"])


def save_figure(
    fig: Figure,
    name: str,
    study: Study,
    drawn_from: Path | None = None,
    caption: str = "",
    of: Mapping[str, object] | None = None,
) -> Path:
    """Write a figure as PNG, PDF and SVG, its provenance as JSON, its caption as text.

    The profile's caveat, and how the sample of a short run is smaller, are printed at the
    figure's foot, so they travel with it. A short run (`Choices.brief`) writes the PNG alone:
    the other formats take more than half of the time.

    drawn_from : the saved table that the figure shows, if it shows one
    caption    : for a figure that `lib.figures.captions` has none for
    of         : as for `provenance`; its "sample", if it has one, is told at the foot
    Returns where the PNG is.
    """
    profile, folder = study.choices.profile, study.places.figures
    sample = str((of or {}).get("sample", ""))
    foot = "\n".join(filter(None, [profile.caveat, sample]))
    with _placed(fig):
        if foot:
            colour = "#a00000" if profile.warns or sample else "0.3"
            lowest = min(0.0, fig.get_tightbbox().y0 / fig.get_figheight())
            fig.text(0.5, lowest - 0.02, foot, ha="center", va="top",
                     fontsize="small", color=colour)  # fmt: skip
        formats = ("png",) if study.choices.brief else tuple(_TIMELESS)
        draw_files(fig, folder, name, write_result, formats)
    write_provenance(folder / f"{name}.json", provenance(study, drawn_from, of))
    if not caption and (known := caption_of(name, study.choices)):
        caption = ". ".join(known)
    people = f"Human maps: {study.reading}." if study.reading else ""
    told = [caption, f"Data: {profile.label}.", people, profile.caveat, sample]
    words = " ".join(filter(None, told))
    with write_result(folder / f"{name}.txt") as partial:
        partial.write_text(f"{words}\n", encoding="utf-8")
    return staged(folder / f"{name}.png")
