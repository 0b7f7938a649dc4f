"""Merging several runs into one leaderboard: `dcls-leaderboard`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from ..base.files import refuse_as_output, write_atomically, write_json
from ..base.fingerprint import sha256_of
from ..base.spreadsheets import csv_text
from ..base.versions import commit, environment
from ..base.words import printable
from ..figures.leaderboard import plot_accuracy_against_score, plot_leaderboard
from ..figures.saving import draw_files
from ..figures.style import STYLE
from ..report.readable import DAGGER, readable_leaderboard
from ..scores.controls import control_labels
from ..scores.leaderboard import NAME, accuracy_correlation, board_file, boards, leaderboard
from ..scores.statistics import correlation_interval
from .running import run

_SUFFIXES = (".csv", ".parquet")
_TOO_WIDE = ("Params (M)", "Top-1 here (%)", "ImageNet top-1 from")  # columns not printed


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dcls-leaderboard",
        description="Merge the leaderboards of several runs, also from other machines, into one. "
        "Runs with other images, human maps, formulas or rules are refused. See "
        "docs/leaderboard.md.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "runs",
        nargs="+",
        metavar="FOLDER",
        help="folders of results, such as data/output/gaze; or a leaderboard's .parquet",
    )
    add("--out", type=Path, default=Path(f"{NAME}.csv"), metavar="FILE",
        help="FILE.csv or FILE.parquet; the other, FILE.json and figures are written beside it "
        f"(default: {NAME}.csv in the working folder)")  # fmt: skip
    add("--method", default="", metavar="KEY", help="only this CAM method (default: all)")
    add("--protocol", default="", metavar="KEY", help="only this protocol (default: all)")
    add("--across-versions", action="store_true",
        help="also merge runs with another precision, or with other computing code")  # fmt: skip
    add("--no-figures", action="store_true", help="write only the tables")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.out.suffix not in _SUFFIXES:
        raise ValueError(f"--out {options.out} must end in {' or '.join(_SUFFIXES)}")
    files = [board_file(place) for place in options.runs]
    read = [file.with_suffix(suffix) for file in files for suffix in (*_SUFFIXES, ".json")]
    for suffix in (*_SUFFIXES, ".json"):
        refuse_as_output(options.out.with_suffix(suffix), read, suffix)
    board = leaderboard(
        *options.runs, method=options.method, protocol=options.protocol,
        across_versions=options.across_versions,
    )  # fmt: skip
    told = board.attrs[NAME]
    with write_atomically(options.out.with_suffix(".csv")) as partial:
        partial.write_text(csv_text(board), encoding="utf-8", newline="")
    with write_atomically(options.out.with_suffix(".parquet")) as partial:
        board.to_parquet(partial, index=False)
    made_of = {str(p): sha256_of(f) for p, f in zip(options.runs, files, strict=True)}
    asked = {name: getattr(options, name) for name in ("method", "protocol", "across_versions")}
    facts = {"runs": made_of, "asked": asked, "commit": commit(), "environment": environment()}
    write_json(options.out.with_suffix(".json"), told | facts)
    if not options.no_figures:
        _draw(board, options.out)
    print(printable(_as_text(board)))
    for note in told["notes"]:
        print(printable(f"note: {note}"), file=sys.stderr)
    return 0


def _draw(board: pd.DataFrame, out: Path) -> None:
    """Draw a figure per method and protocol beside the tables, and one of accuracies if any are
    known."""
    for rows, controls in boards(board):
        of = re.sub(r"[^\w+-]+", "_", f"{rows.method.iloc[0]}_{rows.protocol.iloc[0]}")
        with plt.style.context(STYLE):
            drawn = {out.stem: plot_leaderboard(rows, controls, control_labels())}
            if rows.imagenet_top1.notna().any():
                rho, count = accuracy_correlation(rows)
                drawn[f"{out.stem}_accuracy"] = plot_accuracy_against_score(
                    rows, rho, correlation_interval(rho, count)
                )
            for name, figure in drawn.items():
                draw_files(figure, out.parent, f"{name}_{of}")
                plt.close(figure)


def _as_text(board: pd.DataFrame) -> str:
    parts = []
    readable = readable_leaderboard(board)
    shown = readable.columns.difference(["Method", "Protocol", *_TOO_WIDE], sort=False)
    for (protocol, method), rows in readable.groupby(["Protocol", "Method"], sort=False):
        table = rows[shown].to_markdown(index=False, disable_numparse=True, tablefmt="simple")
        parts.append(f"{method}, protocol {protocol}\n\n{table}")
    flag = f"{DAGGER}: not clearly above the strongest control, a map that no model made"
    return "\n\n".join([*parts, flag] if DAGGER in "".join(parts) else parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, 2 for runs that cannot be merged."""
    options = build_parser().parse_args(arguments)
    return run("dcls-leaderboard", lambda: _run(options), ", nothing more was written")
