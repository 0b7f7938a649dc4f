"""The gallery shows every figure as its captions have it, and stays small."""

from __future__ import annotations

import re

from lib.base.paths import ROOT
from lib.demo.gallery import IMAGES, PAGE, gallery_page
from lib.figures.captions import CAPTIONS

NOT_OF_THE_DEMO = {"along", "accuracy"}  # no curve is compared, no published accuracy known


def test_the_page_is_what_its_command_writes():
    assert PAGE.read_text(encoding="utf-8") == gallery_page(), "run python -m lib.demo.gallery"


def test_every_figure_is_shown_with_words_for_those_who_cannot_see_it():
    page = PAGE.read_text(encoding="utf-8")
    shown = dict(re.findall(r"!\[([^\]]+)\]\(gallery/(\w+)\.webp\)", page))
    assert {*shown.values()} == {*CAPTIONS} - NOT_OF_THE_DEMO
    assert {path.stem for path in IMAGES.iterdir()} == {*shown.values()}
    for key in NOT_OF_THE_DEMO:
        assert f"`{key}`" in page.split("## Not drawn by the demo")[1]


def test_the_images_together_are_small():
    assert sum(path.stat().st_size for path in IMAGES.iterdir()) < 1_500_000


def test_each_figure_is_made_by_the_notebook_that_its_row_names():
    for row in CAPTIONS.values():
        (path,) = (ROOT / "notebooks").glob(f"{row.notebook}_*.ipynb")
        assert f'\\"{row.key}\\"' in path.read_text(encoding="utf-8"), row.key
