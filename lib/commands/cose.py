"""COSE on a folder of images, for any model: `dcls-cose`. No human maps are needed.

Every pair goes to a CSV with the published columns; the scores go to `…_summary.csv`,
`…_parts.csv` and `….json` beside it. See docs/cose.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from ..analyses.cose.folder import as_published, checkpoints_in, work_on_folder
from ..analyses.cose.readings import READINGS
from ..analyses.cose.results import by_change, summarise_cose
from ..analyses.cose.study import RANDOM, pairs_by_variant
from ..base.files import refuse_as_output, write_atomically, write_json
from ..base.fingerprint import sha256_of
from ..base.paths import shown
from ..base.spreadsheets import csv_text
from ..base.versions import commit, environment
from ..base.words import in_lines, printable
from ..maps.methods import METHODS
from ..networks.backbones import BACKBONES, Backbone, variant_name
from ..networks.checkpoints import MissingWeights
from ..people.image_folders import ImageFolderError
from ..people.images import open_image
from ..people.labels import AUTO, LAYOUTS, NONE, LabelledFolder, labelled_images
from ..study.choices import Choices
from ..study.extension import rows_added_by
from ..study.inputs import chosen_folder
from ..study.own_rows import add_model
from ..study.profiles import PROFILES
from ..study.study import Study
from .running import ACCEPT, accepted, print_remarks, run

IMAGES = 500  # as in the published study; it uses 50 for slower methods
_LEFT_OUT = 14  # the exit status, as in run_all.py
_IMAGENET = 1000


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dcls-cose",
        description="COSE of models on a folder of images, for each pair and overall; see "
        "docs/cose.md.",
        epilog=f"methods: {', '.join(METHODS)}",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="FOLDER",
        help="images directly in FOLDER, or in a subfolder per class")  # fmt: skip
    add("--labels", default=AUTO, metavar="HOW",
        help=f"source of the classes: {', '.join(LAYOUTS)} (default: automatic)")  # fmt: skip
    add("--list", type=Path, metavar="FILE",
        help="a text file whose lines each begin with an image of FOLDER, followed by its class "
        "unless folders give the classes")  # fmt: skip
    add("--limit", type=int, default=IMAGES, metavar="N",
        help=f"number of images; 0: all (default: {IMAGES}, as published)")  # fmt: skip
    add("--models", nargs="+", default=[], metavar="KEY",
        help="models of the study, or of --extend")  # fmt: skip
    add("--timm", default="", metavar="NAME", help="instead: a model of timm with --weights")
    add("--weights", default="", metavar="FILE", help="the weights of --timm's model")
    add("--classes", type=int, default=0, metavar="N",
        help="number of classes of --timm's model (default: the folder's, else 1000)")  # fmt: skip
    add("--checkpoints", type=Path, metavar="FOLDER",
        help="weights from earlier in the training; for several models, in FOLDER/<model>/ "
        "each")  # fmt: skip
    add("--methods", nargs="+", default=["grad_cam", "grad_cam_plus_plus"], metavar="KEY")
    add("--out", type=Path, required=True, metavar="FILE.csv", help="the output, a row per pair")
    add("--profile", default="paper", help=f"{', '.join(PROFILES)} (default: paper)")
    add("--keep-going", action="store_true", help="skip files that cannot be read, and name them")
    add("--device", default="auto")
    add("--batch-size", type=int, default=0, metavar="N")
    add("--precision", default="float32", help="float32 or bf16")
    add("--data-dir", default="")
    add("--accept", **ACCEPT)
    add("--extend", default="", metavar="FILE.py",
        help="your own models and methods, see docs/own-models.md")  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 2 for an invalid request, 14 if files that
    cannot be read were skipped and everything else is done."""
    options = build_parser().parse_args(arguments)
    kept = "; finished work is saved, and the same command resumes it"

    def work() -> int:
        with ExitStack() as held:
            return _run(options, _study(options, held))

    return run("dcls-cose", work, kept, "try a smaller --batch-size")


@contextmanager
def timm_network(name: str, weights: str) -> Iterator[Backbone]:
    """Yield a row for a timm model with one's own weights, in the table of models meanwhile.

    Raises ValueError, which names what does not fit.
    """
    if not weights:
        raise ValueError("--timm needs --weights: give the file of its weights")
    key, before = re.sub(r"\W", "_", f"timm_{name}"), list(BACKBONES)
    digest = hashlib.sha256(f"dcls-cose {name}".encode()).hexdigest()  # weights have their own
    try:
        with rows_added_by(Path.cwd() / "dcls-cose", digest):
            row = add_model(key, timm=name, weights=weights, label=f"{name}, own weights")
        yield row
    finally:
        BACKBONES.keep(before)


