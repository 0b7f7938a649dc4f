"""mkdocstrings' view of lib: docstrings as Markdown, and comments as words of constants."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import griffe

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file is loaded by its path

from building.faces import all_names
from building.prose import to_markdown

_SHORT = 60  # letters of a value that says more than it takes


class Docstrings(griffe.Extension):
    """Rewrites each docstring once it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.is_attribute:
            if obj.docstring is None and (words := _comment_above(obj)):
                obj.docstring = griffe.Docstring(words, parent=obj)
            if len(str(obj.value)) > _SHORT:
                obj.value = None
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value, _linked_from(obj))


def _linked_from(obj: griffe.Object) -> dict[str, str]:
    """The public names that are not meant otherwise in the object's module, and not its own."""
    module = obj.module
    return {
        name: full
        for name, full in all_names().items()
        if full != obj.path and (name not in module.members or full == f"{module.path}.{name}")
    }


def _comment_above(obj: griffe.Object) -> str:
    """The comment that stands directly above a constant."""
    if not isinstance(obj.filepath, Path) or not obj.lineno:
        return ""
    lines = obj.filepath.read_text(encoding="utf-8").splitlines()[: obj.lineno - 1]
    found: list[str] = []
    while lines and (comment := re.fullmatch(r"# ?(?!---)(.*)", lines.pop())):
        found.insert(0, comment[1])
    return "\n".join(found)
