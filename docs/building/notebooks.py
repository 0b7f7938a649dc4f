"""A notebook as a page: its text, its code, and what a run's kernel answered."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from building.layout import ROOT

# Where `make demo` leaves executed notebooks; the first that has one is taken.
RUNS = ("gaze", "demo")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass
class Page:
    """text : Markdown, links as in the notebook; images : {file's name: its bytes}."""

    text: str
    images: dict[str, bytes] = field(default_factory=dict)


def page_of(name: str, output: Path) -> Page:
    """The tutorial of a notebook.

    name   : of the notebook, without its ending
    output : the folder of runs' results
    A run's notebook is shown with its results if its cells are still the notebook's; otherwise
    the notebook is shown without results, and the page says so.
    """
    plain = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    why = "This notebook has not been executed here."
    for run in RUNS:
        path = output / run / "notebooks" / f"{name}.ipynb"
        if not path.is_file():
            continue
        executed = json.loads(path.read_text(encoding="utf-8"))
        if _cells(executed) == _cells(plain):
            return _made(name, executed, _ran(run))
        why = f"The run `{run}` executed an earlier version of this notebook."
    note = (
        f'!!! note "Shown without results"\n    {why} '
        "`make demo`, then `make docs`, shows it with its results."
    )
    return _made(name, plain, note)


def _ran(run: str) -> str:
    told = {
        "gaze": "real photographs and real people (profile `gaze`)",
        "demo": "the embedded example (profile `demo`): generated images, simulated people and "
        "miniature models. Its numbers show that the software works and say nothing about DCLS",
    }[run]
    return f'!!! note "Executed by `make demo`"\n    The results are those of {told}.'


def _cells(notebook: dict) -> list[tuple[str, str]]:
    """Kind and text of every cell; papermill's own cell of parameters is passed over."""
    return [
        (cell["cell_type"], _joined(cell["source"]))
        for cell in notebook["cells"]
        if "injected-parameters" not in cell["metadata"].get("tags", [])
    ]


def _made(name: str, notebook: dict, note: str) -> Page:
    page, parts, before = Page(""), [], name
    opening: list[str] | None = []  # parameters and imports, folded: the reading begins after them
    for cell in notebook["cells"]:
        source = _joined(cell["source"]).rstrip()
        if not source or "injected-parameters" in cell["metadata"].get("tags", []):
            continue
        if cell["cell_type"] == "markdown":
            if opening:
                parts.append(_folded("Parameters and imports", opening))
                opening = None
            parts.append(source)
            before = source
            if len(parts) == 1:
                parts.append(note)
        elif cell["cell_type"] == "code":
            answers = [_answer(one, before, name, page) for one in cell.get("outputs", [])]
            if opening is not None and not any(answers):
                opening.append(_fenced(source, "python"))
            else:
                parts += [_fenced(source, "python"), *answers]
    page.text = "\n\n".join(part for part in [*parts, *(opening or [])] if part) + "\n"
    return page


def _folded(title: str, parts: list[str]) -> str:
    inside = "\n\n".join(parts).splitlines()
    return "\n".join([f'??? example "{title}"', *(f"    {line}".rstrip() for line in inside)])


def _answer(output: dict, before: str, name: str, page: Page) -> str:
    """Markdown of one output; standard error, which holds progress bars, is not shown."""
    if output["output_type"] == "stream":
        text = _ANSI.sub("", _joined(output["text"])).rstrip()
        return "" if output["name"] == "stderr" or not text else _fenced(text, "{ .text .printed }")
    if output["output_type"] == "error":
        return _fenced(f"{output['ename']}: {output['evalue']}", "text")
    data = output.get("data", {})
    if "image/png" in data:
        file = f"{name}_{len(page.images)}.png"
        page.images[file] = base64.b64decode(_joined(data["image/png"]))
        return f'![{_first_sentence(before)}]({file}){{ .result loading="lazy" }}'
    if "application/vnd.jupyter.widget-view+json" in data:
        return '!!! note "In JupyterLab only"\n    Controls appear here in JupyterLab: `make lab`.'
    if "text/markdown" in data:
        return _joined(data["text/markdown"])
    if "text/html" in data:
        return _table(_joined(data["text/html"]))
    return _fenced(_joined(data["text/plain"]), "text") if "text/plain" in data else ""


def _table(text: str) -> str:
    """HTML without scripts, styles and empty lines, which would end it in Markdown."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.S)
    text = re.sub(r' (border|style|class)="[^"]*"', "", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return '<div class="result">' + "".join(lines) + "</div>"


def _first_sentence(text: str) -> str:
    """Of a cell's text, as an image's description: no links, no emphasis."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text.strip().splitlines()[-1])
    plain = re.sub(r"[*_`\[\]#|]", "", plain)
    return re.split(r"(?<=[.:?]) ", plain)[0].strip(" :")


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, *(len(found) + 1 for found in re.findall(r"`{3,}", text)), 3)
    return f"{fence}{language}\n{text}\n{fence}"


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
