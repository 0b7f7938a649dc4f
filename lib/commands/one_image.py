"""Heatmaps of single images: `dcls-cam`.

One image, one model and one method give an overlay and the raw heatmap. Several of any of them
give a grid, and all raw heatmaps in one file.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from ..base.files import write_atomically
from ..base.geometry import DELIVERED_SIZE
from ..base.words import in_lines, printable
from ..figures.heatmaps import overlay
from ..figures.map_grids import plot_map_grids
from ..figures.style import use_study_style
from ..maps.combined import smoothed
from ..maps.methods import METHODS, CamMethod
from ..maps.placed import heatmaps
from ..networks.backbones import BACKBONES
from ..networks.models import StudyModel
from ..people.photographs import load_square
from ..study.extension import load_extension, placed
from ..study.inputs import chosen_folder
from ..study.plug_ins import load_asked
from ..study.profiles import PROFILES
from .asked_models import WEIGHTS, AskedModel, class_count, variants
from .class_words import class_meant, class_names, in_words, read_class_names
from .running import ACCEPT, accepted, print_remarks, run

MOST_MAPS = 480  # per call; all are in memory at once
_LIKELIEST = 5


def build_parser() -> argparse.ArgumentParser:
    def listed(table) -> str:
        return ", ".join(table)

    notes = [f"  {m.key}: {m.note}" for m in METHODS.values() if m.note]
    parser = argparse.ArgumentParser(
        prog="dcls-cam",
        description="Heatmaps of images. One image, model and method: an overlay as PNG, the raw "
        "heatmap as .npy beside it, and the five most probable classes. Several of any of them: a "
        "grid as PNG, and all raw heatmaps as .npz beside it.",
        epilog="\n".join(
            [
                f"models: {listed(BACKBONES)}; with DCLS: convnext_tiny_dcls, …",
                "",
                f"methods: {listed(METHODS)}",
                "",
                *notes,
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("images", nargs="*", type=Path, metavar="IMAGE",
        help="image files; the centred square of each is used")  # fmt: skip
    add("--model", nargs="+", action="extend", default=[], metavar="KEY",
        help="one or more, see below (default: convnext_tiny)")  # fmt: skip
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--dcls", action="store_true", help="all models with DCLS")
    form.add_argument("--both", action="store_true", help="all models without and with DCLS")
    add("--method", nargs="+", action="extend", default=[], metavar="KEY",
        help="one or more, see below (default: threshold_grad_cam)")  # fmt: skip
    add("--weights", default="", metavar="WHICH",
        help=f"{listed(WEIGHTS)}, or a file; demo: miniatures with twelve invented classes, "
        "paper: the published files in data/ (default: a model's own if --extend adds it, "
        "otherwise demo, or paper for models without a miniature)")  # fmt: skip
    add("--target", default="", metavar="CLASS",
        help="a class's number, name, or a part of the name (default: the class that each model "
        "predicts)")  # fmt: skip
    add(
        "--eigen-smooth",
        action="store_true",
        help="use the first component of what a method sums over channels, instead of the sum",
    )
    add(
        "--aug-smooth",
        action="store_true",
        help="use the mean heatmap of six changed images: mirrored, brighter, darker",
    )
    add("--class-names", type=Path, metavar="FILE",
        help="class names, one per line (default: ImageNet's for 1000, else numbers)")  # fmt: skip
    add("--out", type=Path, metavar="FILE.png",
        help="in an existing folder (default: IMAGE_MODEL_METHOD.png, here)")  # fmt: skip
    add("--extend", default="", metavar="FILE.py",
        help="your own models and methods, see docs/own-models.md")  # fmt: skip
    add("--accept", **ACCEPT)
    add("--data-dir", default="", metavar="FOLDER",
        help="folder of downloaded weights (default: data)")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, 2 for an invalid request."""
    options = build_parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # for names with letters that the terminal lacks
            stream.reconfigure(errors="backslashreplace")
    return run("dcls-cam", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    if options.extend:
        with _no_bytecode():
            load_extension(Path(options.extend))
    load_asked(_flat(options.model), _flat(options.method))
    methods = [METHODS[name] for name in _names(options, "method", METHODS, "threshold_grad_cam")]
    if options.eigen_smooth or options.aug_smooth:
        smooth = {"eigen": options.eigen_smooth, "aug": options.aug_smooth}
        methods = [smoothed(method, **smooth) for method in methods]
    asked = variants(
        _names(options, "model", BACKBONES, "convnext_tiny"), options.dcls, options.both
    )
    paths = list(dict.fromkeys(options.images))
    if not paths:
        raise ValueError("no image is given: name one or more, dcls-cam IMAGE …")
    wished = {
        "device": options.device,
        "extend": options.extend and str(placed(Path(options.extend))),
        "accept": accepted(options),
        "data_dir": chosen_folder("data_dir", options.data_dir),
    }
    models = [AskedModel(backbone, dcls, options.weights, wished) for backbone, dcls in asked]
    _refuse_too_many(len(paths), models, len(methods))
    out = options.out or Path(_name(paths, models, methods))
    _refuse_out(out, paths)
    names = read_class_names(options.class_names) if options.class_names else []
    pixels = _read(paths)
    for model in models:
        model.check(methods)
    if len(pixels) == len(models) == len(methods) == 1:
        for line in _write_one(pixels[0], models[0], methods[0], names, options.target, out):
            print(printable(line))
    else:
        for line in _write_grid(paths, pixels, models, methods, names, options.target, out):
            print(printable(line), flush=True)
    if caveat := _caveat(models):
        print(caveat)


# --- the request ------------------------------------------------------------------------------


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Keep Python from writing a __pycache__ beside a file of own rows, in the user's folder."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _names(
    options: argparse.Namespace, option: str, known: Mapping[str, object], default: str
) -> list[str]:
    """Return the names of an option, given with spaces or commas. argparse reads an image after
    them as another name; it becomes an image again."""
    names: list[str] = []
    for text in getattr(options, option):
        if option == "model" and "@" in text and Path(text.partition("@")[2]).exists():
            names.append(text)  # a path may contain commas
        elif text.removesuffix("_dcls") not in known and Path(text).is_file():
            options.images.append(Path(text))
        else:
            names += _flat([text])
    return list(dict.fromkeys(names)) or [default]


