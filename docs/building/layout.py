"""Where a file of the project stands in the site, and Markdown's small differences."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]

# Pages of the site that are files outside docs/.
ELSEWHERE = {
    "README.md": "index.md",
    "data/README.md": "data.md",
    "data/bench/bench.md": "benchmark.md",
}
IMAGES = (".png", ".jpg", ".jpeg", ".svg", ".webp")

_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"^ *(```+|~~~+)")
_ITEM = re.compile(r"^([-*] |\d+\. )")


def place_in_site(path: str) -> str | None:
    """The site's file for a path from the project's folder on; None where it has none."""
    if path in ELSEWHERE:
        return ELSEWHERE[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    file = PurePosixPath(path)
    if path.startswith("notebooks/") and file.suffix == ".ipynb":
        return f"tutorials/{file.stem}.md"
    if file.suffix in IMAGES:
        return f"files/{path}"
    return None


def source_of(place: str) -> str:
    """The path from the project's folder on of a page of the site."""
    for path, other in ELSEWHERE.items():
        if other == place and place != "index.md":
            return path
    page = PurePosixPath(place)
    notebook = f"notebooks/{page.stem}.ipynb"
    if place.startswith("tutorials/") and (ROOT / notebook).is_file():
        return notebook
    return f"docs/{place}"


def linked(text: str, source: str) -> list[str]:
    """Paths, from the project's folder on, that a page's relative links lead to."""
    folder = posixpath.dirname(source)
    return [
        posixpath.normpath(posixpath.join(folder, target))
        for _, target, _ in _LINK.findall(text)
        if not re.match(r"[a-z]+:", target)
    ]


def relinked(text: str, source: str, place: str) -> str:
    """The same Markdown with links as they are in the site.

    source : the page's path from the project's folder on, which its links start from
    place  : the page's own path in the site
    Links to what the site does not hold stay as they are, and the build refuses them.
    """
    folder = posixpath.dirname(source)

    def moved(found: re.Match) -> str:
        before, target, after = found.groups()
        if re.match(r"[a-z]+:", target):
            return found.group()
        there = place_in_site(posixpath.normpath(posixpath.join(folder, target)))
        if there is None:
            return found.group()
        return before + posixpath.relpath(there, posixpath.dirname(place) or ".") + after

    return outside_code(text, lambda line: _LINK.sub(moved, line))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Every line that is in no fenced block, changed."""
    lines, fence = [], ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if found and not fence:
            fence = found[1]
        elif found and found[1].startswith(fence):
            fence = ""
        elif not fence:
            line = change(line)
        lines.append(line)
    return "\n".join(lines)


def lists_apart(text: str) -> str:
    """An empty line before every list: without it Python's Markdown sees a paragraph."""
    before = ""

    def change(line: str) -> str:
        nonlocal before
        opens = _ITEM.match(line) and before.strip() and not re.match(r"([-*] |\d+\. | )", before)
        before = line
        return f"\n{line}" if opens else line

    return outside_code(text, change)
