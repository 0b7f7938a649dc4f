"""Train L-CAM and TAME for a study's networks: `python -m lib.lcam`.

Trained modules go where `--methods lcam_img` and its like look for them,
`<data>/attention/<variant>/<method>.safetensors`, with the losses of every step beside them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from tqdm import tqdm

from lib.attention import ATTENTIONS, MASKINGS, save_attention
from lib.attention_training import RECIPES, Pictures, Recipe, Trained, train_attention
from lib.backbones import Backbone, variant_name
from lib.checkpoints import MissingWeights, WeightsError
from lib.files import write_atomically
from lib.fingerprint import fingerprint, sha256_of
from lib.methods import LEARNED_METHODS
from lib.models import resize_pictures
from lib.paths import shown
from lib.picture_folders import (
    ArrayPictures,
    FolderPictures,
    PictureFolderError,
    listed_pictures,
)
from lib.study import PROFILES, MissingInputs, Study
from lib.tables import unknown_name

DEMO_PICTURES = 256


def demo_pictures(count: int = DEMO_PICTURES) -> Callable[[Backbone], Pictures]:
    """The embedded example's training scenes, as each backbone sees them."""
    from lib.demo.delivered import TRAINING, delivered

    pictures, _, _ = delivered(TRAINING, count, empty=False)
    return lambda backbone: ArrayPictures(
        resize_pictures(pictures, backbone.preprocessing), "embedded example, training scenes"
    )


def folder_pictures(
    folder: Path, annotations: Path | None, limit: int, workers: int
) -> Callable[[Backbone], Pictures]:
    """A folder's pictures, cropped to what each backbone takes. Raises PictureFolderError."""
    paths = listed_pictures(folder, annotations, limit)
    return lambda backbone: FolderPictures(paths, backbone.preprocessing.crop, workers)


def default_recipe(profile: str, key: str) -> Recipe:
    """As published for ResNet-50, for every backbone; TAME's own; the embedded example's."""
    if PROFILES[profile].mini:
        return RECIPES["demo"]
    return RECIPES["tame" if key == "tame" else "resnet50"]


def train_variant(
    study: Study,
    backbone: Backbone,
    dcls: bool,
    key: str,
    pictures: Pictures,
    recipe: Recipe,
    *,
    masking: str = MASKINGS[0],
    seed: int = 0,
    resume: bool = False,
    look_at: torch.Tensor | None = None,
    save_to: Path | None = None,
) -> Trained | None:
    """Train one method beside one variant; with `save_to` save it there, and None if what is
    there was trained alike already.

    An unfinished training is kept beside `save_to` as `.<method>.unfinished.pt`.
    Raises MissingWeights, WeightsError (AttentionError), PictureFolderError.
    """
    weights = study.weights_path(backbone.key, dcls)
    if not weights.is_file():
        raise MissingWeights(f"no weights at {shown(weights)}")
    facts = {
        "attention": key, "variant": study.weights_name(backbone.key, dcls),
        "weights": sha256_of(weights), "masking": masking, "seed": str(seed),
        "recipe": json.dumps(vars(recipe) | {"decays": list(recipe.decays)}),
        "pictures": json.dumps(pictures.facts()),
    }  # fmt: skip
    facts["training"] = fingerprint(facts)
    if save_to is not None and _trained_alike(save_to, facts["training"]):
        return None
    model = study.load_model(backbone.key, dcls)
    # Only the head is differentiated where features are masked; FastViT's own backward wants
    # the network as it is.
    through_head = ATTENTIONS[key].hides == "features"
    model = model.for_inference() if through_head else model.folded()
    unfinished = save_to and save_to.with_name(f".{key}.unfinished.pt")
    trained = train_attention(
        model, key, pictures, recipe, backbone.preprocessing.crop,
        masking=masking, seed=seed, precision=study.precision, checkpoint=unfinished,
        resume=resume, look_at=look_at, facts={"weights": facts["weights"]},
    )  # fmt: skip
    if save_to is not None:
        save_attention(save_to, key, trained.attention, facts)
        with write_atomically(save_to.with_suffix(".csv")) as partial:
            trained.history.to_csv(partial, index=False, float_format="%.6g")
        unfinished.unlink(missing_ok=True)
    return trained