def _study(options: argparse.Namespace, held: ExitStack) -> Study:
    """Return the study with the requested models and methods."""
    if bool(options.timm) == bool(options.models):
        raise ValueError("give either --models or --timm NAME --weights FILE")
    if options.timm and options.extend:
        raise ValueError("--timm and --extend exclude each other: use add_model for timm's models")
    if not options.timm and (options.weights or options.classes):
        raise ValueError("--weights and --classes belong to --timm: add it, or omit them")
    if options.classes < 0 or options.classes == 1:
        raise ValueError(f"--classes must be 2 or more, got {options.classes}")
    common = dict(
        device=options.device, batch_size=options.batch_size, precision=options.precision,
        accept=accepted(options), keep_going=options.keep_going,
    )  # fmt: skip
    if not options.timm:
        return Study.from_profile(
            options.profile, options.models, options.methods,
            data_dir=options.data_dir, extend=options.extend, **common,
        )  # fmt: skip
    own = held.enter_context(timm_network(options.timm, options.weights))
    data = chosen_folder("data_dir", options.data_dir)
    return Study(
        Choices.of(options.profile, [own.key], options.methods, [own], data_dir=data, **common)
    )


def _earlier(options: argparse.Namespace, study: Study) -> dict[tuple[Backbone, bool], list[Path]]:
    """Return each variant's weights from earlier in its training, after comparing every file with
    its model, which saves hours if one does not fit."""
    found = {}
    variants = study.choices.variants
    for backbone, dcls in variants:
        name = variant_name(backbone.key, dcls)
        if options.checkpoints is None:
            files = study.inputs.training_checkpoints(backbone.key, dcls)
        elif len(variants) == 1 and not (options.checkpoints / name).is_dir():
            files = checkpoints_in(options.checkpoints)
        else:
            files = checkpoints_in(options.checkpoints / name)
        if not options.keep_going:
            for path in files:
                study.networks.remarks_on(backbone.key, dcls, path)
        found[backbone, dcls] = files
    return found


def _refuse_what_is_no_image(folder: LabelledFolder) -> None:
    for image in folder.images:
        try:
            open_image(image.path).close()
        except (OSError, ValueError, SyntaxError) as error:
            raise ImageFolderError(
                f"{image.path} is not a readable image: {error} (--keep-going skips it)"
            ) from None


def _run(options: argparse.Namespace, study: Study) -> int:
    out = options.out
    classes = options.classes if options.timm else study.choices.profile.classes
    folder = labelled_images(options.images, options.labels, options.list, classes, options.limit)
    profile = replace(study.choices.profile, classes=folder.classes or classes or _IMAGENET)
    study = study.changed(profile=profile)
    read = [options.list] if options.list else []
    refuse_as_output(out, [*read, *(image.path for image in folder.images)])
    files = [
        study.inputs.weights_path(b.key, d) for b, d in study.choices.variants if not b.untrained
    ]
    if missing := [path for path in files if not path.is_file()]:
        raise MissingWeights(
            "these weights do not exist, fetch them or name others: "
            + ", ".join(map(shown, missing))
        )
    for backbone, dcls in study.choices.variants:
        study.networks.remarks_on(backbone.key, dcls)
        study.networks.attentions(backbone.key, dcls)
    print_remarks(study.networks.remarks())
    if not options.keep_going:
        _refuse_what_is_no_image(folder)
    earlier = _earlier(options, study)
    print(printable(_asked(options, folder, earlier)))
    name = options.images.absolute().name
    missed: dict[str, str] = {}
    tables: list[pd.DataFrame] = []
    for variant, files in earlier.items():
        work = work_on_folder(study, folder, name, {variant: files})
        (table,) = pairs_by_variant(work)
        missed |= work.missed
        if table.empty:
            raise ImageFolderError(in_lines([*missed.values()]) or "nothing can be read")
        tables.append(table)
        pairs = pd.concat(tables, ignore_index=True)
        summary = summarise(pairs)
        _write(out, as_published(pairs, folder))
        _write(beside(out, "summary"), summary)
        _write(beside(out, "parts"), by_change(pairs))
        write_json(
            out.with_suffix(".json"), _facts(options, study, folder, earlier, summary, missed)
        )
        this = (summary.backbone == table.backbone[0]) & (summary.dcls == table.dcls[0])
        tqdm.write(printable(told(summary[this])))
    if profile.caveat and not options.timm:
        print(profile.caveat)
    if missed:
        lines = [f"{name}: {why}" for name, why in missed.items()]
        print(printable(f"skipped:\n{in_lines(lines)}"), file=sys.stderr)
    return _LEFT_OUT if missed else 0