def _flat(texts: Sequence[str]) -> list[str]:
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def _refuse_too_many(images: int, models: Sequence[AskedModel], methods: int) -> None:
    if len(models) > 1 and models[0].kind == "file":
        raise ValueError(
            f"--weights {models[0].weights} is the file of one model, but {len(models)} models are "
            "requested: " + ", ".join(model.name for model in models)
        )
    count = images * len(models) * methods
    if count > MOST_MAPS:
        raise ValueError(
            f"{images} images, {len(models)} models and {methods} methods give {count} heatmaps, "
            f"but one call makes at most {MOST_MAPS}: request fewer at a time"
        )


def _name(paths: Sequence[Path], models: Sequence[AskedModel], methods: Sequence[CamMethod]) -> str:
    """Return the output file's name: a single image, model or method by name, several by count."""
    parts = {
        "images": [path.stem for path in paths],
        "models": [model.name for model in models],
        "methods": [method.key for method in methods],
    }
    words = [p[0] if len(p) == 1 else f"{len(p)}_{kind}" for kind, p in parts.items()]
    return "_".join(words) + ".png"


def _refuse_out(out: Path, read: Iterable[Path]) -> None:
    """Raise ValueError unless such files can be written and replace no input file."""
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out must end in .png, got {out}")
    folder = out.resolve().parent
    if not folder.is_dir():
        raise ValueError(f"--out {out}: the folder {folder} does not exist; create it first")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file in it")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"--out {out}: {folder} is not writable; name another folder")
    ours = re.compile(rf"{re.escape(out.stem)}(_\d+)?\.(png|npy|npz)", re.I)
    for path in read:
        if path.resolve().parent == folder and ours.fullmatch(path.resolve().name):
            raise ValueError(f"--out {out} would replace the image {path}; choose another name")


