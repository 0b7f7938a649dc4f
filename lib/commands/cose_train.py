"""Training a timm model on a folder of classes, for `dcls-cose`: `dcls-cose-train`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..analyses.cose.training import EARLIER, FINAL, Recipe, begin_with, train
from ..base.fingerprint import sha256_of
from ..networks.building import build_network
from ..networks.weights_files import WeightsError
from ..people.image_folders import FolderImages, ImageFolderError
from ..people.labels import AUTO, LAYOUTS, labelled_images
from ..study.device import chosen_device
from .cose import timm_network
from .running import run


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dcls-cose-train",
        description="Train a timm model on a folder of classes, and save it at some "
        "epochs; see docs/cose.md.",
        allow_abbrev=False,
    )
    add, recipe = parser.add_argument, Recipe()
    add("--images", type=Path, required=True, metavar="FOLDER", help="folder with one per class")
    add("--labels", default=AUTO, metavar="HOW", help=f"{', '.join(LAYOUTS)} (default: {AUTO})")
    add("--list", type=Path, metavar="FILE", help="list of images in FOLDER, as for dcls-cose")
    add("--held-out", type=Path, metavar="FOLDER", help="report the accuracy on these every epoch")
    add("--timm", required=True, metavar="NAME")
    add("--classes", type=int, default=0, metavar="N", help="default: the folder's")
    add("--start", type=Path, metavar="FILE",
        help="weights to start from, possibly with other classes (default: random)")  # fmt: skip
    add("--out", type=Path, required=True, metavar="FOLDER",
        help=f"output: {FINAL} and {EARLIER}/; an interrupted training resumes")  # fmt: skip
    add("--epochs", type=int, default=recipe.epochs)
    add("--keep-every", type=int, default=0, metavar="N",
        help="save the model after every N epochs (default: a tenth of all)")  # fmt: skip
    add("--batch-size", type=int, default=recipe.batch)
    add("--lr", type=float, default=recipe.lr)
    add("--weight-decay", type=float, default=recipe.weight_decay)
    add("--seed", type=int, default=recipe.seed)
    add("--readers", type=int, default=2, help="processes that read images (default: 2)")
    add("--device", default="auto")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, 2 for an invalid request."""
    options = build_parser().parse_args(arguments)
    return run(
        "dcls-cose-train", lambda: _run(options), "; the same command resumes at the last epoch",
        "try a smaller --batch-size, which is another training",
    )  # fmt: skip


def _recipe(options: argparse.Namespace) -> Recipe:
    for name, least in (("epochs", 1), ("keep_every", 0), ("batch_size", 2), ("seed", 0),
                        ("readers", 0), ("weight_decay", 0), ("classes", 0)):  # fmt: skip
        if not least <= getattr(options, name) < 2**63:
            word = name.replace("_", "-")
            raise ValueError(f"--{word} must be {least} or more, got {getattr(options, name)}")
    if not 0 < options.lr < math.inf:
        raise ValueError(f"--lr must be a finite number above 0, got {options.lr}")
    keep = options.keep_every or max(1, options.epochs // 10)
    return Recipe(
        options.epochs, options.batch_size, options.lr, options.weight_decay, keep, options.seed
    )


def _run(options: argparse.Namespace) -> None:
    recipe, device = _recipe(options), chosen_device(options.device)
    folder = labelled_images(options.images, options.labels, options.list, options.classes)
    held_out = None
    if options.held_out:
        held_out = labelled_images(options.held_out, classes=folder.classes)
    if any(not found.classes or found.images[0].label is None
           for found in (folder, held_out) if found):  # fmt: skip
        raise ImageFolderError("the classes of the images, or their number, are unknown")
    if held_out is not None and held_out.names != folder.names:
        raise ImageFolderError(
            f"{options.held_out} has other classes than {options.images}: the folders of both must "
            "have the same names"
        )
    if options.out.exists() and not options.out.is_dir():
        raise ImageFolderError(f"--out {options.out} is a file: name a folder")
    if len(folder.images) < 2:
        raise ImageFolderError(f"{options.images} holds one image: too few to train on")
    with timm_network(options.timm, str(options.out / FINAL)) as row:
        pass  # only its row is needed
    torch.manual_seed(recipe.seed)
    network = build_network(row, False, num_classes=folder.classes)
    if options.start:
        if not options.start.is_file():
            raise WeightsError(f"{options.start} does not exist: give a weights file")
        anew = begin_with(network, options.start)
        print(f"starts from {options.start}" + f", new: {', '.join(anew)}" * bool(anew))
    paths = [image.path for image in folder.images]
    side = row.preprocessing.crop
    images = FolderImages(paths, side, options.readers, options.images)
    facts = images.facts() | {
        "timm": options.timm,
        "classes": [folder.classes, *folder.names],
        "labels": [image.label for image in folder.images],
        "start": sha256_of(options.start) if options.start else "",
    }
    labels = np.array([image.label for image in folder.images])
    train(network.to(device), row.preprocessing, images, labels, recipe, options.out, facts,
          held_out)  # fmt: skip
    print(
        f"trained: {options.out / FINAL}; score it by\n  dcls-cose --images FOLDER --timm "
        f"{options.timm} --weights {options.out / FINAL} --checkpoints {options.out / EARLIER} "
        "--out pairs.csv"
    )
