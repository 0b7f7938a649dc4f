"""What mkdocs is told beside mkdocs.yml: generated pages, links out of docs/, diagrams."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file is loaded by its path

from building.diagram import drawn
from building.faces import ROOMS
from building.layout import (
    ELSEWHERE,
    IMAGES,
    ROOT,
    linked,
    lists_apart,
    place_in_site,
    relinked,
    source_of,
)  # fmt: skip
from building.notebooks import page_of
from building.reference import (
    commands_page,
    commands_told,
    doors_page,
    room_page,
    run_all_page,
    statuses_page,
)  # fmt: skip

_OPENING = re.compile(r"^<!-- README.*-->$", re.M)
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.M | re.S)


def on_files(files, config):
    """Add the pages that no file of docs/ holds, and the images that pages show."""
    made: dict[str, str | bytes] = {}
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        page = page_of(notebook.stem, ROOT / "data" / "output")
        made[f"tutorials/{notebook.stem}.md"] = page.text
        made |= {f"files/notebooks/{name}": data for name, data in page.images.items()}
    try:
        told = commands_told()
    except RuntimeError as error:
        raise PluginError(str(error)) from None
    made |= {f"reference/{room}.md": room_page(room) for room in ROOMS}
    made["reference/doors.md"] = doors_page()
    made["reference/commands.md"] = commands_page(told["commands"])
    made["reference/run_all.md"] = run_all_page(told["commands"])
    made["reference/exit-statuses.md"] = statuses_page(told["statuses"])
    pages = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    for path, place in ELSEWHERE.items():
        pages[path] = (ROOT / path).read_text(encoding="utf-8")
        if place != "index.md":  # which begins with README, and goes on
            made[place] = pages[path]
    for source, text in pages.items():
        for path in linked(text, source):
            place = place_in_site(path)
            if path.endswith(IMAGES) and not path.startswith("docs/") and (ROOT / path).is_file():
                made[place] = (ROOT / path).read_bytes()
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))
    return files


def _beginning() -> str:
    """README up to its second heading: the question, the image, the commands."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first, second, *_ = re.split(r"^(?=## )", text, flags=re.M)
    return relinked(first + second, "README.md", "index.md")


def on_page_markdown(markdown, page, config, files):
    """Links as they are in the site, lists and diagrams as Python's Markdown wants them."""
    place = page.file.src_uri
    # Of the search's answers explanations come first: a name of the reference has fewer words.
    made = place.startswith(("reference/", "tutorials/"))
    page.meta.setdefault("search", {"boost": 0.5 if made else 2})
    if place == "index.md":
        markdown = _OPENING.sub(lambda _: _beginning(), markdown, count=1)
    if not place.startswith("reference/") and not re.search(r"^## ", markdown, re.M):
        # There is no table of contents, and code needs its room.
        page.meta.setdefault("hide", ["toc"])
    text = _MERMAID.sub(lambda found: drawn(found[1], page.title), markdown)
    return lists_apart(relinked(text, source_of(place), place))