def _read(paths: Sequence[Path]) -> list[np.ndarray]:
    """Return the centred square of each image, (224, 224, 3) uint8. Raises ValueError, which names
    all that cannot be read."""
    pixels, problems = [], []
    for path in paths:
        try:
            if path.is_dir():
                raise ValueError(f"{path} is a folder: name the images in it")
            if not path.is_file():
                raise ValueError(f"{path} does not exist")
            pixels.append(load_square(path))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(in_lines(problems))
    return pixels


def _caveat(models: Sequence[AskedModel]) -> str:
    kinds = {model.kind for model in models}
    said = {"demo": PROFILES["demo"].caveat, "random": "Random weights: not a result."}
    return " ".join(words for kind, words in said.items() if kind in kinds)


# --- heatmaps ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Explained:
    """A model's answer to one image, and its heatmaps of one class.

    names   : the model's class names
    shown   : the class of the heatmaps
    likely  : the most probable classes, in descending order
    probabilities : (class,) in 0-1
    maps    : (method, 224, 224) float32 over the image's centred square, NaN outside the part
              that the model saw
    remarks : for each method what is wrong with its heatmap; "" for nothing
    """

    names: Sequence[str]
    shown: int
    likely: Sequence[int]
    probabilities: np.ndarray
    maps: np.ndarray
    remarks: list[str]

    def said(self, number: int) -> str:
        return f"{in_words(self.names, number)}, {_percent(self.probabilities[number])}"


def _percent(share: float) -> str:
    return "<0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def _explained(
    asked: AskedModel,
    pixels: Sequence[np.ndarray],
    methods: Sequence[CamMethod],
    given: Sequence[str],
    target: str,
) -> Iterator[Explained]:
    """Yield each image's result. Raises ValueError for a class that the model does not have."""
    model = asked.load(methods)
    if remarks := model.provenance.remarks:
        print_remarks({asked.name: remarks})
    count = class_count(model)
    if given and len(given) != count:
        raise ValueError(
            f"--class-names names {len(given)} classes, but {asked.name} has {count}: give "
            "one line per class, in the order of the model's answers"
        )
    names = given or class_names(count, asked.on_the_demo)
    try:
        wanted = class_meant(target, names) if target.strip() else None
    except ValueError as error:
        raise ValueError(f"--target of {asked.name}: {error}") from None
    for image in pixels:
        yield _explain(model, image, methods, names, wanted)


def _explain(
    model: StudyModel,
    image: np.ndarray,
    methods: Sequence[CamMethod],
    names: Sequence[str],
    wanted: int | None,
) -> Explained:
    with torch.inference_mode():
        shares = model(model.prepare(image[None])).float().softmax(dim=1)[0].cpu()
    if not shares.isfinite().all():
        raise ValueError(
            f"{model.variant} answers with numbers that are not finite, so it predicts no class"
        )
    likely = shares.topk(min(_LIKELIEST, len(names))).indices.tolist()
    shown = likely[0] if wanted is None else wanted
    found = heatmaps(model, image[None], torch.tensor([shown]), tuple(methods))
    maps = np.stack([found[method.label][0] for method in methods]).astype(np.float32)
    window = model.backbone.preprocessing.window(DELIVERED_SIZE)
    remarks = [_remark(one[window, window]) for one in maps]
    return Explained(names, shown, likely, shares.numpy(), maps, remarks)


