"""A flowchart in Mermaid's notation as SVG, so that a page needs no script to draw it.

It knows what architecture.md uses: `flowchart TB`, nodes `name["text<br/>text"]`, and edges
`a & b --> c --> d`.
"""

from __future__ import annotations

import html
import re
from itertools import pairwise
from statistics import mean

_NODE = re.compile(r'(\w+)\["([^"]*)"\]')
_WIDTH, _LINE, _GAP, _RISE = 7.2, 17, 22, 46  # of a letter, a line, between boxes, between rows


def drawn(text: str, title: str) -> str:
    """The diagram as one line of SVG.

    text  : the flowchart
    title : what it shows, for those who do not see it
    Raises ValueError, naming the line, for notation that it does not know.
    """
    labels, edges = _read(text)
    rows, edges = _rows(labels, edges)
    places, width, height = _placed(rows, labels)
    parts = []
    for path in edges:
        bends = "".join(
            f"C{x:.0f} {(y + v) / 2:.0f} {u:.0f} {(y + v) / 2:.0f} {u:.0f} {v:.0f}"
            for (x, y), (u, v) in pairwise(_points(path, places))
        )
        x, y = _points(path, places)[0]
        parts.append(f'<path class="edge" d="M{x:.0f} {y:.0f}{bends}" marker-end="url(#arrow)"/>')
    for name, lines in labels.items():
        x, y, w, h = places[name]
        parts.append(
            f'<rect class="box" x="{x - w / 2:.0f}" y="{y:.0f}" width="{w:.0f}" height="{h:.0f}" '
            'rx="5"/>'
        )
        for number, line in enumerate(lines):
            kind = "first" if number == 0 else "more"
            parts.append(
                f'<text class="{kind}" x="{x:.0f}" y="{y + 19 + number * _LINE:.0f}">'
                f"{html.escape(line)}</text>"
            )
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
    )
    return (
        f'<div class="diagram"><svg role="img" aria-label="{html.escape(title)}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px">{arrow}'
        + "".join(parts)
        + "</svg></div>"
    )


def _read(text: str) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    labels: dict[str, list[str]] = {}
    edges: list[tuple[str, str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if node := _NODE.fullmatch(line):
            labels[node[1]] = re.split(r"<br ?/?>", node[2])
        elif "-->" in line:
            ends = [[name.strip() for name in side.split("&")] for side in line.split("-->")]
            if unknown := {name for side in ends for name in side} - set(labels):
                raise ValueError(f"{line!r}: no node is called {', '.join(sorted(unknown))}")
            edges += [(a, b) for above, below in pairwise(ends) for a in above for b in below]
        elif line != "flowchart TB":
            raise ValueError(f"{line!r} is no node and no edge that the diagram can draw")
    return labels, edges


def _rows(labels: dict, edges: list) -> tuple[list[list[str]], list[list[str]]]:
    """Names by row, and every edge as a path that has a point in each row that it passes."""
    depth = dict.fromkeys(labels, 0)
    for _ in labels:
        for a, b in edges:
            depth[b] = max(depth[b], depth[a] + 1)
    if max(depth.values(), default=0) >= len(labels):
        raise ValueError("the edges lead in a circle: a diagram of rows has none")
    rows: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in labels:
        rows[depth[name]].append(name)
    paths = []
    for a, b in edges:
        passed = [f"{a}>{b}@{row}" for row in range(depth[a] + 1, depth[b])]
        for row, name in enumerate(passed, depth[a] + 1):
            rows[row].append(name)
        paths.append([a, *passed, b])
    near: dict[str, list[str]] = {}
    for path in paths:
        for a, b in pairwise(path):
            near.setdefault(a, []).append(b)
            near.setdefault(b, []).append(a)
    for sweep in range(8):  # each row in the order of what it is joined to, down and up
        order = list(range(1, len(rows))) if sweep % 2 == 0 else list(range(len(rows) - 2, -1, -1))
        for row in order:
            other = rows[row - 1 if sweep % 2 == 0 else row + 1]
            at = {name: number / max(len(other) - 1, 1) for number, name in enumerate(other)}
            own = {name: number / max(len(rows[row]) - 1, 1) for number, name in
                   enumerate(rows[row])}  # fmt: skip
            rows[row].sort(
                key=lambda name, at=at, own=own: mean(
                    [at[one] for one in near.get(name, []) if one in at] or [own[name]]
                )
            )
    return rows, paths


def _placed(rows: list[list[str]], labels: dict[str, list[str]]):
    """{name: middle, top, width, height}, and the size of the whole."""
    sizes = {
        name: (max(map(len, labels[name])) * _WIDTH + 22, len(labels[name]) * _LINE + 12)
        if name in labels
        else (2, 0)
        for row in rows
        for name in row
    }
    widths = [sum(sizes[name][0] + _GAP for name in row) - _GAP for row in rows]
    whole, top, places = max(widths) + 4, 2.0, {}
    for row, width in zip(rows, widths, strict=True):
        room = min((whole - 4 - width) / (len(row) + 1), 60)
        x = (whole - width - room * (len(row) - 1)) / 2
        height = max(sizes[name][1] for name in row)
        for name in row:
            w, h = sizes[name]
            places[name] = (x + w / 2, top, w, h or height)
            x += w + _GAP + room
        top += height + _RISE
    return places, whole, top - _RISE + 4


def _points(path: list[str], places: dict) -> list[tuple[float, float]]:
    """Where an edge begins, passes and ends."""
    points = []
    for number, name in enumerate(path):
        x, y, _, h = places[name]
        if number:
            points.append((x, y - (2 if number == len(path) - 1 else 0)))
        if number < len(path) - 1:
            points.append((x, y + h))
    return points
