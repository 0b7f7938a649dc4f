"""The documentation's gallery: every figure in a small version, with its caption.

After `make demo`, `python -m lib.demo.gallery` writes `docs/gallery.md` and its images again from
the figures of the two runs. The numbers in them are those of the embedded examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from ..base.files import write_atomically
from ..base.paths import ROOT
from ..figures.captions import CAPTIONS, Caption, alt_text_of, caption_of
from ..study.study import Study

PAGE, IMAGES = ROOT / "docs" / "gallery.md", ROOT / "docs" / "gallery"
_WIDEST = 760  # pixels
_QUALITY = 60  # of WebP, in 0-100: text stays legible, all figures together stay below 1.5 MB
_BEFORE = """# Gallery

Every figure that the notebooks make, as the embedded examples draw it. Each run writes its own as
PNG, PDF and SVG to `figures/`; [figures.md](figures.md) says how to draw them in your own style.

**The numbers are the demo's.** The figures of notebook 00 show 48 photographs, the gaze of 15
people and one published network. All others show generated images, simulated people and miniature
networks: they show what the figures look like and say nothing about DCLS.

`python -m lib.demo.gallery` makes this page again, after `make demo`.
"""


def make_gallery() -> list[str]:
    """Write the page, and the images of the figures that the runs have made. Return the keys of
    the figures that neither a run nor an earlier gallery has."""
    studies = _studies()
    for key, row in CAPTIONS.items():
        drawn = studies[_profile(row)].places.figures / f"{key}.png"
        if drawn.exists():
            _make_small(drawn, IMAGES / f"{key}.webp")
    with write_atomically(PAGE) as partial:
        partial.write_text(gallery_page(studies), encoding="utf-8")
    return [key for key in CAPTIONS if not (IMAGES / f"{key}.webp").exists()]


def gallery_page(studies: Mapping[str, Study] | None = None) -> str:
    """Return the page in Markdown, with the images in its folder.

    studies : {profile: its study}; None means the two studies of the embedded examples
    """
    studies = studies or _studies()
    there = [row for key, row in CAPTIONS.items() if (IMAGES / f"{key}.webp").exists()]
    parts = [_BEFORE]
    for notebook in sorted({row.notebook for row in there}):
        (path,) = (ROOT / "notebooks").glob(f"{notebook}_*.ipynb")
        parts.append(f"## [{path.stem}](../notebooks/{path.name})\n")
        for row in there:
            if row.notebook == notebook:
                parts.extend(_entry(row, studies[_profile(row)]))
    missing = [f"`{row.key}` ({row.title.split(':')[0]})" for row in CAPTIONS.values()
               if row not in there]  # fmt: skip
    if missing:
        parts.append("## Not drawn by the demo\n")
        parts.append(f"{', '.join(missing)}: the demo has no data for them.\n")
    return "\n".join(parts)


def _entry(row: Caption, study: Study) -> Iterator[str]:
    """The lines of one figure: its title, its image, its caption."""
    title, text = caption_of(row.key, study.choices)
    yield f"### {title}\n"
    yield f"![{alt_text_of(row.key, study.choices)}](gallery/{row.key}.webp)\n"
    yield f"{text} (`{row.key}`)\n"


def _profile(row: Caption) -> str:
    """The profile whose run draws a figure."""
    return "gaze" if row.notebook == "00" else "demo"


def _studies() -> dict[str, Study]:
    return {profile: Study.from_profile(profile) for profile in ("gaze", "demo")}


def _make_small(drawn: Path, small: Path) -> None:
    """Write a figure as a small WebP."""
    with Image.open(drawn) as image:
        wide = min(_WIDEST, image.width)
        whole = image.convert("RGB").resize(
            (wide, round(image.height * wide / image.width)), Image.Resampling.LANCZOS
        )
    small.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(small) as partial:
        whole.save(partial, format="WEBP", quality=_QUALITY, method=6)


if __name__ == "__main__":
    for key in make_gallery():
        print(f"{key}: no run has drawn this figure: run `make demo` first")
