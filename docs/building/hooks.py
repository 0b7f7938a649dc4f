"""What mkdocs is told beside mkdocs.yml: generated pages, links out of docs/, diagrams."""

from __future__ import annotations

import re
from pathlib import Path

from diagram import drawn
from faces import ROOMS
from layout import IMAGES, ROOT, linked, lists_apart, place_in_site, relinked, source_of
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from notebooks import page_of
from reference import (
    commands_page, commands_told, doors_page, room_page, run_all_page, statuses_page,
)  # fmt: skip

_GALLERY = ROOT / "docs" / "gallery.md"
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.M | re.S)


def on_config(config):
    """Leave out pages that this checkout has not: the gallery is drawn from a run."""
    config.nav = [
        entry for entry in config.nav if "gallery.md" not in entry.values() or _GALLERY.is_file()
    ]
    return config


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
    made["reference/commands.md"] = commands_page(told["helps"])
    made["reference/run_all.md"] = run_all_page(told["helps"])
    made["reference/exit-statuses.md"] = statuses_page(told["statuses"])
    pages = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    for path in _pages_elsewhere():
        made[place_in_site(path)] = pages[path] = (ROOT / path).read_text(encoding="utf-8")
    for source, text in pages.items():
        for path in linked(text, source):
            place = place_in_site(path)
            if path.endswith(IMAGES) and not path.startswith("docs/") and (ROOT / path).is_file():
                made[place] = (ROOT / path).read_bytes()
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))
    return files


def _pages_elsewhere() -> list[str]:
    return [path for path in ("data/README.md", "data/bench/bench.md") if Path(ROOT, path).is_file()]


def on_page_markdown(markdown, page, config, files):
    """Links as they are in the site, lists and diagrams as Python's Markdown wants them."""
    place = page.file.src_uri
    text = _MERMAID.sub(lambda found: drawn(found[1], page.title), markdown)
    return lists_apart(relinked(text, source_of(place), place))