def _remark(seen: np.ndarray) -> str:
    """Return what is wrong with the part of a heatmap that the model saw; "" for nothing."""
    finite = np.isfinite(seen)
    if not finite.all():
        return f"not finite in {_percent(1 - finite.mean())} of it"
    return "constant: no place stands out" if seen.min() == seen.max() else ""


def _write_one(
    image: np.ndarray,
    asked: AskedModel,
    method: CamMethod,
    names: Sequence[str],
    target: str,
    out: Path,
) -> list[str]:
    """Write the overlay and the raw heatmap; return the lines to print."""
    (found,) = _explained(asked, [image], [method], names, target)
    (raw,) = found.maps
    with write_atomically(out) as partial:
        mixed = (overlay(image, raw) * 255).round().astype(np.uint8)
        Image.fromarray(mixed).save(partial, format="PNG")
    with write_atomically(out.with_suffix(".npy")) as partial, partial.open("wb") as file:
        np.save(file, raw)
    return [
        f"{method.label} of {asked.name} for {found.said(found.shown)}",
        *(f"the heatmap is {remark}" for remark in found.remarks if remark),
        *(f"  {100 * found.probabilities[n]:5.1f} %  {in_words(found.names, n)}"
          for n in found.likely),
        f"written: {out} and {out.with_suffix('.npy')}",
    ]  # fmt: skip


def _write_grid(
    paths: Sequence[Path],
    pixels: Sequence[np.ndarray],
    models: Sequence[AskedModel],
    methods: Sequence[CamMethod],
    names: Sequence[str],
    target: str,
    out: Path,
) -> Iterator[str]:
    """Write grids and the raw heatmaps; yield the lines to print."""
    size = len(paths), len(models), len(methods)
    maps = np.empty((*size, DELIVERED_SIZE, DELIVERED_SIZE), np.float32)
    remarks, words = np.full(size, "", object), np.full(size[:2], "", object)
    classes = np.empty(size[:2], np.int64)
    probabilities = np.empty(size[:2], np.float32)
    called = np.full(size[:2], "", object)
    for m, asked in enumerate(models):
        for p, found in enumerate(_explained(asked, pixels, methods, names, target)):
            if p == 0:
                yield f"{asked.label}:"
            maps[p, m], remarks[p, m] = found.maps, found.remarks
            classes[p, m], called[p, m] = found.shown, found.names[found.shown]
            probabilities[p, m] = found.probabilities[found.shown]
            name = printable(called[p, m].split(",")[0])
            words[p, m] = f"{name}, {_percent(probabilities[p, m])}"
            yield f"  {paths[p]}: {found.said(found.shown)}"
            for method, remark in zip(methods, found.remarks, strict=True):
                if remark:
                    yield f"    {method.label} is {remark}"
    shown = list(zip(_told_apart(paths), pixels, strict=True))
    labels = [model.label for model in models], [method.label for method in methods]
    matplotlib.use("agg")
    use_study_style()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a missing letter becomes a box
        figures = plot_map_grids(shown, *labels, maps, words, remarks, _caveat(models))
        written = [
            out if len(figures) == 1 else out.with_stem(f"{out.stem}_{number}")
            for number in range(1, len(figures) + 1)
        ]
        for path, figure in zip(written, figures, strict=True):
            with write_atomically(path) as partial:
                figure.savefig(partial, format="png")
            plt.close(figure)
    raw = out.with_suffix(".npz")
    with write_atomically(raw) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file,
            maps=maps,
            images=np.array([str(path) for path in paths]),
            models=np.array([model.name for model in models]),
            methods=np.array([method.key for method in methods]),
            classes=classes,
            class_names=called.astype(str),
            probabilities=probabilities,
        )
    yield f"written: {', '.join(map(str, written))} and {raw}"


def _told_apart(paths: Sequence[Path]) -> list[str]:
    """Return names of images, with their folders' names if two have the same name."""
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = ["/".join(path.resolve().parts[-2:]) for path in paths]
    return [printable(name) for name in names]
