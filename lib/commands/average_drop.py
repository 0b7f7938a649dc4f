"""Average drop, increase in confidence and ROAD on a folder of images: `dcls-average-drop`.

Images are used as in L-CAM's study: images of ImageNet's validation folder, with the shorter side
resized to 256 and the centre cut out; each heatmap is of the class that the model predicts. No
human maps are needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from ..analyses.faithfulness.definitions import define_measures, ends_of
from ..analyses.faithfulness.removal import NOISE_UNITS
from ..analyses.faithfulness.study import score_folder
from ..base.files import refuse_as_output, write_atomically
from ..base.paths import shown
from ..base.spreadsheets import csv_text
from ..maps.methods import METHODS
from ..networks.checkpoints import MissingWeights
from ..people.image_folders import listed_images
from ..scores.statistics import means_by
from ..study.profiles import PROFILES
from ..study.study import Study
from .running import ACCEPT, accepted, print_remarks, run

IMAGES = 2000  # as in the published study


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dcls-average-drop",
        description="Average drop and increase in confidence on a folder of images; with "
        "--curves also ROAD, insertion and deletion.",
        epilog=f"methods: {', '.join(METHODS)}",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="FOLDER",
        help="folder of images, such as ILSVRC2012_img_val")  # fmt: skip
    add("--list", type=Path, metavar="FILE",
        help="a text file whose lines each begin with an image of FOLDER")  # fmt: skip
    add("--limit", type=int, default=IMAGES, metavar="N",
        help=f"number of images; 0: all (default: {IMAGES}, as published)")  # fmt: skip
    add("--models", nargs="+", default=[], metavar="KEY", help="default: all, plain and DCLS")
    add("--methods", nargs="+", default=["grad_cam", "threshold_grad_cam"], metavar="KEY")
    add("--curves", action="store_true",
        help="also ROAD (most and least relevant first, combined), insertion and deletion: some "
        "forty more forward passes per image")  # fmt: skip
    add("--road-noise", choices=NOISE_UNITS, default=NOISE_UNITS[0],
        help="whether ROAD's noise is 0.01 of the normalised image, as in pytorch-grad-cam "
        "(default), or of the 0-1 image, as in earlier versions")  # fmt: skip
    add("--profile", default="paper", help=f"{', '.join(PROFILES)} (default: paper)")
    add("--out", type=Path, metavar="FILE.csv", help="also write a row per image and measure")
    add("--device", default="auto")
    add("--data-dir", default="")
    add("--accept", **ACCEPT)
    add("--extend", default="", metavar="FILE.py",
        help="your own models and methods, see docs/own-models.md")  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, 2 for an invalid request."""
    options = build_parser().parse_args(arguments)
    done = "; --out contains the models that are complete" if options.out is not None else ""
    return run("dcls-average-drop", lambda: _run(options), done)


def _run(options: argparse.Namespace) -> None:
    study = Study.from_profile(
        options.profile, options.models, options.methods,
        device=options.device, data_dir=options.data_dir, extend=options.extend,
        accept=accepted(options),
    )  # fmt: skip
    print_remarks(study.networks.remarks())
    methods, variants = study.choices.methods, study.choices.variants
    paths = listed_images(options.images, options.list, options.limit)
    if options.out is not None:
        refuse_as_output(options.out, [options.list] if options.list else [])
    files = [study.inputs.weights_path(b.key, d) for b, d in variants if not b.untrained]
    if missing := [path for path in files if not path.is_file()]:
        raise MissingWeights(
            "these weights do not exist, fetch them or name others: "
            + ", ".join(map(shown, missing))
        )
    for backbone, dcls in variants:  # fails before hours are spent on the others
        study.networks.attentions(backbone.key, dcls)
    tables: list[pd.DataFrame] = []
    for backbone, dcls in variants:
        tables.append(
            score_folder(
                study.networks,
                backbone,
                dcls,
                methods,
                paths,
                options.images,
                options.curves,
                options.road_noise,
            )
        )
        tqdm.write(means_in_words(tables[-1], study.inputs.weights_name(backbone.key, dcls)))
        if options.out is not None:
            with write_atomically(options.out) as partial:
                partial.write_text(csv_text(pd.concat(tables)), encoding="utf-8", newline="")


def means_in_words(table: pd.DataFrame, name: str) -> str:
    """Return a variant's means as text: a row per measure with its unit, a column per method, and
    the number of images; `faithful` says whether less or more is more faithful."""
    by = ["method", "measure"]
    means = means_by(table, by, "value", "value", lambda key: ends_of(key[-1]))
    digits = [1 if ends_of(key)[1] == 100 else 3 for key in means.measure]  # per cent, probability
    means["value"] = [
        f"{v:.{d}f} ({low:.{d}f} – {high:.{d}f})"
        for v, low, high, d in zip(means.value, means.low, means.high, digits, strict=True)
    ]
    wide = means.pivot(index="measure", columns="method", values="value")
    wide = wide.reindex(index=means.measure.unique(), columns=means.method.unique())
    # A heatmap that is constant or not finite shows nothing, and is not counted.
    covered = table.dropna(subset="value").groupby("method").image_id.nunique()
    covered = covered.reindex(wide.columns, fill_value=0).rename("images with a heatmap")
    wide = pd.concat([covered.to_frame().T, wide])
    defined = define_measures(table).set_index("measure")[["unit", "faithful"]]
    wide = defined.reindex(wide.index, fill_value="").join(wide)
    images = table.image_id.nunique()
    return f"{name}, {images} images, means with 95 % intervals\n{wide.to_string()}"