def _trained_alike(path: Path, training: str) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("training") == training
    except Exception:  # not there, or damaged: trained anew
        return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lib.lcam",
        description="Train learned attention maps beside frozen networks.",
        epilog=f"methods: {', '.join(LEARNED_METHODS)}; recipes: {', '.join(RECIPES)}",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--profile", default="paper", help=f"{', '.join(PROFILES)} (default: paper)")
    add("--models", nargs="+", default=[], metavar="KEY", help="default: all, plain and DCLS")
    add("--methods", nargs="+", default=["lcam_fm", "lcam_img"], metavar="KEY")
    add("--images", type=Path, metavar="FOLDER",
        help="pictures to train on: ILSVRC2012_img_train, or any folder of pictures in folders; "
        "not for the demo, which makes its own")  # fmt: skip
    add("--list", type=Path, metavar="FILE",
        help="a text file, one picture of FOLDER at the start of each line")  # fmt: skip
    add("--limit", type=int, default=0, metavar="N", help="so many of the pictures (default: all)")
    add("--recipe", default="", help="default: as published for ResNet-50, or TAME's")
    add("--epochs", type=int, default=0)
    add("--lr", type=float, default=0.0)
    add("--batch-size", type=int, default=0)
    add("--masking", default=MASKINGS[0], help=f"{' or '.join(MASKINGS)} (default: {MASKINGS[0]})")
    add("--seed", type=int, default=0)
    add("--resume", action="store_true", help="go on with a training that did not end")
    add("--readers", type=int, default=2, help="processes that read pictures (default: 2)")
    add("--precision", default="float32", help="float32 or bf16")
    add("--device", default="auto")
    add("--data-dir", default="")
    return parser


def _recipe(options: argparse.Namespace, key: str) -> Recipe:
    chosen = RECIPES[options.recipe] if options.recipe else default_recipe(options.profile, key)
    for name, field in (("epochs", "epochs"), ("lr", "lr"), ("batch_size", "batch")):
        value = getattr(options, name)
        if value < 0:
            raise ValueError(f"--{name.replace('_', '-')} must be above 0, got {value}")
        if value:
            chosen = replace(chosen, **{field: value})
    return chosen


def _chosen_pictures(options: argparse.Namespace, study: Study) -> Callable[[Backbone], Pictures]:
    if study.profile.mini:
        if options.images is not None:
            raise ValueError("the demo trains on its own scenes: leave --images out")
        return demo_pictures(options.limit or DEMO_PICTURES)
    if options.images is None:
        raise ValueError("--images FOLDER is needed: the pictures to train on")
    return folder_pictures(options.images, options.list, options.limit, options.readers)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for what is wrong with what was asked."""
    options = _parser().parse_args(arguments)
    try:
        study = Study.from_profile(
            options.profile, options.models, (), device=options.device,
            data_dir=options.data_dir, precision=options.precision,
        )  # fmt: skip
        keys = [row.key for row in ATTENTIONS.select(options.methods)]
        recipes = {key: _recipe(options, key) for key in keys}
        if options.masking not in MASKINGS:
            raise unknown_name("masking", options.masking, MASKINGS)
        pictures = _chosen_pictures(options, study)
        for line in _trained(study, keys, recipes, pictures, options):
            tqdm.write(line)
    except (ValueError, MissingInputs, MissingWeights, PictureFolderError, WeightsError) as error:
        print(f"lib.lcam: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lib.lcam: ended; go on with the same command and --resume", file=sys.stderr)
        return 130
    return 0


def _trained(
    study: Study,
    keys: Sequence[str],
    recipes: dict[str, Recipe],
    pictures: Callable[[Backbone], Pictures],
    options: argparse.Namespace,
) -> Iterable[str]:
    """What is to be said of each training, when it has ended."""
    for backbone, dcls in study.variants:
        if study.weights_name(backbone.key, dcls) != variant_name(backbone.key, dcls):
            continue  # a matched pair's DCLS network is another pair's too
        for key in keys:
            path = study.attention_path(backbone.key, dcls, key)
            found = train_variant(
                study, backbone, dcls, key, pictures(backbone), recipes[key],
                masking=options.masking, seed=options.seed, resume=options.resume, save_to=path,
            )  # fmt: skip
            if found is None:
                yield f"{shown(path)}: trained alike before"
            else:
                last = found.history.tail(10)[["loss", "cross_entropy", "area", "same_class"]]
                told = ", ".join(f"{name} {value:.3f}" for name, value in last.mean().items())
                yield f"{shown(path)}: {len(found.history)} steps; the last ten's {told}"


if __name__ == "__main__":
    raise SystemExit(main())
