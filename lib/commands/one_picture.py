"""One picture, one network, one method: overlay, raw map and classes.

dcls-cam PICTURE --model convnext_tiny --dcls --method threshold_grad_cam
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lib.base.files import write_atomically
from lib.base.tables import unknown_name
from lib.commands.running import ACCEPT, accepted, print_remarks, run
from lib.figures.heatmaps import overlay
from lib.maps.methods import METHODS
from lib.maps.placed import heatmaps
from lib.networks.backbones import BACKBONES, variant_name
from lib.networks.loading import load_model
from lib.networks.models import StudyModel
from lib.people.photographs import load_square
from lib.study.extension import load_extension
from lib.study.inputs import MissingInputs
from lib.study.profiles import PROFILES
from lib.study.study import Study

WEIGHTS = ("demo", "paper", "timm", "random")


def build_parser() -> argparse.ArgumentParser:
    def listed(table) -> str:
        return ", ".join(table)

    notes = [f"  {m.key}: {m.note}" for m in METHODS.values() if m.note]
    parser = argparse.ArgumentParser(
        prog="dcls-cam",
        description="The map of one picture: an overlay as PNG, the raw map as .npy beside it, "
        "and the five likeliest classes.",
        epilog="\n".join(
            [f"models: {listed(BACKBONES)}", "", f"methods: {listed(METHODS)}", "", *notes]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("picture", type=Path, help="any picture file; its centred square is used")
    parser.add_argument("--model", default="convnext_tiny", metavar="KEY", help="see below")
    parser.add_argument("--dcls", action="store_true", help="the variant with DCLS")
    parser.add_argument("--method", default="threshold_grad_cam", metavar="KEY", help="see below")
    parser.add_argument(
        "--weights", default="demo", metavar="WHICH",
        help=f"{listed(WEIGHTS)}, or a file; demo: miniatures that know twelve invented classes, "
        "paper: the published files in data/ (default: demo)",
    )  # fmt: skip
    parser.add_argument("--target", default="", metavar="CLASS",
                        help="a class's number or name (default: the predicted one)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=None, metavar="FILE.png",
                        help="default: PICTURE_MODEL_METHOD.png, here")  # fmt: skip
    parser.add_argument("--extend", default="", metavar="FILE.py",
                        help="own models and methods, see docs/own-models.md; a model's own "
                        "weights are taken, --weights says whose classes")  # fmt: skip
    parser.add_argument("--accept", **ACCEPT)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    return parser


def _loaded(options: argparse.Namespace) -> tuple[StudyModel, list[str]]:
    key, method = BACKBONES[options.model].key, METHODS[options.method].key
    dcls, weights, extend = options.dcls, options.weights, options.extend
    study = Study.from_profile(
        "demo" if weights == "demo" else "paper", models=[key], device=options.device,
        extend=extend, accept=accepted(options),
    )  # fmt: skip
    if BACKBONES[key].origin and weights in ("demo", "paper"):
        if not (path := study.inputs.weights_path(key, dcls)).is_file():
            raise MissingInputs(f"no weights at {path}, which {extend} names")
        model = study.networks.load_model(key, dcls)
    elif weights == "paper":
        if not (path := study.inputs.weights_path(key, dcls)).is_file():
            raise MissingInputs(
                f"no weights at {path}; fetch them, with the pictures they are scored on, by "
                f"`python run_all.py --download-only --models {key}`"
            )
        model = study.networks.load_model(key, dcls)
    else:
        known = weights in WEIGHTS
        if not known and not Path(weights).is_file():
            raise unknown_name("weights", weights, [*WEIGHTS, "or a file that is there"])
        model = load_model(key, dcls, weights if known else Path(weights), accept=accepted(options))
        model = model.to(study.networks.device())
    if METHODS[method].learned:
        if weights not in ("demo", "paper"):
            raise ValueError(f"{method} is learned beside the demo's or the paper's weights only")
        model.attentions = study.networks.attentions(key, dcls, [METHODS[method]])
    return model, study.networks.class_names()


def _target(text: str, names: Sequence[str]) -> torch.Tensor | None:
    if not text:
        return None
    if text.isdecimal() and int(text) < len(names):
        return torch.tensor([int(text)])
    found = [number for number, name in enumerate(names) if name.lower() == text.lower()]
    if not found:
        if text.lstrip("-").isdecimal():
            raise ValueError(f"class {text} is outside 0 … {len(names) - 1}")
        raise unknown_name("class", text, names)
    return torch.tensor(found[:1])


def show(
    picture: Path, model: StudyModel, method: str, names: Sequence[str], target: str, out: Path
) -> list[str]:
    """Write overlay and raw map; returns what there is to say, line by line.

    The raw map is (224, 224) float32 over the picture's centred square, NaN outside the part
    that the network saw. Raises ValueError for what is no picture or class.
    """
    row, pixels = METHODS[method], load_square(picture)
    asked = _target(target, names)
    fast = model.for_inference(keep_plain=row.plain)
    with torch.inference_mode():
        likely = fast(fast.prepare(pixels[None])).float().softmax(dim=1)[0].topk(min(5, len(names)))
    shown = int(asked) if asked is not None else int(likely.indices[0])
    raw = heatmaps(fast, pixels[None], torch.tensor([shown]), (row,))[row.label][0]
    with write_atomically(out) as partial:
        mixed = (overlay(pixels, raw) * 255).round().astype(np.uint8)
        Image.fromarray(mixed).save(partial, format="PNG")
    with write_atomically(out.with_suffix(".npy")) as partial, partial.open("wb") as file:
        np.save(file, raw.astype(np.float32))
    lines = [f"{row.label} of {model.variant} for {names[shown]!r} ({shown})"]
    if np.nanmin(raw) == np.nanmax(raw):
        lines.append("the map is constant: no evidence for this class is positive anywhere")
    lines += [
        f"  {100 * p:5.1f} %  {names[i]} ({i})"
        for p, i in zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
    ]
    return [*lines, f"written: {out} and {out.with_suffix('.npy')}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for what is wrong with what was asked."""
    options = build_parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names that the terminal has no letters for
            stream.reconfigure(errors="backslashreplace")
    return run("dcls-cam", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    if options.extend:
        load_extension(Path(options.extend))
    key, method = BACKBONES[options.model].key, METHODS[options.method].key
    name = f"{options.picture.stem}_{variant_name(key, options.dcls)}_{method}.png"
    out = options.out or Path(name)
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out must end in .png, got {out}")
    if not options.picture.is_file():
        raise ValueError(f"there is no file {options.picture}")
    if options.picture.resolve() in (out.resolve(), out.with_suffix(".npy").resolve()):
        raise ValueError(f"--out {out} would replace the picture; choose another name")
    model, names = _loaded(options)
    if remarks := model.provenance.remarks:
        print_remarks({model.variant: remarks})
    print("\n".join(show(options.picture, model, method, names, options.target, out)))
    if options.weights in ("demo", "random"):
        print(
            PROFILES["demo"].caveat if options.weights == "demo" else "Random weights: no result."
        )
