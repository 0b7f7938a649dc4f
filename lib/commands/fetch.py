"""Downloading and verifying published weights of models: `dcls-fetch`."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..base.paths import shown
from ..base.words import counted, printable
from ..networks.download import fetch
from ..networks.requesting import DownloadError
from ..networks.sources import SHARDS
from ..study.study import NamedModels, Study
from .running import run


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dcls-fetch",
        description="Download the published weights of models and verify them by their "
        "publisher's checksum. Existing files are kept.",
        epilog="The same command resumes an interrupted download.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL",
        help="models, as for run_all.py --models: resnet50 timm:resnet18")  # fmt: skip
    add("--clickme", action="store_true", help="also ClickMe's images and human maps (gigabytes)")
    add("--data-dir", default="", metavar="FOLDER", help="destination (default: the data folder)")
    add("--extend", default="", metavar="FILE.py", help="own models, see docs/own-models.md")
    add("--unverified", action="store_true",
        help="also accept files without their publisher's checksum; results say so")  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, 2 for files that cannot be fetched."""
    options = build_parser().parse_args(arguments)
    return run("dcls-fetch", lambda: _run(options), ": the same command resumes it")


def _run(options: argparse.Namespace) -> int:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", NamedModels)
        study = Study.from_profile(
            "paper", options.models, extend=options.extend, data_dir=options.data_dir,
            target="predicted",
        )  # fmt: skip
    for note in told:
        print(printable(str(note.message)), file=sys.stderr)
    inputs, shards = study.inputs, set(SHARDS.values())
    sources = [s for s in inputs.sources() if options.clickme or s not in shards]
    lacking = [s for s in sources if not _place(study, s.place).is_file()]
    if lacking:
        try:
            fetch(
                lacking, inputs.downloads, lambda line: print(printable(line)), options.unverified
            )
        except DownloadError as error:
            print(printable(f"dcls-fetch: {error}"), file=sys.stderr)
            return 2
    there = counted(len(sources), "published file")
    print(f"{there} of {', '.join(b.key for b in study.choices.backbones)}: in "
          f"{shown(inputs.downloads)}")  # fmt: skip
    return 0


def _say(line: str) -> None:
    print(printable(line), flush=True)


def _place(study: Study, name: str) -> Path:
    return study.inputs.downloads / name
