"""Docstrings of this project as Markdown.

They are paragraphs, lines of `name : meaning` whose continuation is indented, and lines that
begin with Returns, Raises, Yields or Source. Nothing else has a form.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

_ITEM = re.compile(r"(\*{0,2}\w[\w.]*(?:, \*{0,2}\w[\w.]*)*) *(?<= ): (.+)")
_LABEL = re.compile(r"(Returns|Raises|Yields|Source)\b(?: *:)? *(.*)")
_CODE = re.compile(r"(``[^`]+``|`[^`]+`)")


def to_markdown(text: str, names: Mapping[str, str] = {}) -> str:
    """A docstring for the site.

    text  : the docstring, its indentation removed
    names : {a public name: what it is linked to}; the name in backticks becomes a link
    Returns Markdown with a definition list for lines of `name : meaning`.
    """
    blocks: list[str] = []
    for paragraph in re.split(r"\n[ \t]*\n", text.strip("\n")):
        lines = paragraph.splitlines()
        if all(line.startswith("    ") for line in lines):
            blocks.append("\n".join(["```text", *(line[4:] for line in lines), "```"]))
        else:
            blocks += _paragraph(lines, names)
    return "\n\n".join(blocks)


def _paragraph(lines: list[str], names: Mapping[str, str]) -> list[str]:
    # (what it is, its name, its text): a plain text, an item of a list, or a labelled text
    parts: list[tuple[str, str, list[str]]] = []
    for line in lines:
        if line.startswith(" ") and parts:
            parts[-1][2].append(line.strip())
        elif found := _LABEL.fullmatch(line):
            parts.append(("label", found[1], [found[2]]))
        elif found := _ITEM.fullmatch(line):
            parts.append(("item", found[1], [found[2]]))
        elif line.startswith("- "):
            parts.append(("point", "", [line[2:]]))
        elif parts and parts[-1][0] in ("text", "label"):
            parts[-1][2].append(line.strip())
        else:
            parts.append(("text", "", [line.strip()]))
    made = []
    for kind, name, told in parts:
        words = _escaped(" ".join(told), names)
        if kind == "item":
            heads = ", ".join(f"`{one}`" for one in name.split(", "))
            made.append(f"{heads}\n:   {words}")
        elif kind == "label":
            made.append(f"**{name}** {words}")
        elif kind == "point":
            made.append(f"- {words}")
        else:
            made.append(words)
    return made


def _escaped(text: str, names: Mapping[str, str]) -> str:
    """Text whose signs mean themselves; what stands in backticks is code, or a link to a name."""
    parts = []
    for number, part in enumerate(_CODE.split(text)):
        if number % 2 == 0:
            parts.append(re.sub(r"([\\*_\[\]|])", r"\\\1", html.escape(part, quote=False)))
        elif target := names.get(part.strip("`").removesuffix("()")):
            parts.append(f"[{part}][{target}]")
        else:
            parts.append(part)
    return "".join(parts)
