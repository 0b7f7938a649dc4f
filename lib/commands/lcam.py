"""Training L-CAM and TAME for a study's models, or importing L-CAM's own modules: `dcls-lcam`.

Modules are saved where `--methods lcam_img` and the like look for them,
`<data>/attention/<variant>/<method>.safetensors`, with the losses of every step beside them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from torch import Tensor
from tqdm import tqdm

from ..analyses.lcam.comparison import looked_at
from ..analyses.lcam.imported import import_snapshot
from ..analyses.lcam.trainings import (
    DRAWN_LOSSES,
    DRAWN_MAPS,
    default_recipe,
    folder_images,
    train_variant,
    unfinished,
)
from ..base.files import write_atomically
from ..base.paths import shown
from ..base.tables import unknown_name
from ..figures.lcam import plot_looks, plot_losses
from ..figures.style import use_study_style
from ..maps.learned.attention import ATTENTIONS, MASKINGS
from ..maps.learned.training import RECIPES, Images, Recipe
from ..maps.methods import LEARNED_METHODS, METHODS
from ..networks.backbones import Backbone
from ..study.choices import Choices
from ..study.profiles import PROFILES
from ..study.study import Study
from .running import ACCEPT, accepted, print_remarks, run

_LOOKED_AT = 6  # images in the drawings of early results


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dcls-lcam",
        description="Train learned attention maps for frozen models.",
        epilog="methods:\n"
        + "\n".join(f"  {key:<22}{METHODS[key].note}" for key in LEARNED_METHODS)
        + f"\n\nrecipes: {', '.join(RECIPES)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--profile", default="paper", help=f"{', '.join(PROFILES)} (default: paper)")
    add("--models", nargs="+", default=[], metavar="KEY", help="default: all, plain and DCLS")
    add("--methods", nargs="+", default=["lcam_fm", "lcam_img"], metavar="KEY")
    add("--images", type=Path, metavar="FOLDER",
        help="training images: ILSVRC2012_img_train, or any folder with subfolders of images; "
        "not for the demo, which makes its own")  # fmt: skip
    add("--list", type=Path, metavar="FILE",
        help="a text file whose lines each begin with an image of FOLDER")  # fmt: skip
    add("--limit", type=int, default=0, metavar="N", help="number of images (default: all)")
    add("--recipe", default="", help="default: as published, or ours; see docs/lcam.md")
    add("--epochs", type=int, help="default: the recipe's, as for the next two options")
    add("--lr", type=float)
    add("--batch-size", type=int)
    add("--masking", default=MASKINGS[0], help=f"{' or '.join(MASKINGS)} (default: {MASKINGS[0]})")
    add("--seed", type=int, default=0)
    add("--import", type=Path, metavar="FILE.pth.tar", dest="imported",
        help="instead of training, import a module from a snapshot of L-CAM's published code, for "
        "one model and one method")  # fmt: skip
    add("--resume", action="store_true", help="resume a training that was interrupted")
    add("--readers", type=int, default=2, help="processes that read images (default: 2)")
    add("--precision", default="float32", help="float32 or bf16")
    add("--device", default="auto")
    add("--data-dir", default="")
    add("--accept", **ACCEPT)
    add("--extend", default="", metavar="FILE.py", help="own models, see docs/own-models.md")
    return parser


def _recipe(options: argparse.Namespace, backbone: Backbone, key: str) -> Recipe:
    if options.recipe:
        chosen = RECIPES[options.recipe]
    else:
        chosen = default_recipe(options.profile, backbone, key)
    for name, field in (("epochs", "epochs"), ("lr", "lr"), ("batch_size", "batch")):
        value = getattr(options, name)
        if value is None:
            continue
        if not 0 < value < math.inf:
            word = name.replace("_", "-")
            raise ValueError(f"--{word} must be a finite number above 0, got {value}")
        chosen = replace(chosen, **{field: value})
    return chosen


def _chosen_images(
    options: argparse.Namespace, choices: Choices, made: Callable | None
) -> Callable[[Backbone], Images]:
    if choices.profile.mini and made is None:
        raise ValueError("the demo's modules are trained by `python -m lib.demo.attention`")
    if choices.profile.mini:
        if options.images is not None or options.list is not None:
            raise ValueError("the demo trains on its own scenes: omit --images and --list")
        return made(options.limit)
    if options.images is None:
        raise ValueError("--images is missing: give the folder of training images")
    return folder_images(options.images, options.list, options.limit, options.readers)


def main(
    arguments: Sequence[str] | None = None,
    made: Callable[[int], Callable[[Backbone], Images]] | None = None,
) -> int:
    """Run the command line; return the exit status, 2 for an invalid request.

    made : makes a number of images for each backbone, without a folder
    """
    options = build_parser().parse_args(arguments)
    matplotlib.use("agg")
    use_study_style()
    return run(
        "dcls-lcam", lambda: _run(options, made), "; resume with the same command and --resume",
        "try a smaller --batch-size, which is another training",
    )  # fmt: skip


def _run(options: argparse.Namespace, made: Callable | None) -> None:
    study = Study.from_profile(
        options.profile, options.models, (), device=options.device,
        data_dir=options.data_dir, precision=options.precision, extend=options.extend,
        accept=accepted(options),
    )  # fmt: skip
    print_remarks(study.networks.remarks())
    keys = [row.key for row in ATTENTIONS.select(options.methods)]
    if options.imported is not None:
        print(_imported(study, keys, options))
        return
    recipes = {
        (b.key, key): _recipe(options, b, key) for b in study.choices.backbones for key in keys
    }
    if not 0 <= options.seed < 2**63:
        raise ValueError(f"--seed must be 0 or more and below 2^63, got {options.seed}")
    for name in ("readers", "limit"):
        if getattr(options, name) < 0:
            raise ValueError(f"--{name} must be 0 or more, got {getattr(options, name)}")
    if options.masking not in MASKINGS:
        raise unknown_name("masking", options.masking, MASKINGS)
    images = _chosen_images(options, study.choices, made)
    for line in _trained(study, keys, recipes, images, options):
        tqdm.write(line)


def _imported(study: Study, keys: Sequence[str], options: argparse.Namespace) -> str:
    if (len(options.models), len(keys)) != (1, 1):
        raise ValueError(
            "--import takes one module, and its file does not say which: give one --models KEY "
            "and one --methods KEY"
        )
    for name in ("images", "list", "resume"):
        if getattr(options, name):
            raise ValueError(f"--import trains nothing: omit --{name}")
    (backbone,) = study.choices.backbones
    return import_snapshot(study, backbone, keys[0], options.imported)


def draw_early(
    path: Path, images: Tensor, label: str, history: pd.DataFrame, looks: Mapping[int, Tensor]
) -> None:
    """Draw heatmaps and losses so far, as images beside the future module: for an early look."""
    shown = (images.permute(0, 2, 3, 1) * 255).byte().numpy()
    maps = looked_at(looks, label, shown.shape[1])
    figures = {DRAWN_MAPS: plot_looks(shown, maps, path.parent.name)}
    if len(history):
        figures[DRAWN_LOSSES] = plot_losses({label: history}, path.parent.name)
    for suffix, figure in figures.items():
        with write_atomically(unfinished(path, suffix)) as partial_file:
            figure.savefig(partial_file, format="png")
        plt.close(figure)


def _trained(
    study: Study,
    keys: Sequence[str],
    recipes: dict[tuple[str, str], Recipe],
    images: Callable[[Backbone], Images],
    options: argparse.Namespace,
) -> Iterable[str]:
    """Yield a line about each training when it has ended."""
    done = set()
    for backbone, dcls in study.choices.variants:
        name = study.inputs.weights_name(backbone.key, dcls)
        if name in done:  # the DCLS model of a matched pair also belongs to another pair
            continue
        done.add(name)
        for key in keys:
            path = study.inputs.attention_path(backbone.key, dcls, key)
            taken = images(backbone)
            early = taken.some(_LOOKED_AT)
            found = train_variant(
                study, backbone, dcls, key, taken, recipes[backbone.key, key],
                masking=options.masking, seed=options.seed, resume=options.resume, save_to=path,
                look_at=early, on_look=partial(draw_early, path, early, METHODS[key].label),
            )  # fmt: skip
            if found is None:
                yield f"{shown(path)}: already trained with these options"
            else:
                last = found.history.tail(10)[["loss", "cross_entropy", "area", "same_class"]]
                told = ", ".join(f"{name} {value:.3f}" for name, value in last.mean().items())
                yield f"{shown(path)}: {len(found.history)} steps; means of the last ten: {told}"