def summarise(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `summarise_cose`, with F of each protocol: 1 - sensitivity."""
    summary = summarise_cose(pairs)
    for reading in READINGS:
        place = summary.columns.get_loc(f"sensitivity_{reading}")
        summary.insert(place, f"f_{reading}", 1 - summary[f"sensitivity_{reading}"])
    return summary


def beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.stem}_{what}.csv")


def _write(path: Path, table: pd.DataFrame) -> None:
    with write_atomically(path) as partial:
        partial.write_text(csv_text(table), encoding="utf-8", newline="")


def _asked(
    options: argparse.Namespace,
    folder: LabelledFolder,
    earlier: Mapping[tuple[Backbone, bool], Sequence[Path]],
) -> str:
    """Return what will be scored, in words."""
    said = f"{len(folder.images)} images of {options.images}; classes: {folder.layout}"
    if folder.layout == NONE:
        said += (
            " (classes are unknown: the class that a model predicts for the unchanged "
            "image counts as the right one)"
        )
    elif folder.classes:
        said += f", {folder.classes}"
    networks = [
        f"{variant_name(b.key, dcls)} against {RANDOM}"
        + f" and {len(files)} earlier checkpoints" * bool(files)
        for (b, dcls), files in earlier.items()
    ]
    return "\n".join([said, *networks])


def _facts(
    options: argparse.Namespace,
    study: Study,
    folder: LabelledFolder,
    earlier: Mapping[tuple[Backbone, bool], Sequence[Path]],
    summary: pd.DataFrame,
    missed: dict[str, str],
) -> dict:
    """Return the facts saved beside the pairs: what they were made from, and their results."""
    return {
        "folder": str(options.images.absolute()),
        "images": len(folder.images),
        "classes": folder.classes or study.choices.profile.classes,
        "classes_told_by": folder.layout,
        "right_answer": "the class predicted for the unchanged image"
        if folder.layout == NONE
        else "the label",
        "networks": {
            variant_name(b.key, dcls): {
                "weights": str(study.inputs.weights_path(b.key, dcls)),
                "sha256": study.inputs.weights_sha256(b.key, dcls),
                "checkpoints": {path.name: sha256_of(path) for path in files},
            }
            for (b, dcls), files in earlier.items()
        },
        "methods": [method.key for method in study.choices.methods],
        "readings": {
            "published": "each map scaled to 0-1; scikit-image's full SSIM map within the "
            "published mask",
            "corrected": "where part of the image left it, scaled within the part that stayed; "
            "only whole windows",
        },
        "summary": json.loads(summary.to_json(orient="records", double_precision=15)),
        "left_out": missed,
        "commit": commit(),
        "environment": environment(),
    }


def told(summary: pd.DataFrame) -> str:
    """Return the scores as text: the published protocol, with the corrected protocol's COSE."""
    named = {
        "model": [variant_name(*of) for of in zip(summary.backbone, summary.dcls, strict=True)],
        "method": summary.method,
        "COSE": summary.cose_published,
        "low": summary.cose_published_low,
        "high": summary.cose_published_high,
        "chance": summary.chance_published,
        "ceiling": summary.ceiling_published,
        "C": summary.consistency_published,
        "F": summary.f_published,
        "corrected COSE": summary.cose_corrected,
        "kept": summary.n_kept,
        "changed": summary.n_changed,
        "no SSIM": summary.n_undefined,
        "right": [f"{row.n_right} of {row.n_images}" for row in summary.itertuples()],
    }
    table = pd.DataFrame(named).to_string(index=False, float_format="{:.3f}".format)
    why = [
        f"{row.method}: {row.undefined_published}"
        for row in summary.itertuples()
        if row.undefined_published
    ]
    return "\n".join(
        ["published reading, for comparison with published tables, as are chance and ceiling; the",
         "corrected COSE has fewer artefacts. low, high: 95 % interval over images, from twelve",
         "images on; kept, changed: pairs whose answer stays right, or becomes wrong; no SSIM:",
         "skipped pairs; right: images answered correctly before any change; only they count",
         table, *why]
    )  # fmt: skip
