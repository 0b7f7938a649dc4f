"""The site's pages, read as text: every link leads somewhere and every page can be reached.

`make docs` builds the site and refuses the same faults; this needs none of its tools.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from lib.base.paths import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "data" / "README.md", *NOTEBOOKS]
ELSEWHERE = {"data.md": ROOT / "data" / "README.md", "benchmark.md": ROOT / "data/bench/bench.md"}
MADE = {f"reference/{name}.md" for name in ("doors", "commands", "run_all", "exit-statuses")}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    """Its prose: without code, and of a notebook the cells of Markdown."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.sub(r"`[^`\n]*`", "`code`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def links_of(path: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text_of(path))


def anchors_of(path: Path) -> set[str]:
    """What a link's # may name, if both readers of the page agree: the site and a code host."""
    found = []
    for heading in re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S), re.M
    ):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading).strip().lower()
        plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode()
        site = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip())
        host = re.sub(r"[^\w\s-]", "", words).replace(" ", "-")
        found.append(site if site == host else None)
    return {one for one in found if one and found.count(one) == 1}


def nav() -> list[str]:
    """The files that the navigation names."""
    entries, files = [yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]], []
    while entries:
        entry = entries.pop()
        if isinstance(entry, str):
            files.append(entry)
        else:
            entries += entry.values() if isinstance(entry, dict) else entry
    return files


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_every_relative_link_leads_to_a_file_and_a_heading(path):
    for link in links_of(path):
        target, _, anchor = link.partition("#")
        if urlsplit(link).scheme:
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.is_relative_to(ROOT), f"{named(path)} -> {link}: outside the project"
        if path == DOCS / "reference" / "index.md" and f"reference/{target}" in MADE | made_rooms():
            continue
        assert file.is_file(), f"{named(path)} -> {link}: there is no such file"
        if anchor:
            assert anchor in anchors_of(file), f"{named(path)} -> {link}: no such heading"


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_every_address_is_well_formed(path):
    for link in [*links_of(path), *re.findall(r"<(https?:[^>]*)>", text_of(path))]:
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in ("https", "http", "mailto"), link
            assert parts.scheme == "mailto" or re.fullmatch(
                r"(\w[\w-]*\.)+[a-z]{2,}", parts.netloc
            ), link
            assert not link.endswith((".", ",", ";")), link


def test_every_page_is_in_the_navigation_once_and_every_entry_has_its_page():
    files = nav()
    assert len(files) == len(set(files))
    tutorials = {f"tutorials/{path.stem}.md" for path in NOTEBOOKS}
    written = {path.relative_to(DOCS).as_posix() for path in PAGES}
    known = written | tutorials | made_rooms() | MADE | set(ELSEWHERE)
    assert set(files) == known
    assert all(path.is_file() for path in ELSEWHERE.values())


def test_every_notebook_has_its_line_among_the_tutorials():
    linked = {Path(link).name for link in links_of(DOCS / "tutorials" / "index.md")}
    assert linked == {path.name for path in NOTEBOOKS}


def made_rooms() -> set[str]:
    """The pages of rooms, which the build makes."""
    return {f"reference/{path.parent.name}.md" for path in faces() if path.parents[1].name == "lib"}


def faces() -> list[Path]:
    """The rooms with public names, rooms within rooms included."""
    return [path for path in sorted((ROOT / "lib").glob("*/**/__init__.py"))
            if "__all__" in path.read_text() and path.parent.name != "stored"]  # fmt: skip


def test_the_reference_has_every_room_and_every_door():
    from building.faces import DOORS, INNER, ROOMS

    rooms = {path.parent.relative_to(ROOT / "lib").as_posix().replace("/", ".") for path in faces()}
    assert {*ROOMS, *INNER} == rooms | {"people.stored"}
    doors = {path.stem for path in (ROOT / "lib").glob("*.py") if path.stem != "__init__"}
    commands = {
        path.stem for path in (ROOT / "lib").glob("*.py")
        if ast.get_docstring(ast.parse(path.read_text())).startswith("Door to the command")
    }  # fmt: skip
    assert {door for door in DOORS if not door.startswith("stored")} == doors - commands


def how_to() -> list[Path]:
    return [path for path in sorted((DOCS / "how-to").glob("*.md")) if path.stem != "index"]


@pytest.mark.parametrize("path", how_to(), ids=named)
def test_a_page_by_question_is_short_has_a_command_and_links_on(path):
    text = path.read_text()
    assert len(text.split()) <= 200
    assert "```" in text
    assert text.rstrip().splitlines()[-1].startswith("Read on: [")
    assert f"({path.name})" in (DOCS / "how-to" / "index.md").read_text()


def test_nothing_of_the_site_is_fetched_from_elsewhere():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert config["theme"]["font"] is False
    assert {"search", "offline"} <= {one for one in config["plugins"] if isinstance(one, str)}
    for asset in [*config["extra_css"], *config["extra"]["polyfills"]]:
        assert "://" not in (DOCS / asset).read_text().replace("http://www.w3.org", "")
