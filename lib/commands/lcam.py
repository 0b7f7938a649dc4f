"""Training L-CAM and TAME for a study's models, or importing L-CAM's own modules: `dcls-lcam`.

Modules are saved where `--methods lcam_img` and the like look for them,
`<data>/attention/<variant>/<method>.safetensors`, with the losses of every step beside them.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import torch
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
from ..base.cores import usable_cores
from ..base.files import write_atomically
from ..base.paths import shown
from ..base.tables import unknown_name
from ..figures.lcam import plot_looks, plot_losses
from ..figures.style import use_study_style
from ..maps.learned.attention import ATTENTIONS, MASKINGS
from ..maps.learned.processes import (
    ALONE,
    Processes,
    ProcessLost,
    check_devices,
    joined,
    local_processes,
)
from ..maps.learned.training import RECIPES, Images, Recipe
from ..maps.methods import LEARNED_METHODS, METHODS
from ..networks.backbones import Backbone
from ..study.choices import Choices
from ..study.device import chosen_device
from ..study.profiles import PROFILES
from ..study.study import Study
from .processes import is_one_of_several, is_started, start
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
    add("--validate", type=int, default=0, metavar="N",
        help="hold out N of the images and measure the module on them after each epoch "
        "(default: 0)")  # fmt: skip
    add("--readers", type=int,
        help="processes that read images, for each device; 0 reads them between the steps "
        "(default: up to 2, up to 8 for a GPU, and no more than there are cores)")  # fmt: skip
    add("--devices", type=int, default=1, metavar="N",
        help="train with N GPUs of this machine, or with N processes on the CPU, which split "
        "every batch (default: 1)")  # fmt: skip
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
    readers = options.readers
    if readers is None:
        most = 8 if chosen_device(options.device).type == "cuda" else 2
        readers = max(1, min(most, usable_cores() // local_processes()))
    return folder_images(options.images, options.list, options.limit, readers)


def main(
    arguments: Sequence[str] | None = None,
    made: Callable[[int], Callable[[Backbone], Images]] | None = None,
) -> int:
    """Run the command line; return the exit status, 2 for an invalid request.

    made : makes a number of images for each backbone, without a folder
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = build_parser().parse_args(words)
    several = options.devices > 1 and not is_one_of_several()
    return run(
        "dcls-lcam",
        lambda: _start(options, words, made) if several else _join(options, made),
        "; resume with the same command and --resume",
        "try a smaller --batch-size, which is another training",
    )  # fmt: skip


def _start(options: argparse.Namespace, words: Sequence[str], made: Callable | None) -> int:
    """Start one process for each device; each calls `main` again."""
    if options.imported is not None:
        raise ValueError("--import trains nothing: omit --devices")
    check_devices(chosen_device(options.device), options.devices)
    return start("dcls-lcam", options.devices, main, words, made)


def _join(options: argparse.Namespace, made: Callable | None) -> int | None:
    """Train, alone or as one of several processes, of which only one reports an error."""
    if options.devices < 1:
        raise ValueError(f"--devices must be 1 or more, got {options.devices}")
    matplotlib.use("agg")
    use_study_style()
    if not is_one_of_several():
        return _run(options, made, ALONE)
    device = chosen_device(options.device)
    if is_started() and device.type == "cpu":
        torch.set_num_threads(max(1, usable_cores() // local_processes()))
    with joined(device) as processes:
        try:
            return _run(options, made, processes)
        except ProcessLost:
            if is_started() or not processes.fails_first():
                return 2
            raise
        except KeyboardInterrupt:
            if is_started():
                return 130
            raise
        except Exception:
            if not processes.fails_first():
                return 2
            raise


def _run(options: argparse.Namespace, made: Callable | None, processes: Processes) -> None:
    study = Study.from_profile(
        options.profile, options.models, (), device=options.device,
        data_dir=options.data_dir, precision=options.precision, extend=options.extend,
        accept=accepted(options),
    )  # fmt: skip
    if processes.writes:
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
    for name in ("readers", "limit", "validate"):
        if (getattr(options, name) or 0) < 0:
            raise ValueError(f"--{name} must be 0 or more, got {getattr(options, name)}")
    if options.masking not in MASKINGS:
        raise unknown_name("masking", options.masking, MASKINGS)
    images = _chosen_images(options, study.choices, made)
    for line in _trained(study, keys, recipes, images, options, processes):
        if processes.writes:
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
    processes: Processes,
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
            taken, held_out = images(backbone), None
            if options.validate:
                taken, held_out = taken.apart(options.validate)
            early = taken.some(_LOOKED_AT)
            found = train_variant(
                study, backbone, dcls, key, taken, recipes[backbone.key, key],
                masking=options.masking, seed=options.seed, resume=options.resume, save_to=path,
                look_at=early, on_look=partial(draw_early, path, early, METHODS[key].label),
                held_out=held_out, processes=processes,
            )  # fmt: skip
            if found is None:
                yield f"{shown(path)}: already trained with these options"
            else:
                last = found.history.tail(10)[["loss", "cross_entropy", "area", "same_class"]]
                told = ", ".join(f"{name} {value:.3f}" for name, value in last.mean().items())
                yield f"{shown(path)}: {len(found.history)} steps; means of the last ten: {told}"
                end = found.epochs.iloc[-1]
                told = f"{end.images_per_second:.0f} images/s in the last epoch"
                if held_out is not None:
                    told += f"; on {len(held_out)} held-out images: loss {end.loss:.3f}, "
                    told += (
                        f"same_class {end.same_class:.3f}, average drop {end.average_drop:.1f} %"
                    )
                yield f"  {told}"
