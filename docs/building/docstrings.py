"""mkdocstrings' view of lib: docstrings as Markdown, and comments as words of constants."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import griffe

sys.path.insert(0, str(Path(__file__).parent))  # this file is loaded by its path

from faces import all_names
from prose import to_markdown


class Docstrings(griffe.Extension):
    """Rewrites each docstring once it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.is_attribute and obj.docstring is None and (words := _comment_above(obj)):
            obj.docstring = griffe.Docstring(words, parent=obj)
        if obj.docstring is not None:
            others = {name: full for name, full in all_names().items() if full != obj.path}
            obj.docstring.value = to_markdown(obj.docstring.value, others)


def _comment_above(obj: griffe.Object) -> str:
    """The comment that stands directly above a constant."""
    if not isinstance(obj.filepath, Path) or not obj.lineno:
        return ""
    lines = obj.filepath.read_text(encoding="utf-8").splitlines()[: obj.lineno - 1]
    found: list[str] = []
    while lines and (comment := re.fullmatch(r"# ?(?!---)(.*)", lines.pop())):
        found.insert(0, comment[1])
    return "\n".join(found)
